package pki_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/pki"
)

const (
	machineUUID = "6f1c1f7e-0a4b-4a2e-9a53-3f2a52d7c001"
	machineURI  = "bailiwick://bank.example/machine/" + machineUUID
)

// key is shared: making one takes longer than the tests that need it.
var key = func() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}()

type fataler interface {
	Helper()
	Fatal(...any)
}

// selfSigned encodes the template and reads it back, so that tests see real extensions.
func selfSigned(t fataler, template *x509.Certificate) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(1)
	template.NotBefore = time.Unix(1_700_000_000, 0)
	template.NotAfter = time.Unix(1_800_000_000, 0)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func withSANs(t fataler, commonName string, sans pki.SANs) *x509.Certificate {
	t.Helper()
	uris, err := sans.URIs()
	if err != nil {
		t.Fatal(err)
	}
	return selfSigned(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: commonName}, DNSNames: sans.DNSNames, IPAddresses: sans.IPAddresses(), URIs: uris,
	})
}

func machine(t fataler) pki.Identity {
	t.Helper()
	uuid, err := pki.ParseUUID(machineUUID)
	if err != nil {
		t.Fatal(err)
	}
	id, err := pki.NewIdentity("bank.example", uuid, "sql1.bank.example")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func drawName(t *rapid.T, label string) string {
	const edge, inner = `[A-Za-z0-9_]`, `[A-Za-z0-9_-]{0,10}`
	return rapid.StringMatching(`(`+edge+inner+edge+`\.){0,3}[A-Za-z_]`+inner+edge).Draw(t, label)
}

func TestIdentityRoundTripsThroughCertificate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var uuid pki.UUID
		copy(uuid[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
		uuid[0] |= 1
		id, err := pki.NewIdentity(drawName(t, "domain"), uuid, drawName(t, "name"))
		if err != nil {
			t.Fatalf("a valid identity is refused: %v", err)
		}
		cert := withSANs(t, id.CommonName(), id.SANs())
		got, err := pki.IdentityFromCertificate(cert)
		if err != nil {
			t.Fatalf("the certificate of %v does not read back: %v", id, err)
		}
		if got != id {
			t.Fatalf("read back %v, want %v", got, id)
		}
		ike := id.IKEID()
		if err := pki.MatchIKEID(cert, ike.Type, ike.Data); err != nil {
			t.Fatalf("the identity's own IKE ID does not match its certificate: %v", err)
		}
	})
}

func TestIdentityForms(t *testing.T) {
	id := machine(t)
	if got := id.URI(); got != machineURI {
		t.Errorf("URI %q, want %q", got, machineURI)
	}
	if got := id.IKEID(); got.Type != 2 || string(got.Data) != "sql1.bank.example" {
		t.Errorf("IKE ID %v, want ID_FQDN with the DNS name", got)
	}
	long, err := pki.NewIdentity("bank.example", id.UUID(), strings.Repeat("a", 60)+".bank.example")
	if err != nil {
		t.Fatal(err)
	}
	if got := long.CommonName(); got != machineUUID {
		t.Errorf("common name of a machine with a long name is %q, want its UUID", got)
	}
	text, err := json.Marshal(map[string]pki.UUID{"uuid": id.UUID()})
	if err != nil || string(text) != `{"uuid":"`+machineUUID+`"}` {
		t.Errorf("UUID encodes as %s, %v", text, err)
	}
}

