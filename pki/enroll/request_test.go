package enroll_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

const machineUUID = "6f1c1f7e-0a4b-4a2e-9a53-3f2a52d7c001"

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func identity(t testing.TB, name string) pki.Identity {
	t.Helper()
	uuid, err := pki.ParseUUID(machineUUID)
	if err != nil {
		t.Fatal(err)
	}
	id, err := pki.NewIdentity("bank.example", uuid, name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func parse(t testing.TB, der []byte, err error) enroll.Request {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	r, err := enroll.ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRequestRoundTrip(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	controller, err := pki.NewController("bank.example", []string{"c1.bank.example", "c2.bank.example"}, []netip.Addr{netip.MustParseAddr("192.0.2.1")})
	if err != nil {
		t.Fatal(err)
	}
	administrator, err := pki.NewAdministrator("bank.example", "alice")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{newKey(t), p384, rsaKey, edKey} {
		for _, subject := range []pki.Subject{identity(t, "sql1.bank.example"), controller, administrator} {
			der, err := enroll.NewRequest(key, subject)
			r := parse(t, der, err)
			if r.Subject == nil || !r.Subject.SANs().Equal(subject.SANs()) {
				t.Errorf("%T: read back %v, want %v", key, r.Subject, subject)
			}
			if want, _ := pki.KeyIDOf(key.Public()); r.KeyID != want {
				t.Errorf("%T: key %v, want %v", key, r.KeyID, want)
			}
			if err := enroll.Match(r, subject); err != nil {
				t.Errorf("%T: %v", key, err)
			}
		}
	}
}

func TestRequestRoundTripRandomNames(t *testing.T) {
	key := newKey(t)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`([a-z0-9_]{1,20}\.){0,4}[a-z]{1,20}`).Draw(t, "name")
		der, err := enroll.NewJoinRequest(key, name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := enroll.ParseRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		if r.DNSName != name || r.Subject != nil {
			t.Fatalf("read back %q and %v, want %q alone", r.DNSName, r.Subject, name)
		}
	})
}

func TestNewRequestRefusesWeakKey(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enroll.NewRequest(key, identity(t, "sql1.bank.example")); !errors.Is(err, pki.ErrKey) {
		t.Errorf("a P-224 key gives %v, want ErrKey", err)
	}
	if _, err := enroll.NewJoinRequest(newKey(t), "*.bank.example"); !errors.Is(err, pki.ErrName) {
		t.Errorf("a wildcard gives %v, want ErrName", err)
	}
}

// A request for another machine's name is refused, whoever sends it.
func TestMatch(t *testing.T) {
	key := newKey(t)
	sql1, files1 := identity(t, "sql1.bank.example"), identity(t, "files1.bank.example")
	other, err := pki.NewIdentity("bank.example", pki.UUID{1}, "sql1.bank.example")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := pki.NewIdentity("other.example", sql1.UUID(), "sql1.bank.example")
	if err != nil {
		t.Fatal(err)
	}
	administrator, err := pki.NewAdministrator("bank.example", "alice")
	if err != nil {
		t.Fatal(err)
	}
	full := func(s pki.Subject) enroll.Request { der, err := enroll.NewRequest(key, s); return parse(t, der, err) }
	join := func(n string) enroll.Request { der, err := enroll.NewJoinRequest(key, n); return parse(t, der, err) }
	for _, c := range []struct {
		name    string
		request enroll.Request
		subject pki.Subject
		ok      bool
	}{
		{"own names", full(sql1), sql1, true},
		{"own DNS name", join("SQL1.bank.example"), sql1, true},
		{"another machine's names", full(files1), sql1, false},
		{"another machine's DNS name", join("files1.bank.example"), sql1, false},
		{"own DNS name, another UUID", full(other), sql1, false},
		{"own names, another trust domain", full(foreign), sql1, false},
		{"an administrator's name", full(administrator), sql1, false},
		{"a machine's names for an administrator", full(sql1), administrator, false},
		{"a DNS name for an administrator", join("sql1.bank.example"), administrator, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := enroll.Match(c.request, c.subject)
			if c.ok {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, enroll.ErrNameMismatch) || !strings.Contains(err.Error(), c.subject.String()) {
				t.Errorf("error %v, want ErrNameMismatch that names %v", err, c.subject)
			}
		})
	}
}

