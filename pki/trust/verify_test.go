package trust_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// start is when everything here was issued; the tests' clock is noon of the next day.
var (
	start = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	noon  = start.Add(36 * time.Hour)
)

const day = 24 * time.Hour

// newKey makes a key; the tests need many, and P-256 is fast.
func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// party is a certificate with its key.
type party struct {
	cert *x509.Certificate
	key  crypto.Signer
}

var serial struct {
	sync.Mutex
	last int64
}

// issue signs a certificate; edit changes the template of a leaf that would be accepted. A nil issuer makes a root.
func issue(t testing.TB, issuer *party, name string, edit func(*x509.Certificate)) *party {
	t.Helper()
	return issueFor(t, issuer, name, newKey(t), edit)
}

func issueFor(t testing.TB, issuer *party, name string, key crypto.Signer, edit func(*x509.Certificate)) *party {
	t.Helper()
	serial.Lock()
	serial.last++
	number := serial.last
	serial.Unlock()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(number), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: start, NotAfter: start.Add(30 * day),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, UnknownExtKeyUsage: []asn1.ObjectIdentifier{trust.IPsecIKE.OID()},
	}
	if edit != nil {
		edit(template)
	}
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatalf("signing %q: %v", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("reading back %q: %v", name, err)
	}
	return &party{cert, key}
}

func asCA(template *x509.Certificate) {
	template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	template.DNSNames, template.ExtKeyUsage, template.UnknownExtKeyUsage = nil, nil, nil
	template.NotAfter = start.Add(3650 * day)
}

