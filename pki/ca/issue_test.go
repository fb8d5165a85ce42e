package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/certlint"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

var start = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)

// countingSigner counts the signatures made with a key.
type countingSigner struct {
	crypto.Signer
	signatures atomic.Int64
}

func (s *countingSigner) Sign(random io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	s.signatures.Add(1)
	return s.Signer.Sign(random, digest, o)
}

// faultyJournal fails where it is told to, and keeps count of signatures at the time of each call.
type faultyJournal struct {
	MemoryJournal
	failRecord, failComplete error
	signer                   *countingSigner
	atRecord, atComplete     []int64
}

func (j *faultyJournal) Record(ctx context.Context, i Intention) error {
	j.atRecord = append(j.atRecord, j.signer.signatures.Load())
	if j.failRecord != nil {
		return j.failRecord
	}
	return j.MemoryJournal.Record(ctx, i)
}

func (j *faultyJournal) Complete(ctx context.Context, serial string, certificate []byte) error {
	j.atComplete = append(j.atComplete, j.signer.signatures.Load())
	if j.failComplete != nil {
		return j.failComplete
	}
	return j.MemoryJournal.Complete(ctx, serial, certificate)
}

// bench is a CA with everything around it that a test looks at.
type bench struct {
	*CA
	authority Authority
	signer    *countingSigner
	journal   *faultyJournal
}

