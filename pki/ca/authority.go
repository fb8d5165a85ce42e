package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// The lifetimes of CA certificates. A CA that lives a year fails its fleet after a year, and nobody remembers why.
const (
	defaultRootLifetime   = 20 * 365 * day
	defaultIssuerLifetime = 5 * 365 * day
	minAuthorityLifetime  = 30 * day
	maxAuthorityLifetime  = 30 * 365 * day
)

// Config says what CA to make. The zero value of each field is safe, but TrustDomain is needed.
type Config struct {
	// TrustDomain is the directory root as a DNS name; it is the O of the CA's subjects.
	TrustDomain string
	// RootLifetime is 30 days to 30 years; default 20 years.
	RootLifetime time.Duration
	// IssuerLifetime is 30 days to RootLifetime; default 5 years, or RootLifetime where that is shorter.
	IssuerLifetime time.Duration
	// RootAlgorithm and Algorithm are the kinds of the root's and the issuing CA's keys; default ECDSA on P-256.
	RootAlgorithm, Algorithm Algorithm
	// Domains are the DNS domains that the issuing CA may vouch for (RFC 5280 4.2.1.10); empty for all.
	Domains []string
	// Pointers are where the certificate of an issuing CA says that the list of its root is.
	Pointers revocation.Pointers
}

// Validate reports what is out of range. Errors wrap ErrAuthority or pki.ErrName.
func (c Config) Validate() error {
	_, err := c.validated()
	return err
}

func (c Config) validated() (Config, error) {
	domain, err := pki.ParseDNSName(c.TrustDomain)
	if err != nil {
		return Config{}, fmt.Errorf("trust domain of the CA: %w", err)
	}
	c.TrustDomain = domain
	if c.RootLifetime == 0 {
		c.RootLifetime = defaultRootLifetime
	}
	if c.IssuerLifetime == 0 {
		c.IssuerLifetime = min(defaultIssuerLifetime, c.RootLifetime)
	}
	if c.RootLifetime < minAuthorityLifetime || c.RootLifetime > maxAuthorityLifetime {
		return Config{}, fmt.Errorf("root lifetime %v, wanted %v to %v: %w", c.RootLifetime, minAuthorityLifetime, maxAuthorityLifetime, ErrAuthority)
	}
	if c.IssuerLifetime < minAuthorityLifetime || c.IssuerLifetime > c.RootLifetime {
		return Config{}, fmt.Errorf("issuing CA lifetime %v, wanted %v to %v: %w", c.IssuerLifetime, minAuthorityLifetime, c.RootLifetime, ErrAuthority)
	}
	if len(c.Domains) > maxDomains {
		return Config{}, fmt.Errorf("%d domains that the CA may vouch for, more than %d: %w", len(c.Domains), maxDomains, ErrAuthority)
	}
	domains := make([]string, 0, len(c.Domains))
	for _, d := range c.Domains {
		parsed, err := pki.ParseDNSName(d)
		if err != nil {
			return Config{}, fmt.Errorf("domains that the CA may vouch for: %w", err)
		}
		domains = append(domains, parsed)
	}
	c.Domains = domains
	return c, nil
}

// maxDomains bounds the name constraints of an issuing CA.
const maxDomains = 64

// Authority is a CA with its keys in memory. It prints as the names of its certificates.
type Authority struct {
	Root    *x509.Certificate
	RootKey crypto.Signer
	Issuing *x509.Certificate
	// IssuingKey signs everything but CA certificates.
	IssuingKey crypto.Signer
}

// String returns the names of the two certificates, and nothing of the keys.
func (a Authority) String() string {
	name := func(c *x509.Certificate) string {
		if c == nil {
			return "none"
		}
		return c.Subject.String()
	}
	return "CA of " + name(a.Root) + " and " + name(a.Issuing)
}

// Format writes String whatever the verb.
func (a Authority) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(a.String())) }

// MarshalJSON writes String.
func (a Authority) MarshalJSON() ([]byte, error) { return json.Marshal(a.String()) }

// Generate makes a root and an issuing CA below it, good from now on. They are in no journal.
func Generate(now time.Time, config Config) (Authority, error) {
	return GenerateRecorded(context.Background(), &MemoryJournal{}, now, config)
}