func TestSubjectsOfOtherRoles(t *testing.T) {
	controller, err := pki.NewController("bank.example", []string{"c1.bank.example", "C1.bank.example", "c2.bank.example"},
		[]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")})
	if err != nil {
		t.Fatal(err)
	}
	administrator, err := pki.NewAdministrator("bank.example", "alice@bank.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []pki.Subject{controller, administrator} {
		cert := withSANs(t, want.CommonName(), want.SANs())
		got, err := pki.SubjectFromCertificate(cert)
		if err != nil {
			t.Fatalf("the certificate of %v does not read back: %v", want, err)
		}
		if !got.SANs().Equal(want.SANs()) {
			t.Errorf("read back %v %v, want %v %v", got, got.SANs(), want, want.SANs())
		}
		if _, err := pki.IdentityFromCertificate(cert); !errors.Is(err, pki.ErrIdentity) {
			t.Errorf("%v passes for a machine: %v", want, err)
		}
	}
	if n := len(controller.SANs().DNSNames); n != 2 {
		t.Errorf("controller has %d DNS names, want the duplicate dropped", n)
	}
}

func TestIdentityFromCertificateRefuses(t *testing.T) {
	mustURL := func(s string) []*url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return []*url.URL{u}
	}
	good := mustURL(machineURI)
	for _, c := range []struct {
		name     string
		template x509.Certificate
		says     string
	}{
		{"no names", x509.Certificate{Subject: pkix.Name{CommonName: "sql1.bank.example"}}, "does not start"},
		{"DNS name alone", x509.Certificate{DNSNames: []string{"sql1.bank.example"}}, "does not start"},
		{"URI alone", x509.Certificate{URIs: good}, "0 DNS names"},
		{"two DNS names", x509.Certificate{DNSNames: []string{"sql1.bank.example", "files1.bank.example"}, URIs: good}, "2 DNS names"},
		{"two URIs", x509.Certificate{DNSNames: []string{"sql1.bank.example"}, URIs: append(mustURL(machineURI), good...)}, "more than one"},
		{"an address", x509.Certificate{DNSNames: []string{"sql1.bank.example"}, URIs: good, IPAddresses: []net.IP{{192, 0, 2, 1}}}, "1 addresses"},
		{"a mail address", x509.Certificate{DNSNames: []string{"sql1.bank.example"}, URIs: good, EmailAddresses: []string{"a@bank.example"}}, "of the type [1]"},
		{"wildcard", x509.Certificate{DNSNames: []string{"*.bank.example"}, URIs: good}, "character"},
		{"capital letters", x509.Certificate{DNSNames: []string{"SQL1.bank.example"}, URIs: good}, "canonical"},
		{"other scheme", x509.Certificate{DNSNames: []string{"sql1.bank.example"}, URIs: mustURL("spiffe://bank.example/machine/" + machineUUID)}, "does not start"},
		{"other role", x509.Certificate{DNSNames: []string{"sql1.bank.example"}, URIs: mustURL("bailiwick://bank.example/robot/" + machineUUID)}, "role"},
		{"longer path", x509.Certificate{DNSNames: []string{"sql1.bank.example"}, URIs: mustURL(machineURI + "/x")}, "is not bailiwick://"},
		{"query", x509.Certificate{DNSNames: []string{"sql1.bank.example"}, URIs: mustURL(machineURI + "?x")}, "UUID"},
		{"port", x509.Certificate{DNSNames: []string{"sql1.bank.example"}, URIs: mustURL("bailiwick://bank.example:1/machine/" + machineUUID)}, "character"},
		{"UUID in capitals", x509.Certificate{DNSNames: []string{"sql1.bank.example"}, URIs: mustURL("bailiwick://bank.example/machine/" + strings.ToUpper(machineUUID))}, "canonical"},
		{"nil UUID", x509.Certificate{DNSNames: []string{"sql1.bank.example"}, URIs: mustURL("bailiwick://bank.example/machine/00000000-0000-0000-0000-000000000000")}, "nil UUID"},
		{"administrator with a DNS name", x509.Certificate{DNSNames: []string{"sql1.bank.example"}, URIs: mustURL("bailiwick://bank.example/administrator/alice")}, "canonical"},
		{"controller of another name", x509.Certificate{DNSNames: []string{"sql1.bank.example"}, URIs: mustURL("bailiwick://bank.example/controller/c1.bank.example")}, "canonical"},
		{"trailing octets", x509.Certificate{ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{0x30, 0x03, 0x82, 0x01, 'a'}}}}, "does not start"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := pki.IdentityFromCertificate(selfSigned(t, &c.template))
			if !errors.Is(err, pki.ErrIdentity) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one of ErrIdentity that says %q", err, c.says)
			}
		})
	}
	if _, err := pki.IdentityFromCertificate(nil); !errors.Is(err, pki.ErrIdentity) {
		t.Errorf("no certificate gives %v, want ErrIdentity", err)
	}
}

