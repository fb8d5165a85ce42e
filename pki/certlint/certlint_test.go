package certlint_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/certlint"
)

var start = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

var (
	oidClientAuth = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	oidIPsecIKE   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 17}
)

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keyID(t testing.TB, key crypto.Signer) pki.KeyID {
	t.Helper()
	id, err := pki.KeyIDOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// fixture is an issuer, and the template of a certificate that keeps every rule.
type fixture struct {
	issuer    *x509.Certificate
	issuerKey crypto.Signer
	key       crypto.Signer
	template  x509.Certificate
	want      certlint.Expected
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	id, err := pki.NewIdentity("bank.example", pki.UUID{1}, "sql1.bank.example")
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{issuerKey: newKey(t, elliptic.P256()), key: newKey(t, elliptic.P256())}
	issuer := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuing"}, NotBefore: start, NotAfter: start.Add(365 * day),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte{1, 2, 3},
	}
	f.issuer = f.sign(t, issuer, issuer, f.issuerKey, f.issuerKey)
	uris, err := id.SANs().URIs()
	if err != nil {
		t.Fatal(err)
	}
	f.template = x509.Certificate{
		SerialNumber: new(big.Int).Lsh(big.NewInt(3), 126), Subject: pkix.Name{CommonName: "sql1.bank.example"},
		NotBefore: start, NotAfter: start.Add(30 * day), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidIPsecIKE},
		BasicConstraintsValid: true, SubjectKeyId: []byte{4, 5, 6}, DNSNames: id.SANs().DNSNames, URIs: uris,
	}
	f.want = certlint.Expected{
		Issuer: f.issuer, Subject: id, PublicKey: keyID(t, f.key), MaxValidity: 30 * day,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsages: []asn1.ObjectIdentifier{oidClientAuth, oidIPsecIKE},
	}
	return f
}

func (f *fixture) sign(t testing.TB, template, parent *x509.Certificate, key, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCheckAccepts(t *testing.T) {
	f := newFixture(t)
	if err := certlint.Check(f.sign(t, &f.template, f.issuer, f.key, f.issuerKey), f.want); err != nil {
		t.Error(err)
	}
}

// Each case differs from an accepted certificate in one point, and is found by the rule for that point.
func TestCheckFinds(t *testing.T) {
	ext := func(oid asn1.ObjectIdentifier, critical bool, value ...byte) func(*fixture) {
		return func(f *fixture) {
			f.template.ExtraExtensions = append(f.template.ExtraExtensions, pkix.Extension{Id: oid, Critical: critical, Value: value})
		}
	}
	for _, c := range []struct {
		name   string
		change func(*fixture)
		rule   string
	}{
		{"short serial", func(f *fixture) { f.template.SerialNumber = big.NewInt(12345) }, "serial"},
		{"long serial", func(f *fixture) { f.template.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 128) }, "serial"},
		{"another issuer's name", func(f *fixture) {
			other := *f.issuer
			other.RawSubject = []byte{0x30, 0x00}
			f.want.Issuer = &other
		}, "issuer"},
		{"issuer that is no CA", func(f *fixture) {
			other := *f.issuer
			other.IsCA = false
			f.want.Issuer = &other
		}, "issuer"},
		{"before its issuer", func(f *fixture) { f.template.NotBefore = start.Add(-time.Second); f.want.MaxValidity = 31 * day }, "validity"},
		{"outlives its issuer", func(f *fixture) { f.template.NotAfter = start.Add(366 * day); f.want.MaxValidity = 400 * day }, "validity"},
		{"lives too long", func(f *fixture) { f.template.NotAfter = start.Add(30*day + time.Second) }, "validity"},
		{"ends before it starts", func(f *fixture) { f.template.NotAfter = start }, "validity"},
		{"another key", func(f *fixture) { f.want.PublicKey[0] ^= 1 }, "key"},
		{"two common names", func(f *fixture) {
			f.template.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "sql1.bank.example"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "sql1.bank.example"}}
			f.template.Subject.CommonName = ""
		}, "subject"},
		{"no common name", func(f *fixture) { f.template.Subject = pkix.Name{Organization: []string{"Bank"}} }, "subject"},
		{"another common name", func(f *fixture) { f.template.Subject.CommonName = "files1.bank.example" }, "subject"},
		{"a country", func(f *fixture) { f.template.Subject.Country = []string{"ZZ"} }, "subject"},
		{"another name", func(f *fixture) { f.template.DNSNames = []string{"files1.bank.example"} }, "names"},
		{"one more name", func(f *fixture) { f.template.DNSNames = append(f.template.DNSNames, "files1.bank.example") }, "names"},
		{"wildcard", func(f *fixture) { f.template.DNSNames = []string{"*.bank.example"} }, "names"},
		{"address", func(f *fixture) { f.template.IPAddresses = []net.IP{{192, 0, 2, 1}} }, "names"},
		{"mail address", func(f *fixture) { f.template.EmailAddresses = []string{"a@bank.example"} }, "names"},
		{"no URI", func(f *fixture) { f.template.URIs = nil }, "names"},
		{"another URI", func(f *fixture) { f.template.URIs = []*url.URL{{Scheme: "https", Host: "bank.example"}} }, "names"},
		{"names in a CA certificate", func(f *fixture) { f.want.Subject = nil }, "names"},
		{"more key usages", func(f *fixture) { f.template.KeyUsage |= x509.KeyUsageCertSign }, "key usage"},
		{"no key usage", func(f *fixture) { f.template.KeyUsage = 0 }, "key usage"},
		{"key usage not critical", ext(asn1.ObjectIdentifier{2, 5, 29, 15}, false, 3, 2, 7, 0x80), "key usage"},
		{"one more extended key usage", func(f *fixture) { f.template.ExtKeyUsage = append(f.template.ExtKeyUsage, x509.ExtKeyUsageServerAuth) }, "extended key usage"},
		{"no extended key usage", func(f *fixture) { f.template.ExtKeyUsage, f.template.UnknownExtKeyUsage = nil, nil }, "extended key usage"},
		{"CA", func(f *fixture) { f.template.IsCA = true }, "basic constraints"},
		{"no basic constraints", func(f *fixture) { f.template.BasicConstraintsValid = false }, "basic constraints"},
		{"not the CA expected", func(f *fixture) { f.want.CA = true }, "basic constraints"},
		{"no subject key identifier", func(f *fixture) { f.template.SubjectKeyId = nil }, "key identifiers"},
		{"another authority key identifier", func(f *fixture) {
			other := *f.issuer
			other.SubjectKeyId = []byte{9}
			f.want.Issuer = &other
		}, "key identifiers"},
		{"unknown extension", ext(asn1.ObjectIdentifier{1, 2, 3}, false, 5, 0), "extensions"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			c.change(f)
			expectRule(t, certlint.Check(f.sign(t, &f.template, f.issuer, f.key, f.issuerKey), f.want), c.rule)
		})
	}
}

