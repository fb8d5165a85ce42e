// Package catest is a CA in memory for the tests of other packages: real certificates of the fleet's real CA, without
// files. It owns nothing that a program needs, and only tests import it.
package catest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// TrustDomain is the trust domain of the CAs made here.
const TrustDomain = "bank.example"

// CA is a CA whose journal is in memory.
type CA struct {
	*ca.CA
	// Journal holds what was issued.
	Journal *ca.MemoryJournal
	// Authority holds the CA's keys.
	Authority ca.Authority

	t   testing.TB
	now func() time.Time
}

// New makes a CA that works with the wall clock.
func New(t testing.TB) *CA { return NewAt(t, time.Now) }

// NewAt makes a CA that works with the given clock.
func NewAt(t testing.TB, now func() time.Time) *CA {
	t.Helper()
	authority, err := ca.Generate(now(), ca.Config{TrustDomain: TrustDomain})
	if err != nil {
		t.Fatalf("making a CA for tests: %v", err)
	}
	journal := &ca.MemoryJournal{}
	c, err := ca.New(authority.Root, authority.Issuing, authority.IssuingKey, journal)
	if err != nil {
		t.Fatalf("making a CA for tests: %v", err)
	}
	return &CA{c, journal, authority, t, now}
}

// Identity makes the identity of a machine in TrustDomain, its UUID derived from its name.
func Identity(t testing.TB, dnsName string) pki.Identity {
	t.Helper()
	id, err := pki.NewIdentity(TrustDomain, UUID(dnsName), dnsName)
	if err != nil {
		t.Fatalf("identity of %q: %v", dnsName, err)
	}
	return id
}

// UUID makes a UUID that depends on the name alone.
func UUID(name string) pki.UUID {
	var u pki.UUID
	for i, c := range []byte(name) {
		u[i%len(u)] = u[i%len(u)]*31 + c
	}
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return u
}

// Bundle is the trust bundle of the CA, at revision 1.
func (c *CA) Bundle() trust.Bundle {
	c.t.Helper()
	b, err := c.CA.Bundle(1)
	if err != nil {
		c.t.Fatalf("trust bundle: %v", err)
	}
	return b
}

// Machine issues a machine's certificate with the default profile and a fresh P-256 key. Its chain has no root.
func (c *CA) Machine(t testing.TB, id pki.Identity) tls.Certificate {
	t.Helper()
	return c.issue(t, ca.Machine, id, false)
}

// Controller issues a controller's certificate for the DNS names and addresses. Its chain includes the root, so that
// it can be joined with a pin.
func (c *CA) Controller(t testing.TB, dnsNames []string, addresses ...netip.Addr) tls.Certificate {
	t.Helper()
	s, err := pki.NewController(TrustDomain, dnsNames, addresses)
	if err != nil {
		t.Fatalf("controller %q: %v", dnsNames, err)
	}
	return c.issue(t, ca.Server, s, true)
}

// Administrator issues an administrator's certificate.
func (c *CA) Administrator(t testing.TB, account string) tls.Certificate {
	t.Helper()
	s, err := pki.NewAdministrator(TrustDomain, account)
	if err != nil {
		t.Fatalf("administrator %q: %v", account, err)
	}
	return c.issue(t, ca.Admin, s, false)
}

func (c *CA) issue(t testing.TB, kind ca.Kind, subject pki.Subject, withRoot bool) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("key of %v: %v", subject, err)
	}
	profile, err := ca.NewProfile(kind, ca.ProfileConfig{})
	if err != nil {
		t.Fatalf("%v profile: %v", kind, err)
	}
	issued := c.Sign(t, profile, key, subject)
	chain := issued.Chain()
	if withRoot {
		chain = issued.ChainWithRoot()
	}
	return tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: issued.Leaf}
}

// Sign issues a certificate for the key with the given profile, through every step of the real CA.
func (c *CA) Sign(t testing.TB, profile ca.Profile, key crypto.Signer, subject pki.Subject) ca.Issued {
	t.Helper()
	der, err := enroll.NewRequest(key, subject)
	if err != nil {
		t.Fatalf("certificate request of %v: %v", subject, err)
	}
	request, err := enroll.ParseRequest(der)
	if err != nil {
		t.Fatalf("certificate request of %v: %v", subject, err)
	}
	prepared, err := c.Prepare(c.now(), profile, request, subject)
	if err != nil {
		t.Fatalf("preparing the certificate of %v: %v", subject, err)
	}
	issued, err := c.Issue(context.Background(), prepared)
	if err != nil {
		t.Fatalf("issuing the certificate of %v: %v", subject, err)
	}
	return issued
}
