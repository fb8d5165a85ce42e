package strongswan

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// foreign is a certificate of a CA that is not the fleet's, with its key.
type foreign struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issueForeign makes a certificate; a nil issuer makes it sign itself.
func issueForeign(t *testing.T, issuer *foreign, name pkix.Name, edit func(*x509.Certificate)) *foreign {
	t.Helper()
	key := newKey(t, "p256")
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: name, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 17}}, // ipsecIKE
	}
	edit(template)
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &foreign{cert, key}
}

// authority makes a template that of a CA.
func authority(c *x509.Certificate) {
	c.IsCA, c.KeyUsage, c.UnknownExtKeyUsage = true, x509.KeyUsageCertSign, nil
}

// TestForeignCertificates meets a peer of another CA, which the node trusts beside the fleet's, with certificates as they
// are and as they must not be.
func TestForeignCertificates(t *testing.T) {
	t.Parallel()
	shows(t, 8, 9, 11)
	subject := pkix.Name{CommonName: "peer", OrganizationalUnit: []string{"Sales"}, Organization: []string{"Bank"}}
	const peerDN = `O=Bank, OU=Sales, CN=peer`
	named := func(c *x509.Certificate) { c.DNSNames = []string{pair.PeerName} }
	far := func(c *x509.Certificate) { c.NotAfter = time.Date(2060, 1, 2, 3, 4, 5, 0, time.UTC) }
	for _, c := range []struct {
		name          string
		root, leaf    func(*x509.Certificate)
		intermediates []func(*x509.Certificate)
		id, remoteID  string // of the peer: for strongSwan, and in the policy
		want          []ike.Reason
	}{
		{name: "dates after 2038", root: far, leaf: far},
		{name: "whole subject", id: peerDN, remoteID: "dn:CN=peer,OU=Sales,O=Bank"},
		{name: "another unit in the subject", id: peerDN, remoteID: "dn:CN=peer,OU=Research,O=Bank", want: []ike.Reason{ike.ReasonIDMismatch}},
		{name: "two intermediates", intermediates: []func(*x509.Certificate){authority, authority}},
		{name: "path length exceeded", want: []ike.Reason{ike.ReasonCertInvalid},
			intermediates: []func(*x509.Certificate){func(c *x509.Certificate) { c.MaxPathLenZero = true }, authority}},
		{name: "name constraint of an intermediate", want: []ike.Reason{ike.ReasonCertInvalid},
			intermediates: []func(*x509.Certificate){func(c *x509.Certificate) {
				c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"branch.example"}
			}}},
		{name: "expired", want: []ike.Reason{ike.ReasonCertExpired},
			leaf: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			edits := func(list ...func(*x509.Certificate)) func(*x509.Certificate) {
				return func(template *x509.Certificate) {
					for _, edit := range list {
						if edit != nil {
							edit(template)
						}
					}
				}
			}
			root := issueForeign(t, nil, pkix.Name{CommonName: "Foreign root"}, edits(authority, c.root))
			issuer, chain := root, [][]byte(nil)
			for i, edit := range c.intermediates {
				issuer = issueForeign(t, issuer, pkix.Name{CommonName: "Foreign issuer", SerialNumber: string(rune('1' + i))}, edits(authority, c.root, edit))
				chain = slices.Insert(chain, 0, issuer.cert.Raw)
			}
			leaf := issueForeign(t, issuer, subject, edits(named, c.leaf))
			ca := catest.New(t)
			bundle, err := trust.NewBundle(1, []*x509.Certificate{ca.Authority.Root, root.cert}, ca.Bundle().Intermediates())
			if err != nil {
				t.Fatal(err)
			}
			id, remoteID := pair.PeerName, "fqdn:"+pair.PeerName
			if c.id != "" {
				id, remoteID = c.id, c.remoteID
			}
			cert := charon.Certificate{Name: "peer", Chain: append([][]byte{leaf.cert.Raw}, chain...), Key: leaf.key}
			config := partner(pair.UsualPeerIKE, pair.UsualPeerESP, pair.Authenticated(cert, ca, `"`+id+`"`))
			config.Authorities = append(config.Authorities, root.cert.Raw)
			p.StartPeer(config)
			p.JoinWith(issued(t, ca, "p256", pair.NodeName), bundle)
			p.StartNode(pair.Policy{Authenticate: `{method: certificate, remoteID: "` + remoteID + `"}`})
			err = p.Charon.Initiate(p.Ctx, pair.NetName)
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				p.Talk(pair.FromNode)
				p.Agree(pair.FromPeer)
				return
			}
			if err == nil {
				t.Error("strongSwan says that it has the child")
			}
			p.Fails(pair.PeerOuter, c.want...)
		})
	}
}