func bundleOf(t testing.TB, root *party, intermediates ...*party) trust.Bundle {
	t.Helper()
	var certs []*x509.Certificate
	for _, p := range intermediates {
		certs = append(certs, p.cert)
	}
	b, err := trust.NewBundle(7, []*x509.Certificate{root.cert}, certs)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func chainOf(parties ...*party) []*x509.Certificate {
	var out []*x509.Certificate
	for _, p := range parties {
		out = append(out, p.cert)
	}
	return out
}

func usages(u ...trust.Usage) trust.Options { return trust.Options{Usages: u} }

func TestVerifyAccepts(t *testing.T) {
	root := issue(t, nil, "root", asCA)
	issuing := issue(t, root, "issuing", asCA)
	sql1 := issue(t, issuing, "sql1.bank.example", func(c *x509.Certificate) { c.IPAddresses = []net.IP{{192, 0, 2, 1}} })
	for _, c := range []struct {
		name   string
		bundle trust.Bundle
		chain  []*x509.Certificate
		want   trust.Options
	}{
		{"intermediate sent along", bundleOf(t, root), chainOf(sql1, issuing), usages(trust.IPsecIKE)},
		{"intermediate in the bundle", bundleOf(t, root, issuing), chainOf(sql1), usages(trust.IPsecIKE)},
		{"root sent along", bundleOf(t, root), chainOf(sql1, issuing, root), usages(trust.ClientAuth)},
		{"one of two usages", bundleOf(t, root), chainOf(sql1, issuing), usages(trust.ServerAuth, trust.IPsecIKE)},
		{"DNS name", bundleOf(t, root, issuing), chainOf(sql1), trust.Options{Usages: []trust.Usage{trust.ClientAuth}, HostName: "SQL1.bank.example"}},
		{"address", bundleOf(t, root, issuing), chainOf(sql1), trust.Options{Usages: []trust.Usage{trust.ClientAuth}, HostName: "192.0.2.1"}},
		{"IKE ID", bundleOf(t, root, issuing), chainOf(sql1), trust.Options{Usages: []trust.Usage{trust.IPsecIKE}, IKEID: pki.IKEID{Type: pki.IDFQDN, Data: []byte("sql1.bank.example")}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			verdict, err := c.bundle.Verify(noon, c.chain, c.want)
			if err != nil {
				t.Fatal(err)
			}
			if verdict.Leaf != sql1.cert || len(verdict.Path) != 3 || !verdict.Path[2].Equal(root.cert) {
				t.Errorf("verdict has the leaf %v and a path of %d, want sql1 and a path of 3 to the root", verdict.Leaf.Subject, len(verdict.Path))
			}
			if !verdict.NotAfter.Equal(sql1.cert.NotAfter) {
				t.Errorf("verdict holds until %v, want %v", verdict.NotAfter, sql1.cert.NotAfter)
			}
		})
	}
}

// Every reason, each from a certificate that differs from an accepted one in a single point.
func TestVerifyRefuses(t *testing.T) {
	root := issue(t, nil, "root", asCA)
	issuing := issue(t, root, "issuing", asCA)
	sql1 := issue(t, issuing, "sql1.bank.example", nil)
	ike := usages(trust.IPsecIKE)
	leaf := func(edit func(*x509.Certificate)) []*x509.Certificate {
		return chainOf(issue(t, issuing, "sql1.bank.example", edit), issuing)
	}
	stranger := issue(t, nil, "root", asCA)
	strangers := issue(t, stranger, "issuing", asCA)
	expiring := issue(t, root, "short-lived issuing", func(c *x509.Certificate) { asCA(c); c.NotAfter = start.Add(day) })
	late := issueFor(t, root, "issuing", issuing.key, func(c *x509.Certificate) { asCA(c); c.NotBefore = start.Add(day) })
	restricted := issue(t, root, "restricted issuing", func(c *x509.Certificate) {
		asCA(c)
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	leafOnly := issue(t, root, "not a CA", nil)
	constrained := issue(t, root, "constrained issuing", func(c *x509.Certificate) {
		asCA(c)
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"other.example"}, true
	})
	pathless := issue(t, root, "issuing of leaves only", func(c *x509.Certificate) { asCA(c); c.MaxPathLenZero = true })
	below := issue(t, pathless, "issuing too deep", asCA)
	forged := issueFor(t, &party{issuing.cert, issuing.key}, "sql1.bank.example", newKey(t), nil)
	forgedDER := append([]byte{}, forged.cert.Raw...)
	forgedDER[len(forgedDER)-1] ^= 1
	forgedCert, err := x509.ParseCertificate(forgedDER)
	if err != nil {
		t.Fatal(err)
	}
	large := issue(t, issuing, "sql1.bank.example", func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, trust.MaxCertificateSize)}}
	})
	var deep []*party
	for at := root; len(deep) < 4; at = deep[len(deep)-1] {
		deep = append(deep, issue(t, at, "deep issuing", asCA))
	}
	deepLeaf := issue(t, deep[3], "sql1.bank.example", nil)

	for _, c := range []struct {
		name   string
		now    time.Time
		chain  []*x509.Certificate
		want   trust.Options
		reason trust.Reason
		says   []string
	}{
		{"no certificate", noon, nil, ike, trust.ReasonLimit, []string{"0 certificates"}},
		{"six certificates", noon, chainOf(sql1, issuing, root, root, root, root), ike, trust.ReasonLimit, []string{"6 certificates"}},
		{"never encoded", noon, []*x509.Certificate{{}}, ike, trust.ReasonMalformed, nil},
		{"large certificate", noon, chainOf(large, issuing), ike, trust.ReasonLimit, []string{"more than 16384"}},
		{"long path", noon, chainOf(deepLeaf, deep[3], deep[2], deep[1], deep[0]), ike, trust.ReasonLimit, []string{"path"}},
		{"expired", sql1.cert.NotAfter.Add(time.Second), chainOf(sql1, issuing), ike, trust.ReasonExpired,
			[]string{"this clock says 2026-12-20T00:00:01Z", "2026-11-20T00:00:00Z to 2026-12-20T00:00:00Z", "expired 1s ago"}},
		{"clock a year late", noon.AddDate(1, 0, 0), chainOf(sql1, issuing), ike, trust.ReasonExpired,
			[]string{"this clock says 2027-11-21T12:00:00Z", "expired 336 days ago", "if this clock is wrong"}},
		{"clock a year early", noon.AddDate(-1, 0, 0), chainOf(sql1, issuing), ike, trust.ReasonNotYetValid,
			[]string{"this clock says 2025-11-21T12:00:00Z", "the issuer's clock gave it the validity 2026-11-20", "becomes valid 363 days later", "one of the two clocks"}},
		{"expired issuer", noon, chainOf(issue(t, expiring, "sql1.bank.example", nil), expiring), ike, trust.ReasonExpired, []string{"short-lived issuing"}},
		{"expired, and its issuer was renewed", noon.AddDate(1, 0, 0), chainOf(sql1, late), ike, trust.ReasonExpired, []string{"sql1.bank.example"}},
		{"foreign certificate", noon, chainOf(issue(t, strangers, "sql1.bank.example", nil), strangers), ike, trust.ReasonUnknownIssuer, []string{"issuing"}},
		{"foreign certificate with its root", noon, chainOf(issue(t, strangers, "sql1.bank.example", nil), strangers, stranger), ike, trust.ReasonUnknownIssuer, nil},
		{"foreign and expired certificate", noon.AddDate(1, 0, 0), chainOf(issue(t, strangers, "sql1.bank.example", nil), strangers), ike, trust.ReasonUnknownIssuer, nil},
		{"self-signed", noon, chainOf(issue(t, nil, "sql1.bank.example", nil)), ike, trust.ReasonUnknownIssuer, nil},
		{"changed signature", noon, []*x509.Certificate{forgedCert, issuing.cert}, ike, trust.ReasonUnknownIssuer, nil},
		{"intermediate missing", noon, chainOf(sql1), ike, trust.ReasonUnknownIssuer, nil},
		{"issued by a leaf", noon, chainOf(issue(t, leafOnly, "sql1.bank.example", nil), leafOnly), ike, trust.ReasonUnknownIssuer, nil},
		{"path length broken", noon, chainOf(issue(t, below, "sql1.bank.example", nil), below, pathless), ike, trust.ReasonWrongUsage, []string{"constraint"}},
		{"name constraint broken", noon, chainOf(issue(t, constrained, "sql1.bank.example", nil), constrained), ike, trust.ReasonWrongUsage, []string{"constraint"}},
		{"other usage", noon, chainOf(sql1, issuing), usages(trust.ServerAuth), trust.ReasonWrongUsage, []string{"[serverAuth]", "[clientAuth ipsecIKE]"}},
		{"no extended key usage", noon, leaf(func(c *x509.Certificate) { c.ExtKeyUsage, c.UnknownExtKeyUsage = nil, nil }), ike, trust.ReasonWrongUsage, nil},
		{"any extended key usage", noon, leaf(func(c *x509.Certificate) {
			c.ExtKeyUsage, c.UnknownExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, nil
		}), ike, trust.ReasonWrongUsage, nil},
		{"usage excluded by the issuer", noon, chainOf(issue(t, restricted, "sql1.bank.example", nil), restricted), ike, trust.ReasonWrongUsage, nil},
		{"key usage without signature", noon, leaf(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }), ike, trust.ReasonWrongUsage, []string{"digitalSignature"}},
		{"CA certificate as peer", noon, leaf(func(c *x509.Certificate) { c.IsCA = true; c.KeyUsage |= x509.KeyUsageCertSign }), ike, trust.ReasonWrongUsage, []string{"CA certificate"}},
		{"unknown critical extension", noon, leaf(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), ike, trust.ReasonMalformed, []string{"critical"}},
		{"other server name", noon, chainOf(sql1, issuing), trust.Options{Usages: ike.Usages, HostName: "files1.bank.example"}, trust.ReasonNameMismatch,
			[]string{`"files1.bank.example"`, `"sql1.bank.example"`}},
		{"other server address", noon, chainOf(sql1, issuing), trust.Options{Usages: ike.Usages, HostName: "192.0.2.9"}, trust.ReasonNameMismatch, []string{"192.0.2.9"}},
		{"wildcard", noon, leaf(func(c *x509.Certificate) { c.DNSNames = []string{"*.bank.example"} }), trust.Options{Usages: ike.Usages, HostName: "sql1.bank.example"}, trust.ReasonNameMismatch, nil},
		{"other IKE ID", noon, chainOf(sql1, issuing), trust.Options{Usages: ike.Usages, IKEID: pki.IKEID{Type: pki.IDFQDN, Data: []byte("files1.bank.example")}},
			trust.ReasonNameMismatch, []string{`ID_FQDN "files1.bank.example"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			verdict, err := bundleOf(t, root).Verify(c.now, c.chain, c.want)
			if err == nil {
				t.Fatal("accepted")
			}
			if verdict.Leaf != nil || verdict.Path != nil {
				t.Error("a refusal comes with a verdict")
			}
			if reason, _ := trust.ReasonOf(err); reason != c.reason {
				t.Errorf("refused as %v, want %v: %v", reason, c.reason, err)
			}
			for _, says := range c.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("error %q does not say %q", err, says)
				}
			}
		})
	}
}

// The error carries what programs need to tell a wrong clock from an old certificate.
func TestTimeRefusalHoldsBothClocks(t *testing.T) {
	root := issue(t, nil, "root", asCA)
	sql1 := issue(t, root, "sql1.bank.example", nil)
	now := noon.AddDate(-1, 0, 0)
	_, err := bundleOf(t, root).Verify(now, chainOf(sql1), usages(trust.IPsecIKE))
	var refusal *trust.Error
	if !errors.As(err, &refusal) || !trust.IsTimeProblem(err) {
		t.Fatalf("error %v is not a refusal for time", err)
	}
	if !refusal.Now.Equal(now) || !refusal.NotBefore.Equal(sql1.cert.NotBefore) || !refusal.NotAfter.Equal(sql1.cert.NotAfter) {
		t.Errorf("refusal at %v for %v to %v, want %v for %v to %v", refusal.Now, refusal.NotBefore, refusal.NotAfter, now, sql1.cert.NotBefore, sql1.cert.NotAfter)
	}
}

func TestVerifyNeedsUsageAndBundle(t *testing.T) {
	root := issue(t, nil, "root", asCA)
	sql1 := issue(t, root, "sql1.bank.example", nil)
	for _, o := range []trust.Options{{}, usages(0), usages(trust.IPsecIKE, 99)} {
		if _, err := bundleOf(t, root).Verify(noon, chainOf(sql1), o); !errors.Is(err, trust.ErrOptions) {
			t.Errorf("usages %v give %v, want ErrOptions", o.Usages, err)
		}
	}
	_, err := trust.Bundle{}.Verify(noon, chainOf(sql1), usages(trust.IPsecIKE))
	if reason, _ := trust.ReasonOf(err); reason != trust.ReasonUnknownIssuer {
		t.Errorf("the empty bundle gives %v, want an unknown issuer", err)
	}
}

// Huge keys must be refused for their size, and before a signature is checked: a check would take longer than a second.
func TestVerifyRefusesKeysBeforeWork(t *testing.T) {
	root := issue(t, nil, "root", asCA)
	sql1 := issue(t, root, "sql1.bank.example", nil)
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaLeaf := issueFor(t, root, "rsa.bank.example", weak, nil)
	if _, err := bundleOf(t, root).Verify(noon, chainOf(rsaLeaf), usages(trust.IPsecIKE)); err != nil {
		t.Fatalf("an RSA-2048 key is refused: %v", err)
	}
	huge := *rsaLeaf.cert
	modulus := new(big.Int).Lsh(big.NewInt(1), 1<<20)
	huge.PublicKey = &rsa.PublicKey{N: modulus.SetBit(modulus, 0, 1), E: 65537}
	for name, chain := range map[string][]*x509.Certificate{
		"as the peer's":        {&huge},
		"among those sent":     {sql1.cert, &huge},
		"as the last of those": {sql1.cert, root.cert, root.cert, root.cert, &huge},
	} {
		_, err := bundleOf(t, root).Verify(noon, chain, usages(trust.IPsecIKE))
		if reason, _ := trust.ReasonOf(err); reason != trust.ReasonWeakKey {
			t.Errorf("a key of a million bits %s gives %v, want a refusal of the key", name, err)
		}
	}
}

func TestParseChainLimits(t *testing.T) {
	sql1 := issue(t, nil, "sql1.bank.example", nil)
	for _, c := range []struct {
		name   string
		ders   [][]byte
		reason trust.Reason
	}{
		{"none", nil, trust.ReasonLimit},
		{"six", [][]byte{{}, {}, {}, {}, {}, {}}, trust.ReasonLimit},
		{"large", [][]byte{make([]byte, trust.MaxCertificateSize+1)}, trust.ReasonLimit},
		{"empty", [][]byte{{}}, trust.ReasonMalformed},
		{"cut", [][]byte{sql1.cert.Raw[:100]}, trust.ReasonMalformed},
		{"trailing octet", [][]byte{append(append([]byte{}, sql1.cert.Raw...), 0)}, trust.ReasonMalformed},
	} {
		_, err := trust.ParseChain(c.ders)
		if reason, _ := trust.ReasonOf(err); reason != c.reason {
			t.Errorf("%s gives %v, want %v", c.name, err, c.reason)
		}
	}
}

// strongSwan reads a real certificate of another implementation.
func strongSwan(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "testdata", "strongswan", name+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s is not PEM", name)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestVerifyCertificatesOfStrongSwan(t *testing.T) {
	bundle, err := trust.NewBundle(1, []*x509.Certificate{strongSwan(t, "ca")}, []*x509.Certificate{strongSwan(t, "int")})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"eca", "eda", "rsaa", "chaina"} {
		cert := strongSwan(t, name)
		if _, err := bundle.Verify(noon, []*x509.Certificate{cert}, trust.Options{Usages: []trust.Usage{trust.ClientAuth}, HostName: name + ".test"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_, err := bundle.Verify(noon, []*x509.Certificate{cert}, usages(trust.IPsecIKE))
		if reason, _ := trust.ReasonOf(err); reason != trust.ReasonWrongUsage {
			t.Errorf("%s without ipsecIKE gives %v, want wrong usage", name, err)
		}
	}
}
