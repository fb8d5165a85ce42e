package pair

import (
	"crypto"
	"crypto/x509"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// state is the node's directory.
func (p *Pair) state() string { return filepath.Join(p.Dir, "state") }

// Secret puts a key into the node's secrets.
func (p *Pair) Secret(name string, content []byte) {
	p.T.Helper()
	dir := filepath.Join(p.state(), "secrets")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		p.T.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		p.T.Fatal(err)
	}
}

// Join gives the node a certificate of the CA, as joining would leave it.
func (p *Pair) Join(ca *catest.CA) {
	p.T.Helper()
	p.JoinWith(Machine(p.T, ca, NodeName), ca.Bundle())
}

// JoinWith gives the node any certificate, and what it trusts.
func (p *Pair) JoinWith(cert charon.Certificate, bundle trust.Bundle) {
	p.T.Helper()
	store, err := identity.Open(p.state())
	if err != nil {
		p.T.Fatal(err)
	}
	credentials, err := identity.NewCredentials(time.Now(), cert.Key, cert.Chain, bundle, nil)
	if err != nil {
		p.T.Fatal(err)
	}
	if err := store.Save(credentials); err != nil {
		p.T.Fatal(err)
	}
}

// Machine is a certificate of the CA for a machine of this name.
func Machine(t testing.TB, ca *catest.CA, dnsName string) charon.Certificate {
	t.Helper()
	cert := ca.Machine(t, catest.Identity(t, dnsName))
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		t.Fatalf("the key of %s does not sign", dnsName)
	}
	return charon.Certificate{Name: "peer", Chain: cert.Certificate, Key: key}
}

// Authenticated lets strongSwan authenticate with a certificate, under this name, and trust a CA.
func Authenticated(cert charon.Certificate, trusted *catest.CA, name string) func(*charon.Config) {
	return func(c *charon.Config) {
		c.Certificates = []charon.Certificate{cert}
		c.Authorities = [][]byte{trusted.Authority.Root.Raw}
		c.Connections[0].Auth, c.Connections[0].Certificate = charon.AuthCertificate, "peer"
		c.Connections[0].LocalID = name
	}
}

// Certified lets strongSwan authenticate with a certificate of one CA and trust another, or the same one.
func Certified(t testing.TB, issuer, trusted *catest.CA, dnsName string) func(*charon.Config) {
	t.Helper()
	return Authenticated(Machine(t, issuer, dnsName), trusted, dnsName)
}

// Serial is the serial number of a certificate.
func Serial(t testing.TB, cert charon.Certificate) *big.Int {
	t.Helper()
	leaf, err := x509.ParseCertificate(cert.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf.SerialNumber
}

// Denials are what a controller tells when it has revoked these certificates of its CA.
func Denials(t testing.TB, ca *catest.CA, revoked ...charon.Certificate) trust.Denials {
	t.Helper()
	issuer, err := pki.KeyIDOf(ca.Authority.Issuing.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	var serials []trust.Serial
	for _, cert := range revoked {
		serial, err := trust.NewSerial(issuer, Serial(t, cert))
		if err != nil {
			t.Fatal(err)
		}
		serials = append(serials, serial)
	}
	revocations, err := trust.NewRevocations(1, serials, nil)
	if err != nil {
		t.Fatal(err)
	}
	denials, err := trust.NewDenials(nil, revocations)
	if err != nil {
		t.Fatal(err)
	}
	return denials
}
