package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/certlint"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// Prepared is a certificate that was checked and linted, and may be issued once.
type Prepared struct {
	intention Intention
	subject   pki.Subject
	template  *x509.Certificate
	public    crypto.PublicKey
	by        *CA
	redeemed  atomic.Bool
}

// Intention is what will be recorded.
func (p *Prepared) Intention() Intention { return p.intention }

// Issuer is the CA that prepared it, and the only one that can issue it.
func (p *Prepared) Issuer() *CA { return p.by }

// Subject is whose certificate it will be.
func (p *Prepared) Subject() pki.Subject { return p.subject }

// Prepare makes ready a certificate for subject, with the key of the request. The caller decided that the sender of
// the request is the subject; Prepare checks that the request does not say otherwise, that the profile is for such a
// subject, that the issuing CA lives long enough, and that the certificate would keep every rule. Nothing is signed
// with the CA's key. Errors wrap enroll.ErrNameMismatch, ErrProfile, ErrIssuerValidity or certlint.ErrFindings.
func (c *CA) Prepare(now time.Time, profile Profile, request enroll.Request, subject pki.Subject) (*Prepared, error) {
	if err := profile.admits(subject); err != nil {
		return nil, fmt.Errorf("preparing a certificate: %w", err)
	}
	if err := enroll.Match(request, subject); err != nil {
		return nil, fmt.Errorf("preparing a certificate for %v: %w", subject, err)
	}
	notBefore, notAfter, err := profile.window(now, c.issuing)
	if err != nil {
		return nil, fmt.Errorf("preparing a certificate for %v: %w", subject, err)
	}
	template, err := c.newTemplate(profile, request.KeyID, subject, notBefore, notAfter)
	if err != nil {
		return nil, fmt.Errorf("preparing a certificate for %v: %w", subject, err)
	}
	tbs, err := c.lintTwin(profile, template, request, subject)
	if err != nil {
		return nil, fmt.Errorf("preparing a certificate for %v: %w", subject, err)
	}
	return &Prepared{
		intention: Intention{
			Serial: template.SerialNumber.Text(16), Issuer: c.issuerKeyID,
			Profile: profile.kind.String(), Subject: subject.SANs().URI, Key: request.KeyID,
			NotBefore: notBefore, NotAfter: notAfter, Prepared: now.UTC(), TBS: tbs,
		},
		subject: subject, template: template, public: request.PublicKey, by: c,
	}, nil
}

func (c *CA) newTemplate(profile Profile, key pki.KeyID, subject pki.Subject, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	sans := subject.SANs()
	uris, err := sans.URIs()
	if err != nil {
		return nil, err
	}
	name := pkix.Name{CommonName: subject.CommonName()}
	if profile.organization != "" {
		name.Organization = []string{profile.organization}
	}
	known, unknown, _ := profile.extKeyUsages()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               name,
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           known,
		UnknownExtKeyUsage:    unknown,
		BasicConstraintsValid: true,
		SubjectKeyId:          subjectKeyID(key),
		DNSNames:              sans.DNSNames,
		IPAddresses:           sans.IPAddresses(),
		URIs:                  uris,
		SignatureAlgorithm:    c.algorithm,
	}
	if !profile.pointers.IsZero() {
		template.CRLDistributionPoints = []string{profile.pointers.CRL(c.issuerKeyID, serial)}
		template.OCSPServer = []string{profile.pointers.OCSP()}
	}
	if profile.kind == Responder {
		template.ExtraExtensions = []pkix.Extension{certlint.NoCheck()}
	}
	return template, nil
}

// lintTwin applies the rules to the twin of the certificate, and returns the octets that the CA's key is to sign.
func (c *CA) lintTwin(profile Profile, template *x509.Certificate, request enroll.Request, subject pki.Subject) ([]byte, error) {
	twin, err := newTwin(template, c.issuing, request.PublicKey, c.issuing.PublicKey)
	if err != nil {
		return nil, err
	}
	_, _, usages := profile.extKeyUsages()
	err = certlint.Check(twin, certlint.Expected{
		Issuer: c.issuing, Subject: subject, PublicKey: request.KeyID,
		MaxValidity: profile.lifetime + profile.backdate,
		KeyUsage:    x509.KeyUsageDigitalSignature, ExtKeyUsages: usages,
		CRL: profile.pointers.CRL(c.issuerKeyID, template.SerialNumber), OCSP: profile.pointers.OCSP(), NoCheck: profile.kind == Responder,
	})
	if err != nil {
		return nil, err
	}
	return twin.RawTBSCertificate, nil
}

// Issued is a signed and recorded certificate.
type Issued struct {
	// Leaf is the certificate.
	Leaf *x509.Certificate
	// Issuers lead from the leaf's issuer to the root, both included.
	Issuers []*x509.Certificate
}

// Chain is what a machine presents to its peers: the certificate and its issuers in DER, without the root, which they
// have.
func (i Issued) Chain() [][]byte { return i.encoded(len(i.Issuers) - 1) }

// ChainWithRoot is what a server presents that machines join through: they know the root by its pin alone.
func (i Issued) ChainWithRoot() [][]byte { return i.encoded(len(i.Issuers)) }

func (i Issued) encoded(issuers int) [][]byte {
	out := [][]byte{i.Leaf.Raw}
	for _, c := range i.Issuers[:max(issuers, 0)] {
		out = append(out, c.Raw)
	}
	return out
}

// Issue redeems a prepared certificate: it records the intention, signs, compares and records the certificate, in this
// order. Where recording fails nothing is signed, and where the last step fails the certificate is not given away;
// the intention then stands in the journal. A prepared certificate is spent by the attempt, whatever its outcome.
// Errors wrap ErrRedeemed, ErrJournal or ErrDiffers.
func (c *CA) Issue(ctx context.Context, p *Prepared) (Issued, error) {
	// 1. One redemption.
	if p == nil || p.by != c {
		return Issued{}, fmt.Errorf("issuing a certificate that this CA did not prepare: %w", ErrRedeemed)
	}
	if p.redeemed.Swap(true) {
		return Issued{}, fmt.Errorf("issuing the certificate %s of %v: %w", p.intention.Serial, p.subject, ErrRedeemed)
	}
	// 2. The intention, before there is a signature.
	if err := c.journal.Record(ctx, p.intention); err != nil {
		return Issued{}, fmt.Errorf("recording the intention %s for %v, nothing was signed: %w: %w", p.intention.Serial, p.subject, ErrJournal, err)
	}
	// 3. The signature.
	der, err := x509.CreateCertificate(rand.Reader, p.template, c.issuing, p.public, c.signer)
	if err != nil {
		return Issued{}, fmt.Errorf("signing the certificate %s of %v: %w", p.intention.Serial, p.subject, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return Issued{}, fmt.Errorf("reading back the certificate %s of %v: %w", p.intention.Serial, p.subject, err)
	}
	// 4. What was signed is what was recorded.
	if !bytes.Equal(leaf.RawTBSCertificate, p.intention.TBS) {
		return Issued{}, fmt.Errorf("certificate %s of %v: %w", p.intention.Serial, p.subject, ErrDiffers)
	}
	// 5. The certificate.
	if err := c.journal.Complete(ctx, p.intention.Serial, der); err != nil {
		return Issued{}, fmt.Errorf("recording the certificate %s of %v, which was signed but is not given away: %w: %w", p.intention.Serial, p.subject, ErrJournal, err)
	}
	return Issued{Leaf: leaf, Issuers: []*x509.Certificate{c.issuing, c.root}}, nil
}