func TestNewIdentityRefuses(t *testing.T) {
	uuid := machine(t).UUID()
	for _, c := range []struct {
		name, domain, dns string
		uuid              pki.UUID
	}{
		{"no domain", "", "sql1.bank.example", uuid},
		{"no name", "bank.example", "", uuid},
		{"nil UUID", "bank.example", "sql1.bank.example", pki.UUID{}},
		{"address as name", "bank.example", "192.0.2.1", uuid},
	} {
		if id, err := pki.NewIdentity(c.domain, c.uuid, c.dns); !errors.Is(err, pki.ErrName) || !id.IsZero() {
			t.Errorf("%s: %v, %v, want ErrName", c.name, id, err)
		}
	}
}

func TestParseDNSName(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"sql1", "sql1"}, {"SQL1.Bank.Example", "sql1.bank.example"}, {"a_b.example", "a_b.example"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"}, {"3com.example", "3com.example"},
		{strings.Repeat("a", 63) + ".example", strings.Repeat("a", 63) + ".example"},
	} {
		if got, err := pki.ParseDNSName(c.in); err != nil || got != c.want {
			t.Errorf("%q gives %q, %v, want %q", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{
		"", ".", "a.", ".a", "a..b", "-a.b", "a-.b", "*.b", "a b", "a\x00b", "bücher.example", "\u212Aelvin.example", "a/b", "a:1", "a@b",
		"192.0.2.1", "10", "a.10", "::1", strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 127) + "aa",
	} {
		if got, err := pki.ParseDNSName(in); !errors.Is(err, pki.ErrName) {
			t.Errorf("%q gives %q, %v, want ErrName", in, got, err)
		}
	}
}

func TestParseUUID(t *testing.T) {
	for _, in := range []string{"", machineUUID[1:], machineUUID + "0", strings.ReplaceAll(machineUUID, "-", "x"), "g" + machineUUID[1:], "{" + machineUUID[:35], strings.Replace(machineUUID, "6", "-", 1)} {
		if u, err := pki.ParseUUID(in); !errors.Is(err, pki.ErrName) {
			t.Errorf("%q gives %v, %v, want ErrName", in, u, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		var u pki.UUID
		copy(u[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
		for _, s := range []string{u.String(), strings.ToUpper(u.String())} {
			if got, err := pki.ParseUUID(s); err != nil || got != u {
				t.Fatalf("%q reads back as %v, %v", s, got, err)
			}
		}
	})
}

// strongSwanCertificates are real certificates of another implementation.
func strongSwanCertificates(t testing.TB) map[string]*x509.Certificate {
	t.Helper()
	paths, err := filepath.Glob("testdata/strongswan/*.pem")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no test certificates: %v", err)
	}
	out := map[string]*x509.Certificate{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		if block == nil {
			t.Fatalf("%s is not PEM", path)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		out[strings.TrimSuffix(filepath.Base(path), ".pem")] = cert
	}
	return out
}

// Whatever the bytes: no panic, and an identity that is read is the one that its own names spell.
func FuzzIdentityFromCertificate(f *testing.F) {
	for _, cert := range strongSwanCertificates(f) {
		f.Add(cert.Raw)
	}
	id := machine(f)
	f.Add(withSANs(f, id.CommonName(), id.SANs()).Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		subject, err := pki.SubjectFromCertificate(cert)
		if err != nil {
			if !errors.Is(err, pki.ErrIdentity) {
				t.Fatalf("error %v does not wrap ErrIdentity", err)
			}
			return
		}
		sans, err := pki.SANsFromExtensions(cert.Extensions)
		if err != nil || !subject.SANs().Equal(sans) {
			t.Fatalf("read %v with the names %v from a certificate with the names %v, %v", subject, subject.SANs(), sans, err)
		}
		if id, ok := subject.(pki.Identity); ok {
			again, err := pki.NewIdentity(id.TrustDomain(), id.UUID(), id.DNSName())
			if err != nil || again != id {
				t.Fatalf("%v is not a valid identity: %v", id, err)
			}
		}
	})
}