func expectRule(t *testing.T, err error, rule string) {
	t.Helper()
	var found *certlint.Error
	if !errors.As(err, &found) || !errors.Is(err, certlint.ErrFindings) {
		t.Fatalf("error %v, want *certlint.Error", err)
	}
	for _, finding := range found.Findings {
		if finding.Rule == rule {
			if finding.Detail == "" || finding.Source == "" {
				t.Errorf("finding %+v says too little", finding)
			}
			return
		}
	}
	t.Errorf("error %v, want the rule %q", err, rule)
}

func TestCheckFindsWeakKey(t *testing.T) {
	f := newFixture(t)
	weak := newKey(t, elliptic.P224())
	f.want.PublicKey = keyID(t, weak)
	expectRule(t, certlint.Check(f.sign(t, &f.template, f.issuer, weak, f.issuerKey), f.want), "key")
}

// crypto/x509 neither signs with SHA-1 nor as version 1, so these are told to it as read.
func TestCheckFindsWhatCannotBeSigned(t *testing.T) {
	f := newFixture(t)
	good := f.sign(t, &f.template, f.issuer, f.key, f.issuerKey)
	sha1 := *good
	sha1.SignatureAlgorithm = x509.ECDSAWithSHA1
	expectRule(t, certlint.Check(&sha1, f.want), "signature algorithm")
	old := *good
	old.Version = 1
	expectRule(t, certlint.Check(&old, f.want), "version")
	negative := *good
	negative.SerialNumber = new(big.Int).Neg(good.SerialNumber)
	expectRule(t, certlint.Check(&negative, f.want), "serial")
	small := *good
	modulus := new(big.Int).Lsh(big.NewInt(1), 1023)
	small.PublicKey = &rsa.PublicKey{N: modulus.SetBit(modulus, 0, 1), E: 65537}
	expectRule(t, certlint.Check(&small, f.want), "key")
	expectRule(t, certlint.Check(nil, f.want), "present")
}

// All findings are told at once.
func TestCheckTellsEverything(t *testing.T) {
	f := newFixture(t)
	f.template.SerialNumber = big.NewInt(1)
	f.template.DNSNames = []string{"files1.bank.example"}
	f.template.KeyUsage = 0
	err := certlint.Check(f.sign(t, &f.template, f.issuer, f.key, f.issuerKey), f.want)
	var found *certlint.Error
	if !errors.As(err, &found) || len(found.Findings) != 3 {
		t.Errorf("error %v, want three findings", err)
	}
}