func newBench(t testing.TB, config Config) *bench {
	t.Helper()
	config.TrustDomain = "bank.example"
	authority, err := Generate(start, config)
	if err != nil {
		t.Fatal(err)
	}
	signer := &countingSigner{Signer: authority.IssuingKey}
	journal := &faultyJournal{signer: signer}
	c, err := New(authority.Root, authority.Issuing, signer, journal)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{c, authority, signer, journal}
}

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
	id, err := pki.NewIdentity("bank.example", pki.UUID{1, 2, 3}, name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func profile(t testing.TB, kind Kind, config ProfileConfig) Profile {
	t.Helper()
	p, err := NewProfile(kind, config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func request(t testing.TB, key crypto.Signer, subject pki.Subject) enroll.Request {
	t.Helper()
	der, err := enroll.NewRequest(key, subject)
	if err != nil {
		t.Fatal(err)
	}
	r, err := enroll.ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (b *bench) prepare(t testing.TB, now time.Time, p Profile, subject pki.Subject) *Prepared {
	t.Helper()
	prepared, err := b.Prepare(now, p, request(t, newKey(t), subject), subject)
	if err != nil {
		t.Fatal(err)
	}
	return prepared
}

func TestIssueEveryKind(t *testing.T) {
	b := newBench(t, Config{})
	controller, err := pki.NewController("bank.example", []string{"c1.bank.example"}, []netip.Addr{netip.MustParseAddr("192.0.2.1")})
	if err != nil {
		t.Fatal(err)
	}
	administrator, err := pki.NewAdministrator("bank.example", "alice")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind     Kind
		subject  pki.Subject
		lifetime time.Duration
		good     []trust.Usage
		bad      []trust.Usage
	}{
		{Machine, identity(t, "sql1.bank.example"), 30 * day, []trust.Usage{trust.ClientAuth, trust.IPsecIKE}, []trust.Usage{trust.ServerAuth}},
		{Server, controller, 30 * day, []trust.Usage{trust.ServerAuth}, []trust.Usage{trust.ClientAuth, trust.IPsecIKE}},
		{Admin, administrator, 7 * day, []trust.Usage{trust.ClientAuth}, []trust.Usage{trust.ServerAuth, trust.IPsecIKE}},
	} {
		t.Run(c.kind.String(), func(t *testing.T) {
			p := profile(t, c.kind, ProfileConfig{Organization: "Bank of Examples"})
			issued, err := b.Issue(context.Background(), b.prepare(t, start, p, c.subject))
			if err != nil {
				t.Fatal(err)
			}
			if got := issued.Leaf.Subject.String(); got != "CN="+c.subject.CommonName()+",O=Bank of Examples" {
				t.Errorf("subject %q", got)
			}
			if !issued.Leaf.NotAfter.Equal(start.Add(c.lifetime)) || !issued.Leaf.NotBefore.Equal(start.Add(-5*time.Minute)) {
				t.Errorf("valid from %v to %v", issued.Leaf.NotBefore, issued.Leaf.NotAfter)
			}
			subject, err := pki.SubjectFromCertificate(issued.Leaf)
			if err != nil || !subject.SANs().Equal(c.subject.SANs()) {
				t.Errorf("certificate belongs to %v, %v, want %v", subject, err, c.subject)
			}
			bundle, err := b.Bundle(1)
			if err != nil {
				t.Fatal(err)
			}
			chain, err := trust.ParseChain(issued.Chain())
			if err != nil || len(chain) != 2 {
				t.Fatalf("chain of %d, %v, want leaf and issuing CA", len(chain), err)
			}
			for _, u := range c.good {
				if _, err := bundle.Verify(start, chain, trust.Options{Usages: []trust.Usage{u}}); err != nil {
					t.Errorf("not good for %v: %v", u, err)
				}
			}
			for _, u := range c.bad {
				if _, err := bundle.Verify(start, chain, trust.Options{Usages: []trust.Usage{u}}); err == nil {
					t.Errorf("good for %v", u)
				}
			}
			chain, err = trust.ParseChain(issued.ChainWithRoot())
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := trust.PinnedVerify(start, chain, b.Pin(), trust.Options{Usages: c.good[:1]}); err != nil {
				t.Errorf("not good with the pin: %v", err)
			}
		})
	}
}

// OpenSSL is the judge of the chain that every other test here judges with our own code.
func TestIssuedCertificateSatisfiesOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatalf("the Debian package openssl is needed: %v", err)
	}
	authority, err := Generate(time.Now(), Config{TrustDomain: "bank.example"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(authority.Root, authority.Issuing, authority.IssuingKey, &MemoryJournal{})
	if err != nil {
		t.Fatal(err)
	}
	id := identity(t, "sql1.bank.example")
	prepared, err := c.Prepare(time.Now(), profile(t, Machine, ProfileConfig{}), request(t, newKey(t), id), id)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := c.Issue(context.Background(), prepared)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	paths := map[string]*x509.Certificate{"root": authority.Root, "issuing": authority.Issuing, "leaf": issued.Leaf}
	for name, cert := range paths {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("openssl", "verify", "-x509_strict", "-check_ss_sig", "-purpose", "sslclient", "-verify_hostname", "sql1.bank.example",
		"-CAfile", "root", "-untrusted", "issuing", "leaf")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	cmd = exec.Command("openssl", "x509", "-in", "leaf", "-noout", "-ext", "subjectAltName,extendedKeyUsage")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"DNS:sql1.bank.example, URI:" + id.URI(), "TLS Web Client Authentication", "ipsec Internet Key Exchange"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("openssl prints %q, want %q in it", out, want)
		}
	}
}

// The intention is recorded before there is a signature, the certificate after it, and they agree.
func TestIntentionIsRecordedBeforeSigning(t *testing.T) {
	b := newBench(t, Config{})
	prepared := b.prepare(t, start, profile(t, Machine, ProfileConfig{}), identity(t, "sql1.bank.example"))
	if n := b.signer.signatures.Load(); n != 0 {
		t.Fatalf("preparing made %d signatures with the CA's key", n)
	}
	issued, err := b.Issue(context.Background(), prepared)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.journal.atRecord) != 1 || b.journal.atRecord[0] != 0 || len(b.journal.atComplete) != 1 || b.journal.atComplete[0] != 1 {
		t.Errorf("signatures at recording %v and at completion %v, want [0] and [1]", b.journal.atRecord, b.journal.atComplete)
	}
	entries := b.journal.Entries()
	if len(entries) != 1 || string(entries[0].Certificate) != string(issued.Leaf.Raw) || string(entries[0].Intention.TBS) != string(issued.Leaf.RawTBSCertificate) {
		t.Fatalf("journal has %d entries, or not the issued certificate", len(entries))
	}
	i := entries[0].Intention
	if i.Serial != issued.Leaf.SerialNumber.Text(16) || i.Subject != "bailiwick://bank.example/machine/01020300-0000-0000-0000-000000000000" ||
		i.Profile != "machine" || i.Issuer != b.IssuerKeyID() || !i.NotAfter.Equal(issued.Leaf.NotAfter) || !i.Prepared.Equal(start) {
		t.Errorf("intention %+v does not describe the certificate", i)
	}
}

func TestJournalThatFailsMeansNoSignature(t *testing.T) {
	b := newBench(t, Config{})
	b.journal.failRecord = errors.New("store is not reachable")
	prepared := b.prepare(t, start, profile(t, Machine, ProfileConfig{}), identity(t, "sql1.bank.example"))
	issued, err := b.Issue(context.Background(), prepared)
	if !errors.Is(err, ErrJournal) || !errors.Is(err, b.journal.failRecord) || issued.Leaf != nil {
		t.Errorf("got %v, %v, want no certificate, ErrJournal and the journal's error", issued.Leaf, err)
	}
	if n := b.signer.signatures.Load(); n != 0 {
		t.Errorf("%d signatures were made", n)
	}
	b.journal.failRecord = nil
	if _, err := b.Issue(context.Background(), prepared); !errors.Is(err, ErrRedeemed) {
		t.Errorf("a second attempt gives %v, want ErrRedeemed", err)
	}
}

func TestCertificateThatCannotBeRecordedIsNotGivenAway(t *testing.T) {
	b := newBench(t, Config{})
	b.journal.failComplete = errors.New("store is not reachable")
	prepared := b.prepare(t, start, profile(t, Machine, ProfileConfig{}), identity(t, "sql1.bank.example"))
	if issued, err := b.Issue(context.Background(), prepared); !errors.Is(err, ErrJournal) || issued.Leaf != nil {
		t.Errorf("got %v, %v, want no certificate and ErrJournal", issued.Leaf, err)
	}
	if e := b.journal.Entries(); len(e) != 1 || e[0].Certificate != nil {
		t.Errorf("journal has %d entries, want one intention without its certificate", len(e))
	}
}

func TestSignedOctetsAreCompared(t *testing.T) {
	b := newBench(t, Config{})
	prepared := b.prepare(t, start, profile(t, Machine, ProfileConfig{}), identity(t, "sql1.bank.example"))
	prepared.template.NotAfter = prepared.template.NotAfter.Add(time.Hour)
	if issued, err := b.Issue(context.Background(), prepared); !errors.Is(err, ErrDiffers) || issued.Leaf != nil {
		t.Errorf("got %v, %v, want no certificate and ErrDiffers", issued.Leaf, err)
	}
	if e := b.journal.Entries(); e[0].Certificate != nil {
		t.Error("the other certificate was recorded")
	}
}

func TestPreparedIsRedeemedOnce(t *testing.T) {
	b := newBench(t, Config{})
	p := profile(t, Machine, ProfileConfig{})
	prepared := b.prepare(t, start, p, identity(t, "sql1.bank.example"))
	var issued, refused atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := b.Issue(context.Background(), prepared); err == nil {
				issued.Add(1)
			} else if errors.Is(err, ErrRedeemed) {
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	if issued.Load() != 1 || refused.Load() != 7 || b.signer.signatures.Load() != 1 {
		t.Errorf("%d issued, %d refused, %d signatures, want 1, 7 and 1", issued.Load(), refused.Load(), b.signer.signatures.Load())
	}
	other := newBench(t, Config{})
	if _, err := other.Issue(context.Background(), b.prepare(t, start, p, identity(t, "sql1.bank.example"))); !errors.Is(err, ErrRedeemed) {
		t.Errorf("another CA gives %v, want ErrRedeemed", err)
	}
	if _, err := b.Issue(context.Background(), nil); !errors.Is(err, ErrRedeemed) {
		t.Errorf("nothing prepared gives %v, want ErrRedeemed", err)
	}
}

func TestPrepareRefuses(t *testing.T) {
	b := newBench(t, Config{})
	machine, admin := profile(t, Machine, ProfileConfig{}), profile(t, Admin, ProfileConfig{})
	sql1, files1 := identity(t, "sql1.bank.example"), identity(t, "files1.bank.example")
	key := newKey(t)
	wrongKeyID := request(t, key, sql1)
	wrongKeyID.KeyID[0] ^= 1
	for _, c := range []struct {
		name    string
		profile Profile
		request enroll.Request
		subject pki.Subject
		want    error
	}{
		{"request with another machine's name", machine, request(t, key, files1), sql1, enroll.ErrNameMismatch},
		{"profile of another role", admin, request(t, key, sql1), sql1, ErrProfile},
		{"zero profile", Profile{}, request(t, key, sql1), sql1, ErrProfile},
		{"nobody", machine, request(t, key, sql1), pki.Identity{}, ErrProfile},
		{"no subject", machine, request(t, key, sql1), nil, ErrProfile},
		{"key that is not the request's", machine, wrongKeyID, sql1, certlint.ErrFindings},
	} {
		t.Run(c.name, func(t *testing.T) {
			if p, err := b.Prepare(start, c.profile, c.request, c.subject); !errors.Is(err, c.want) || p != nil {
				t.Errorf("got %v, %v, want %v", p, err, c.want)
			}
		})
	}
	if n := b.signer.signatures.Load() + int64(len(b.journal.Entries())); n != 0 {
		t.Errorf("%d signatures or records were made", n)
	}
}

func TestConcurrentIssuingGivesUniqueSerials(t *testing.T) {
	b := newBench(t, Config{})
	c, err := New(b.authority.Root, b.authority.Issuing, b.authority.IssuingKey, &b.journal.MemoryJournal)
	if err != nil {
		t.Fatal(err)
	}
	p := profile(t, Machine, ProfileConfig{})
	id := identity(t, "sql1.bank.example")
	r := request(t, newKey(t), id)
	const workers, each = 8, 25
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				prepared, err := c.Prepare(start, p, r, id)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := c.Issue(context.Background(), prepared); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	seen, long := map[string]bool{}, 0
	for _, e := range b.journal.Entries() {
		if seen[e.Intention.Serial] || e.Certificate == nil {
			t.Fatalf("serial number %s twice, or without its certificate", e.Intention.Serial)
		}
		seen[e.Intention.Serial] = true
		if len(e.Intention.Serial) == serialBits/4 {
			long++
		}
	}
	// 15 of 16 random numbers of 128 bits have all 32 digits.
	if len(seen) != workers*each || long < workers*each*3/4 {
		t.Errorf("%d serial numbers, %d of full length, want %d", len(seen), long, workers*each)
	}
}

func TestNewRefuses(t *testing.T) {
	a, b := newBench(t, Config{}), newBench(t, Config{})
	j := &MemoryJournal{}
	for _, c := range []struct {
		name          string
		root, issuing *x509.Certificate
		key           crypto.Signer
		journal       Journal
	}{
		{"key of another CA", a.Root(), a.Issuing(), b.authority.IssuingKey, j},
		{"root's key", a.Root(), a.Issuing(), a.authority.RootKey, j},
		{"root of another CA", b.Root(), a.Issuing(), a.authority.IssuingKey, j},
		{"certificates swapped", a.Issuing(), a.Root(), a.authority.IssuingKey, j},
		{"no journal", a.Root(), a.Issuing(), a.authority.IssuingKey, nil},
		{"no key", a.Root(), a.Issuing(), nil, j},
		{"no root", nil, a.Issuing(), a.authority.IssuingKey, j},
	} {
		if _, err := New(c.root, c.issuing, c.key, c.journal); !errors.Is(err, ErrAuthority) {
			t.Errorf("%s gives %v, want ErrAuthority", c.name, err)
		}
	}
}

func TestGenerateRefuses(t *testing.T) {
	for _, c := range []Config{
		{}, {TrustDomain: "*"}, {TrustDomain: "bank.example", RootLifetime: day}, {TrustDomain: "bank.example", RootLifetime: -1},
		{TrustDomain: "bank.example", RootLifetime: 31 * 365 * day}, {TrustDomain: "bank.example", RootLifetime: 40 * day, IssuerLifetime: 41 * day},
		{TrustDomain: "bank.example", IssuerLifetime: time.Hour},
	} {
		if _, err := Generate(start, c); !errors.Is(err, ErrAuthority) && !errors.Is(err, pki.ErrName) {
			t.Errorf("%+v gives %v, want ErrAuthority or pki.ErrName", c, err)
		}
	}
}