// GenerateRecorded is Generate with a journal that both certificates are recorded in.
func GenerateRecorded(ctx context.Context, journal Journal, now time.Time, config Config) (Authority, error) {
	c, err := config.validated()
	if err != nil {
		return Authority{}, err
	}
	rootKey, err := c.RootAlgorithm.GenerateKey()
	if err != nil {
		return Authority{}, fmt.Errorf("the root: %w", err)
	}
	issuingKey, err := c.Algorithm.GenerateKey()
	if err != nil {
		return Authority{}, fmt.Errorf("the issuing CA: %w", err)
	}
	root, err := CertifyRoot(ctx, journal, now, c, rootKey)
	if err != nil {
		return Authority{}, err
	}
	issuing, err := CertifyIssuing(ctx, journal, now, c, root, rootKey, issuingKey.Public())
	if err != nil {
		return Authority{}, err
	}
	return Authority{root, rootKey, issuing, issuingKey}, nil
}

// subjectKeyID is 160 bits of SHA-256, in the way of RFC 7093 2, over the whole SubjectPublicKeyInfo.
func subjectKeyID(key pki.KeyID) []byte {
	return bytes.Clone(key[:20])
}

// serialBits is the size of a serial number. All of it is random: no state is needed for it to be unique.
const serialBits = 128

func newSerial() (*big.Int, error) {
	var octets [serialBits / 8]byte
	if _, err := rand.Read(octets[:]); err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	serial := new(big.Int).SetBytes(octets[:])
	// RFC 5280 4.1.2.2 wants it positive. Two in 2^128 draws; the lint would refuse it as well.
	if serial.Sign() == 0 {
		return nil, fmt.Errorf("drawing a serial number: the system's randomness is all zero: %w", ErrAuthority)
	}
	return serial, nil
}

// CA issues certificates. It is immutable; make it with New, Load or Generate and New.
type CA struct {
	root, issuing *x509.Certificate
	issuerKeyID   pki.KeyID
	signer        crypto.Signer
	algorithm     x509.SignatureAlgorithm
	journal       Journal
	bundle        trust.Bundle
	pin           pki.KeyID
}

// New makes a CA from the root's certificate, the issuing CA's certificate and key, and the journal. The key and the
// certificates must belong together. Their validity is looked at when a certificate is prepared, so that a controller
// with an expired CA still starts and can say so. Errors wrap ErrAuthority.
func New(root, issuing *x509.Certificate, signer crypto.Signer, journal Journal) (*CA, error) {
	if root == nil || issuing == nil || signer == nil || journal == nil {
		return nil, fmt.Errorf("certificates, key and journal are all needed: %w", ErrAuthority)
	}
	bundle, err := trust.NewBundle(0, []*x509.Certificate{root}, []*x509.Certificate{issuing})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAuthority, err)
	}
	if err := issuing.CheckSignatureFrom(root); err != nil {
		return nil, fmt.Errorf("the issuing CA %q was not issued by the root %q: %w: %w", issuing.Subject, root.Subject, ErrAuthority, err)
	}
	certified, err := pki.KeyIDOf(issuing.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAuthority, err)
	}
	held, err := pki.KeyIDOf(signer.Public())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAuthority, err)
	}
	if held != certified {
		return nil, fmt.Errorf("the issuing CA %q has the key %v, but the private key is %v: %w", issuing.Subject, certified, held, ErrAuthority)
	}
	algorithm, err := signatureAlgorithm(issuing.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("the issuing CA %q: %w", issuing.Subject, err)
	}
	pin, err := pki.KeyIDOf(root.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAuthority, err)
	}
	return &CA{
		root: root, issuing: issuing, issuerKeyID: certified, signer: signer, algorithm: algorithm, journal: journal, bundle: bundle, pin: pin,
	}, nil
}

// Bundle is what the fleet trusts because of this CA: the root and the issuing CA, at the revision given.
func (c *CA) Bundle(revision uint64) (trust.Bundle, error) {
	return trust.NewBundle(revision, c.bundle.Roots(), c.bundle.Intermediates())
}

// Root is the root's certificate.
func (c *CA) Root() *x509.Certificate { return c.root }

// Issuing is the issuing CA's certificate.
func (c *CA) Issuing() *x509.Certificate { return c.issuing }

// IssuerKeyID names the issuing key, as revocations do.
func (c *CA) IssuerKeyID() pki.KeyID { return c.issuerKeyID }

// Pin is the key id of the root, as join tokens carry it.
func (c *CA) Pin() pki.KeyID { return c.pin }

// Remaining is how long the issuing CA is still good at the time now, negative after its end: to be watched.
func (c *CA) Remaining(now time.Time) time.Duration { return c.issuing.NotAfter.Sub(now) }

// CheckIssuing reports whether a certificate of the profile could be issued now as far as the CA's validity goes. The
// error is an *IssuerValidityError.
func (c *CA) CheckIssuing(now time.Time, p Profile) error {
	_, _, err := p.window(now, c.issuing)
	return err
}
