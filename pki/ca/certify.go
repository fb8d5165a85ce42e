package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/certlint"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// What a journal calls the certificates of CAs.
const (
	profileRoot    = "root-ca"
	ProfileIssuing = "issuing-ca"
)

const authorityKeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign

// CertifyRoot makes the certificate of a root with the key. Errors wrap ErrAuthority, certlint.ErrFindings or ErrJournal.
func CertifyRoot(ctx context.Context, journal Journal, now time.Time, config Config, key crypto.Signer) (*x509.Certificate, error) {
	c, err := config.validated()
	if err != nil {
		return nil, err
	}
	start := now.UTC().Truncate(time.Second).Add(-defaultBackdate)
	return authorityCertificate{
		signer: key, public: key.Public(), profile: profileRoot, name: "Bailiwick root CA", organization: c.TrustDomain,
		notBefore: start, notAfter: start.Add(c.RootLifetime), pathLen: 1,
	}.issue(ctx, journal, now)
}

// CertifyIssuing makes the certificate of an issuing CA with the public key, signed by the root. It ends with the root at
// the latest; a root that ends too soon is an *IssuerValidityError.
func CertifyIssuing(ctx context.Context, journal Journal, now time.Time, config Config, root *x509.Certificate, rootKey crypto.Signer, public crypto.PublicKey) (*x509.Certificate, error) {
	c, err := config.validated()
	if err != nil {
		return nil, err
	}
	start := now.UTC().Truncate(time.Second).Add(-defaultBackdate)
	end := start.Add(c.IssuerLifetime)
	if start.Before(root.NotBefore) {
		start = root.NotBefore
	}
	if end.After(root.NotAfter) {
		end = root.NotAfter
	}
	if now.Before(root.NotBefore) || end.Sub(now) < minAuthorityLifetime-day {
		return nil, fmt.Errorf("the root %q: %w", root.Subject, &IssuerValidityError{Now: now, NotBefore: root.NotBefore, NotAfter: root.NotAfter, Needed: minAuthorityLifetime})
	}
	place, err := c.rootList(root)
	if err != nil {
		return nil, err
	}
	return authorityCertificate{
		issuer: root, crl: place, signer: rootKey, public: public, profile: ProfileIssuing, name: "Bailiwick issuing CA", organization: c.TrustDomain,
		notBefore: start, notAfter: end, domains: c.Domains,
	}.issue(ctx, journal, now)
}

// rootList is where the list of a root is; empty where nobody says so.
func (c Config) rootList(root *x509.Certificate) (string, error) {
	key, err := pki.KeyIDOf(root.PublicKey)
	if err != nil {
		return "", fmt.Errorf("the root %q: %w: %w", root.Subject, ErrAuthority, err)
	}
	return c.Pointers.Place(revocation.Whole(key)), nil
}

// authorityCertificate is a CA certificate that is to be made.
type authorityCertificate struct {
	issuer    *x509.Certificate // nil for a root
	signer    crypto.Signer
	public    crypto.PublicKey
	profile   string
	name      string
	notBefore time.Time
	notAfter  time.Time
	pathLen   int
	domains   []string
	crl       string // where the issuer's list is
	// organization is the trust domain.
	organization string
}

// issue goes the way of every certificate: a twin is linted, the intention recorded, then it is signed, compared and
// recorded.
func (a authorityCertificate) issue(ctx context.Context, journal Journal, now time.Time) (*x509.Certificate, error) {
	template, keyID, err := a.template()
	if err != nil {
		return nil, err
	}
	name := template.Subject.CommonName
	tbs, err := a.lintTwin(template, keyID)
	if err != nil {
		return nil, fmt.Errorf("certificate of %q: %w", name, err)
	}
	issuerKey, err := pki.KeyIDOf(a.signer.Public())
	if err != nil {
		return nil, err
	}
	intention := Intention{
		Serial: template.SerialNumber.Text(16), Issuer: issuerKey, Profile: a.profile, Subject: template.Subject.String(), Key: keyID,
		NotBefore: a.notBefore, NotAfter: a.notAfter, Prepared: now.UTC(), TBS: tbs,
	}
	if err := journal.Record(ctx, intention); err != nil {
		return nil, fmt.Errorf("recording the intention %s for %q, nothing was signed: %w: %w", intention.Serial, name, ErrJournal, err)
	}
	parent := a.issuer
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, a.public, a.signer)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of %q: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading back the certificate of %q: %w", name, err)
	}
	if !bytes.Equal(cert.RawTBSCertificate, tbs) {
		return nil, fmt.Errorf("certificate of %q: %w", name, ErrDiffers)
	}
	if err := journal.Complete(ctx, intention.Serial, der); err != nil {
		return nil, fmt.Errorf("recording the certificate of %q, which was signed but is not used: %w: %w", name, ErrJournal, err)
	}
	return cert, nil
}

