package certlint

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
)

// ErrFindings is wrapped by the error of Check.
var ErrFindings = errors.New("certificate breaks the rules for issuing")

// Expected is what the certificate is meant to be.
type Expected struct {
	// Issuer is the CA certificate that is to sign it.
	Issuer *x509.Certificate
	// Subject is whose certificate it is; nil for a CA certificate, which has no names.
	Subject pki.Subject
	// PublicKey is the id of the key to be certified.
	PublicKey pki.KeyID
	// MaxValidity is the longest span from notBefore to notAfter.
	MaxValidity time.Duration
	// KeyUsage is the exact key usage.
	KeyUsage x509.KeyUsage
	// ExtKeyUsages are the exact extended key usages, in order; none for a CA certificate.
	ExtKeyUsages []asn1.ObjectIdentifier
	// CRL and OCSP are the places where its revocation can be looked up; empty for none.
	CRL, OCSP string
	// NoCheck tells the certificate of an OCSP responder, whose revocation nobody looks up (RFC 6960 4.2.2.2.1).
	NoCheck bool
	// CA tells a CA certificate; MaxPathLen is then its path length.
	CA         bool
	MaxPathLen int
	// Domains are the exact DNS domains that a CA certificate may vouch for; empty where it is not constrained.
	Domains []string
	// URIDomain is, together with Domains, the host of the identity URIs that it may vouch for.
	URIDomain string
}

// Finding is one broken rule.
type Finding struct {
	Rule   string // the name of the rule
	Source string // where the rule comes from
	Detail string // what was found and what was wanted
}

// String returns "rule: detail (source)".
func (f Finding) String() string { return f.Rule + ": " + f.Detail + " (" + f.Source + ")" }

// Error is a certificate with findings.
type Error struct{ Findings []Finding }

// Error lists the findings on one line.
func (e *Error) Error() string {
	var parts []string
	for _, f := range e.Findings {
		parts = append(parts, f.String())
	}
	return ErrFindings.Error() + ": " + strings.Join(parts, "; ")
}

// Unwrap returns ErrFindings.
func (e *Error) Unwrap() error { return ErrFindings }

// Check applies every rule and returns an *Error with all findings, or nil.
func Check(cert *x509.Certificate, want Expected) error {
	if cert == nil || want.Issuer == nil {
		return &Error{[]Finding{{"present", "this package", "no certificate or no issuer to check"}}}
	}
	var findings []Finding
	for _, r := range rules {
		if detail := r.check(cert, want); detail != "" {
			findings = append(findings, Finding{r.name, r.source, detail})
		}
	}
	if len(findings) == 0 {
		return nil
	}
	return &Error{findings}
}

// rule returns what is wrong, or the empty string.
type rule struct {
	name   string
	source string
	check  func(*x509.Certificate, Expected) string
}

var rules = [...]rule{
	{"version", "RFC 5280 4.1.2.1", checkVersion},
	{"serial", "RFC 5280 4.1.2.2, CA/Browser BR 7.1", checkSerial},
	{"signature algorithm", "RFC 5280 4.1.1.2, house rule: SHA-2 or Ed25519", checkSignatureAlgorithm},
	{"issuer", "RFC 5280 4.1.2.4", checkIssuer},
	{"validity", "RFC 5280 4.1.2.5, house rule: inside the issuer's", checkValidity},
	{"key", "house rule: pki.CheckKey", checkKey},
	{"subject", "RFC 5280 4.1.2.6", checkSubject},
	{"names", "RFC 5280 4.2.1.6, house rule: pki.Subject", checkNames},
	{"key usage", "RFC 5280 4.2.1.3", checkKeyUsage},
	{"extended key usage", "RFC 5280 4.2.1.12", checkExtKeyUsage},
	{"basic constraints", "RFC 5280 4.2.1.9", checkBasicConstraints},
	{"key identifiers", "RFC 5280 4.2.1.1, 4.2.1.2", checkKeyIdentifiers},
	{"name constraints", "RFC 5280 4.2.1.10", checkConstraints},
	{"revocation", "RFC 5280 4.2.1.13, 4.2.2.1, RFC 6960 4.2.2.2.1", checkRevocation},
	{"extensions", "house rule: no others", checkExtensions},
}

