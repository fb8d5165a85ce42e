package ca

import (
	"crypto"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// placesAt are pointers to a place.
func placesAt(t *testing.T, url string) revocation.Pointers {
	t.Helper()
	p, err := revocation.NewPointers(url, 16)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// An issuing CA says where the whole list of its root is, the root says nothing, and what was signed elsewhere has to say what is
// so here.
func TestIssuingCANamesTheListOfItsRoot(t *testing.T) {
	here, elsewhere := placesAt(t, "http://pki.bank.example:7480"), placesAt(t, "http://other.bank.example")
	made := map[string]Authority{}
	for name, p := range map[string]revocation.Pointers{"here": here, "elsewhere": elsewhere, "nowhere": {}} {
		a, err := Generate(time.Now(), Config{TrustDomain: "bank.example", Pointers: p})
		if err != nil {
			t.Fatal(err)
		}
		made[name] = a
	}
	root, err := pki.KeyIDOf(made["here"].Root.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"http://pki.bank.example:7480/crl/" + root.String()[:16] + ".crl"}
	if got := made["here"].Issuing.CRLDistributionPoints; !slices.Equal(got, want) {
		t.Errorf("the issuing CA names the lists %q, want %q", got, want)
	}
	if n := len(made["here"].Root.CRLDistributionPoints) + len(made["nowhere"].Issuing.CRLDistributionPoints) + len(made["here"].Issuing.OCSPServer); n != 0 {
		t.Errorf("%d places are named where there is none", n)
	}
	for name, a := range made {
		for where, p := range map[string]revocation.Pointers{"here": here, "nowhere": {}} {
			err := CheckIssuing(a.Root, a.Issuing, Config{TrustDomain: "bank.example", Pointers: p})
			if name == where && err != nil {
				t.Errorf("a certificate that names a list %s, where that is so: %v", name, err)
			}
			if name != where && (!errors.Is(err, ErrAuthority) || !strings.Contains(err.Error(), "revocation.url")) {
				t.Errorf("a certificate that names a list %s, where it is %s, gave %v, want ErrAuthority", name, where, err)
			}
		}
	}
}

// offline makes a root that is kept off line, with one issuing CA, whose name is returned.
func offline(t *testing.T, now time.Time) (dir string, unlock Unlock, issuing string) {
	t.Helper()
	dir = t.TempDir()
	unlock, err := KeyOctets(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	config := Config{TrustDomain: "bank.example", IssuerLifetime: 40 * day}
	if _, err := InitRoot(t.Context(), dir, unlock, now, config); err != nil {
		t.Fatal(err)
	}
	key, err := ECDSAP256.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	withJournal(t, dir, unlock, func(j *FileJournal, root *x509.Certificate, rootKey crypto.Signer) {
		c, err := CertifyIssuing(t.Context(), j, now, config, root, rootKey, key.Public())
		if err != nil {
			t.Fatal(err)
		}
		issuing = c.SerialNumber.Text(16)
	})
	return dir, unlock, issuing
}

// withJournal opens a root as each command does.
func withJournal(t *testing.T, dir string, unlock Unlock, use func(*FileJournal, *x509.Certificate, crypto.Signer)) {
	t.Helper()
	root, key, err := LoadRoot(dir, unlock)
	if err != nil {
		t.Fatal(err)
	}
	j, err := OpenFileJournal(filepath.Join(dir, RootJournal))
	if err != nil {
		t.Fatal(err)
	}
	use(j, root, key)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// Each list of a root has a higher number than those before, whatever the clock says and whether it was given away, and what was
// revoked once stays revoked until the certificate has ended and was on a list after that.
func TestRootListsFollowEachOther(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	dir, unlock, issuing := offline(t, now)
	var number uint64
	for _, step := range []struct {
		name    string
		after   time.Duration
		revoke  []string
		reason  revocation.Reason
		entries int
		why     revocation.Reason
	}{
		{"nobody is revoked", 0, nil, 0, 0, 0},
		{"the CA is", 0, []string{issuing}, revocation.CACompromise, 1, revocation.CACompromise},
		{"for another reason once more", time.Hour, []string{issuing}, revocation.Superseded, 1, revocation.CACompromise},
		{"its certificate has ended", 40 * day, nil, 0, 1, revocation.CACompromise},
		{"and was on a list since", 41 * day, nil, 0, 0, 0},
	} {
		withJournal(t, dir, unlock, func(j *FileJournal, root *x509.Certificate, key crypto.Signer) {
			at := now.Add(step.after)
			_, der, err := SignRootList(j, at, root, key, RootListOrder{Revoke: step.revoke, Reason: step.reason})
			if err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			list, by, err := revocation.ParseList(der, []*x509.Certificate{root}, at)
			if err != nil || by != root {
				t.Fatalf("%s: %v", step.name, err)
			}
			if list.Number <= number || len(list.Entries) != step.entries || !list.NextUpdate.Equal(at.Add(DefaultRootListLifetime)) {
				t.Errorf("%s: the list after number %d is %+v", step.name, number, list)
			}
			if step.entries > 0 && (list.Entries[0].Serial.Text(16) != issuing || list.Entries[0].Reason != step.why || !list.Entries[0].At.Equal(now)) {
				t.Errorf("%s: on the list is %+v", step.name, list.Entries[0])
			}
			number = list.Number
		})
	}
}

// A list that was signed while the clock was years ahead, which no controller takes, holds nothing up once it is set: the next
// one counts from then on, has a higher number, and what was revoked on the list before stays revoked, from no later than now.
func TestRootListAfterAClockThatRanAhead(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	dir, unlock, issuing := offline(t, now)
	withJournal(t, dir, unlock, func(j *FileJournal, root *x509.Certificate, key crypto.Signer) {
		ahead, der, err := SignRootList(j, now.Add(3*365*day), root, key, RootListOrder{Revoke: []string{issuing}, Reason: revocation.CACompromise})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := revocation.ParseList(der, []*x509.Certificate{root}, now); !errors.Is(err, revocation.ErrList) {
			t.Errorf("taking a list of years ahead gave %v, want ErrList", err)
		}
		for _, at := range []time.Time{now, now.Add(time.Hour)} {
			_, der, err := SignRootList(j, at, root, key, RootListOrder{})
			if err != nil {
				t.Fatal(err)
			}
			list, _, err := revocation.ParseList(der, []*x509.Certificate{root}, at)
			if err != nil || list.Number <= ahead.Number || !list.ThisUpdate.Equal(at) || len(list.Entries) != 1 {
				t.Fatalf("the list after it is %+v, %v", list, err)
			}
			if e := list.Entries[0]; e.Serial.Text(16) != issuing || e.Reason != revocation.CACompromise || !e.At.Equal(now) {
				t.Errorf("on the list after it is %+v", e)
			}
		}
	})
}

// A CA is named by its key or by the serial number of its certificate, and nothing is recorded of what is refused.
func TestRootListRefuses(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	dir, unlock, issuing := offline(t, now)
	withJournal(t, dir, unlock, func(j *FileJournal, root *x509.Certificate, key crypto.Signer) {
		before := j.guarded.size
		name := revocation.IssuerName(j.Entries()[1].Intention.Key)
		rootSerial := root.SerialNumber.Text(16)
		for what, test := range map[string]struct {
			order RootListOrder
			now   time.Time
			want  error
		}{
			"a CA of others":       {RootListOrder{Revoke: []string{name, "0123456789abcdef"}}, now, ErrNoIssuer},
			"the root itself":      {RootListOrder{Revoke: []string{rootSerial}}, now, ErrNoIssuer},
			"a hold":               {RootListOrder{Revoke: []string{name}, Reason: revocation.CertificateHold}, now, ErrAuthority},
			"a short life":         {RootListOrder{Lifetime: day - 1}, now, ErrAuthority},
			"a long life":          {RootListOrder{Lifetime: maxRootListLifetime + 1}, now, ErrAuthority},
			"a root that is over":  {RootListOrder{}, root.NotAfter, ErrAuthority},
			"a clock at the epoch": {RootListOrder{}, time.Unix(0, 0), ErrAuthority},
		} {
			if _, _, err := SignRootList(j, test.now, root, key, test.order); !errors.Is(err, test.want) {
				t.Errorf("%s gave %v, want %v", what, err, test.want)
			}
		}
		if j.guarded.size != before {
			t.Error("something was recorded of what was refused")
		}
		for _, name := range []string{strings.ToUpper(name), "0x" + issuing} {
			if l, _, err := SignRootList(j, now, root, key, RootListOrder{Revoke: []string{name}}); err != nil || len(l.Revoked) != 1 || l.Revoked[0].Serial != issuing {
				t.Errorf("revoking %q gave %+v, error %v", name, l, err)
			}
		}
		if err := j.RecordList(RootList{Number: 1}); !errors.Is(err, ErrJournal) {
			t.Errorf("a number from before gave %v, want ErrJournal", err)
		}
	})
	path := filepath.Join(dir, RootJournal)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n")
	if err := os.WriteFile(path, []byte(string(text)+lines[len(lines)-1]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFileJournal(path); !errors.Is(err, ErrJournal) {
		t.Errorf("a journal with one list twice gave %v, want ErrJournal", err)
	}
}