func (a authorityCertificate) template() (*x509.Certificate, pki.KeyID, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, pki.KeyID{}, err
	}
	keyID, err := pki.KeyIDOf(a.public)
	if err != nil {
		return nil, pki.KeyID{}, err
	}
	algorithm, err := signatureAlgorithm(a.signer.Public())
	if err != nil {
		return nil, pki.KeyID{}, err
	}
	// The key in the name keeps two CAs of one fleet apart for people and for path building.
	subject := pkix.Name{CommonName: a.name + " " + keyID.String()[:8]}
	if len(a.organization) <= maxOrganization {
		subject.Organization = []string{a.organization}
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               subject,
		NotBefore:             a.notBefore,
		NotAfter:              a.notAfter,
		KeyUsage:              authorityKeyUsage,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            a.pathLen,
		MaxPathLenZero:        a.pathLen == 0,
		SubjectKeyId:          subjectKeyID(keyID),
		SignatureAlgorithm:    algorithm,
	}
	if a.issuer == nil {
		template.AuthorityKeyId = template.SubjectKeyId
	}
	if a.crl != "" {
		template.CRLDistributionPoints = []string{a.crl}
	}
	if len(a.domains) > 0 {
		// Critical as RFC 5280 4.2.1.10 demands. The identity URIs have the trust domain as their host.
		template.PermittedDNSDomainsCritical, template.PermittedDNSDomains = true, a.domains
		template.PermittedURIDomains = []string{a.organization}
	}
	return template, keyID, nil
}

// lintTwin applies the rules to the twin of the certificate, and returns the octets to be signed.
func (a authorityCertificate) lintTwin(template *x509.Certificate, keyID pki.KeyID) ([]byte, error) {
	parent := template
	if a.issuer != nil {
		parent = a.issuer
	}
	twin, err := newTwin(template, parent, a.public, a.signer.Public())
	if err != nil {
		return nil, err
	}
	issuer := a.issuer
	if issuer == nil {
		issuer = twin
	}
	return twin.RawTBSCertificate, certlint.Check(twin, certlint.Expected{
		Issuer: issuer, PublicKey: keyID, MaxValidity: a.notAfter.Sub(a.notBefore),
		KeyUsage: authorityKeyUsage, CA: true, MaxPathLen: a.pathLen, Domains: a.domains, URIDomain: a.organization,
		CRL: a.crl,
	})
}

// IsAuthorityProfile reports whether a journal's profile is that of CA certificates.
func IsAuthorityProfile(profile string) bool {
	return profile == profileRoot || profile == ProfileIssuing
}

// CheckIssuing holds the certificate of an issuing CA that was made elsewhere against the rules, as if it was made here.
// Errors wrap ErrAuthority or certlint.ErrFindings.
func CheckIssuing(root, issuing *x509.Certificate, config Config) error {
	c, err := config.validated()
	if err != nil {
		return err
	}
	key, err := pki.KeyIDOf(issuing.PublicKey)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAuthority, err)
	}
	place, err := c.rootList(root)
	if err != nil {
		return err
	}
	if got := issuing.CRLDistributionPoints; place == "" && len(got) > 0 || place != "" && !slices.Equal(got, []string{place}) {
		return fmt.Errorf("the issuing CA's certificate says that the list of its root is at %q, and here it is at %q: sign the request again, with the URL that the controller has (revocation.url): %w",
			got, place, ErrAuthority)
	}
	return certlint.Check(issuing, certlint.Expected{
		Issuer: root, PublicKey: key, MaxValidity: maxAuthorityLifetime, KeyUsage: authorityKeyUsage, CA: true,
		Domains: issuing.PermittedDNSDomains, URIDomain: c.TrustDomain, CRL: place,
	})
}

// maxAuthorityRequest bounds a request, in octets. An RSA-8192 one has 2 KiB.
const maxAuthorityRequest = 16 << 10

// CertifyRequest is CertifyIssuing for a request (PKCS #10, DER) that was made elsewhere. Only the key is taken from it,
// once its signature shows that its sender has it. Errors wrap ErrAuthority too.
func CertifyRequest(ctx context.Context, journal Journal, now time.Time, config Config, root *x509.Certificate, rootKey crypto.Signer, request []byte) (*x509.Certificate, error) {
	if len(request) > maxAuthorityRequest {
		return nil, fmt.Errorf("request of %d octets, more than %d: %w", len(request), maxAuthorityRequest, ErrAuthority)
	}
	parsed, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, fmt.Errorf("reading the request of an issuing CA: %w: %w", ErrAuthority, err)
	}
	// Before the signature, whose cost the key decides.
	if err := pki.CheckKey(parsed.PublicKey); err != nil {
		return nil, fmt.Errorf("request of an issuing CA: %w: %w", ErrAuthority, err)
	}
	if err := parsed.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the request of an issuing CA was not signed by the key in it: %w: %w", ErrAuthority, err)
	}
	return CertifyIssuing(ctx, journal, now, config, root, rootKey, parsed.PublicKey)
}