func readPEM(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s is not PEM", path)
	}
	return block.Bytes
}

func TestParseRequestOfOpenSSL(t *testing.T) {
	r := parse(t, readPEM(t, "testdata/join-ec.pem"), nil)
	if r.DNSName != "sql1.bank.example" || r.Subject != nil {
		t.Errorf("joining machine reads as %q, %v", r.DNSName, r.Subject)
	}
	r = parse(t, readPEM(t, "testdata/machine-rsa.pem"), nil)
	if r.Subject != identity(t, "sql1.bank.example") {
		t.Errorf("machine reads as %v", r.Subject)
	}
	r = parse(t, readPEM(t, "testdata/common-name-alone.pem"), nil)
	if r.Subject != nil || r.DNSName != "sql1.bank.example" {
		t.Errorf("a common name alone reads as %v, %q", r.Subject, r.DNSName)
	}
}

func TestParseRequestRefuses(t *testing.T) {
	says := map[string]string{
		"invalid-asks-ca":       "asks for the extension 2.5.29.19",
		"invalid-mail":          "of the type [1]",
		"invalid-no-names":      "wanted one DNS name",
		"invalid-not-canonical": "canonical",
		"invalid-organization":  "common name alone",
		"invalid-other-cn":      `common name "files1.bank.example"`,
		"invalid-role":          `the role "robot"`,
		"invalid-rsa1024":       "1024 bits",
		"invalid-secp256k1":     "curve",
		"invalid-sha1":          "SHA1-RSA",
		"invalid-two-names":     "wanted one DNS name",
		"invalid-wildcard":      `character '*'`,
	}
	paths, err := filepath.Glob("testdata/invalid-*.pem")
	if err != nil || len(paths) != len(says) {
		t.Fatalf("%d files, %v, want %d", len(paths), err, len(says))
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".pem")
		_, err := enroll.ParseRequest(readPEM(t, path))
		if !errors.Is(err, enroll.ErrRequest) || says[name] == "" || !strings.Contains(err.Error(), says[name]) {
			t.Errorf("%s gives %v, want ErrRequest that says %q", name, err, says[name])
		}
	}
	good := readPEM(t, "testdata/join-ec.pem")
	for n := range len(good) {
		if _, err := enroll.ParseRequest(good[:n]); !errors.Is(err, enroll.ErrRequest) {
			t.Fatalf("the first %d octets of %d give %v, want ErrRequest", n, len(good), err)
		}
	}
	if _, err := enroll.ParseRequest(append(append([]byte{}, good...), 0)); !errors.Is(err, enroll.ErrRequest) {
		t.Errorf("a trailing octet gives %v, want ErrRequest", err)
	}
	if _, err := enroll.ParseRequest(make([]byte, enroll.MaxRequestSize+1)); !errors.Is(err, enroll.ErrRequest) {
		t.Errorf("a large request gives %v, want ErrRequest", err)
	}
}

// Every octet of a request is either signed or the signature: no change of one goes unnoticed.
func TestParseRequestNoticesEveryChange(t *testing.T) {
	good := readPEM(t, "testdata/join-ec.pem")
	for i := range good {
		changed := append([]byte{}, good...)
		changed[i] ^= 1
		if r, err := enroll.ParseRequest(changed); err == nil {
			t.Errorf("octet %d changed and the request still reads as %q", i, r.DNSName)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.pem")
	if err != nil || len(paths) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, path := range paths {
		f.Add(readPEM(f, path))
	}
	der, err := enroll.NewRequest(newKey(f), identity(f, "sql1.bank.example"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := enroll.ParseRequest(der)
		if err != nil {
			if !errors.Is(err, enroll.ErrRequest) {
				t.Fatalf("error %v does not wrap ErrRequest", err)
			}
			return
		}
		if (r.Subject == nil) == (r.DNSName == "") {
			t.Fatalf("request states %v and %q, want exactly one", r.Subject, r.DNSName)
		}
		if err := pki.CheckKey(r.PublicKey); err != nil {
			t.Fatal(err)
		}
		if r.Subject != nil {
			if err := enroll.Match(r, r.Subject); err != nil {
				t.Fatal(err)
			}
		}
	})
}