func checkVersion(c *x509.Certificate, _ Expected) string {
	if c.Version != 3 {
		return fmt.Sprintf("version %d, wanted 3", c.Version)
	}
	return ""
}

// minSerialBits is what CA/Browser BR 7.1 asks of a random serial number. Ours have 128 random bits: one that is
// shorter than this was not made that way.
const (
	minSerialBits = 64
	maxSerialBits = 128
)

func checkSerial(c *x509.Certificate, _ Expected) string {
	if c.SerialNumber == nil || c.SerialNumber.Sign() <= 0 {
		return "not positive"
	}
	if bits := c.SerialNumber.BitLen(); bits < minSerialBits || bits > maxSerialBits {
		return fmt.Sprintf("%d bits, wanted a random number of %d bits", bits, maxSerialBits)
	}
	return ""
}

func checkSignatureAlgorithm(c *x509.Certificate, _ Expected) string {
	switch c.SignatureAlgorithm {
	case x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519,
		x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS:
		return ""
	}
	return fmt.Sprintf("%v is not accepted", c.SignatureAlgorithm)
}

func checkIssuer(c *x509.Certificate, want Expected) string {
	if !bytes.Equal(c.RawIssuer, want.Issuer.RawSubject) {
		return fmt.Sprintf("issuer %q, wanted the octets of the subject of %q", c.Issuer.String(), want.Issuer.Subject.String())
	}
	if !want.Issuer.IsCA {
		return fmt.Sprintf("the issuer %q is not a CA", want.Issuer.Subject.String())
	}
	return ""
}

func checkValidity(c *x509.Certificate, want Expected) string {
	utc := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	if !c.NotBefore.Before(c.NotAfter) {
		return fmt.Sprintf("notBefore %s is not before notAfter %s", utc(c.NotBefore), utc(c.NotAfter))
	}
	if c.NotBefore.Before(want.Issuer.NotBefore) || c.NotAfter.After(want.Issuer.NotAfter) {
		return fmt.Sprintf("%s to %s is not inside the issuer's %s to %s",
			utc(c.NotBefore), utc(c.NotAfter), utc(want.Issuer.NotBefore), utc(want.Issuer.NotAfter))
	}
	if span := c.NotAfter.Sub(c.NotBefore); span > want.MaxValidity {
		return fmt.Sprintf("valid for %v, wanted at most %v", span, want.MaxValidity)
	}
	return ""
}

func checkKey(c *x509.Certificate, want Expected) string {
	if err := pki.CheckKey(c.PublicKey); err != nil {
		return err.Error()
	}
	id, err := pki.KeyIDOf(c.PublicKey)
	if err != nil {
		return err.Error()
	}
	if id != want.PublicKey {
		return fmt.Sprintf("key %v, wanted %v", id, want.PublicKey)
	}
	return ""
}

var (
	oidCommonName   = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidOrganization = asn1.ObjectIdentifier{2, 5, 4, 10}
)

func checkSubject(c *x509.Certificate, want Expected) string {
	commonNames := 0
	for _, name := range c.Subject.Names {
		switch {
		case name.Type.Equal(oidCommonName):
			commonNames++
		case name.Type.Equal(oidOrganization):
		default:
			return fmt.Sprintf("attribute %v, wanted a common name and at most an organization", name.Type)
		}
	}
	if commonNames != 1 || c.Subject.CommonName == "" {
		return fmt.Sprintf("%d common names, wanted one that is not empty", commonNames)
	}
	if want.Subject != nil && c.Subject.CommonName != want.Subject.CommonName() {
		return fmt.Sprintf("common name %q, wanted %q", c.Subject.CommonName, want.Subject.CommonName())
	}
	return ""
}

func checkNames(c *x509.Certificate, want Expected) string {
	for _, name := range c.DNSNames {
		if strings.Contains(name, "*") {
			return fmt.Sprintf("wildcard %q", name)
		}
	}
	got, err := pki.SANsFromExtensions(c.Extensions)
	if err != nil {
		return err.Error()
	}
	if want.Subject == nil {
		if !got.IsZero() {
			return fmt.Sprintf("names %v, wanted none in a CA certificate", got)
		}
		return ""
	}
	if !got.Equal(want.Subject.SANs()) {
		return fmt.Sprintf("names %v, wanted %v", got, want.Subject.SANs())
	}
	read, err := pki.SubjectFromCertificate(c)
	if err != nil {
		return err.Error()
	}
	if !read.SANs().Equal(want.Subject.SANs()) {
		return fmt.Sprintf("read back as %v, wanted %v", read, want.Subject)
	}
	return ""
}

func checkKeyUsage(c *x509.Certificate, want Expected) string {
	if c.KeyUsage != want.KeyUsage {
		return fmt.Sprintf("bits %09b, wanted %09b", c.KeyUsage, want.KeyUsage)
	}
	// Only the extension's presence tells "no restriction" from "none".
	if !hasExtension(c, oidKeyUsage, true) {
		return "extension missing or not critical"
	}
	return ""
}

func checkExtKeyUsage(c *x509.Certificate, want Expected) string {
	var got []asn1.ObjectIdentifier
	for _, e := range c.Extensions {
		if e.Id.Equal(oidExtKeyUsage) {
			if rest, err := asn1.Unmarshal(e.Value, &got); err != nil || len(rest) != 0 {
				return "extension is not a DER sequence of object identifiers"
			}
		}
	}
	if !slices.EqualFunc(got, want.ExtKeyUsages, asn1.ObjectIdentifier.Equal) {
		return fmt.Sprintf("%v, wanted %v", got, want.ExtKeyUsages)
	}
	return ""
}

func checkBasicConstraints(c *x509.Certificate, want Expected) string {
	if !c.BasicConstraintsValid || !hasExtension(c, oidBasicConstraints, true) {
		return "extension missing or not critical"
	}
	if c.IsCA != want.CA {
		return fmt.Sprintf("CA is %v, wanted %v", c.IsCA, want.CA)
	}
	if want.CA && (c.MaxPathLen != want.MaxPathLen || c.MaxPathLen == 0 && !c.MaxPathLenZero) {
		return fmt.Sprintf("path length %d, wanted %d", c.MaxPathLen, want.MaxPathLen)
	}
	return ""
}

func checkKeyIdentifiers(c *x509.Certificate, want Expected) string {
	if len(c.SubjectKeyId) == 0 {
		return "no subject key identifier"
	}
	if len(want.Issuer.SubjectKeyId) == 0 || !bytes.Equal(c.AuthorityKeyId, want.Issuer.SubjectKeyId) {
		return fmt.Sprintf("authority key identifier %x, wanted the issuer's %x", c.AuthorityKeyId, want.Issuer.SubjectKeyId)
	}
	return ""
}

var (
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidNameConstraints  = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// known are the extensions that certificates of the fleet have.
var known = []asn1.ObjectIdentifier{oidSubjectKeyID, oidKeyUsage, oidSubjectAltName, oidBasicConstraints, oidAuthorityKeyID, oidExtKeyUsage,
	oidCRLDistributionPoints, oidAuthorityInfoAccess, oidNoCheck}

func checkExtensions(c *x509.Certificate, _ Expected) string {
	for _, e := range c.Extensions {
		if constrains := c.IsCA && e.Id.Equal(oidNameConstraints); !constrains && !slices.ContainsFunc(known, e.Id.Equal) {
			return fmt.Sprintf("extension %v", e.Id)
		}
	}
	return ""
}

func hasExtension(c *x509.Certificate, oid asn1.ObjectIdentifier, critical bool) bool {
	return slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool {
		return e.Id.Equal(oid) && e.Critical == critical
	})
}
