package strongswan

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// with adds an extension to a certificate.
func with(oid asn1.ObjectIdentifier, critical bool, value []byte) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: oid, Critical: critical, Value: value}}
	}
}

// TestUnknownExtension shows certificates with an extension that nobody knows. Where it is critical, either side refuses
// the other (RFC 5280 4.2), and the node does not take such a certificate for itself; else it is passed over.
func TestUnknownExtension(t *testing.T) {
	t.Parallel()
	shows(t, 14)
	unknown := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 55555, 7}
	for _, c := range []struct {
		name     string
		critical bool
		want     []ike.Reason
	}{
		{"critical", true, []ike.Reason{ike.ReasonCertInvalid}},
		{"not-critical", false, nil},
	} {
		for _, initiator := range pair.Sides {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				ca := catest.New(t)
				peer := variant(t, ca, pair.PeerName, with(unknown, c.critical, []byte{5, 0}))
				node := variant(t, ca, pair.NodeName, with(unknown, false, []byte{5, 0}))
				p.joined(ca, node, peer, pair.Policy{}, func(c *charon.Config) { c.Further = "x509 {\n enforce_critical = no\n}" })
				p.endsAs(initiator, c.want)
			})
		}
	}
	t.Run("own", func(t *testing.T) {
		ca := catest.New(t)
		own := variant(t, ca, pair.NodeName, with(unknown, true, []byte{5, 0}))
		if _, err := identity.NewCredentials(time.Now(), own.Key, own.Chain, ca.Bundle(), nil); err == nil {
			t.Error("a certificate with an unknown critical extension is taken")
		}
	})
}

// addressBlocks are those of an extension of RFC 3779 2.2.3 with prefixes of IPv4.
func addressBlocks(t *testing.T, prefixes ...netip.Prefix) []byte {
	t.Helper()
	type family struct {
		Family    []byte
		Addresses []asn1.BitString
	}
	ipv4 := family{Family: []byte{0, 1}}
	for _, p := range prefixes {
		ipv4.Addresses = append(ipv4.Addresses, asn1.BitString{Bytes: p.Addr().AsSlice()[:(p.Bits()+7)/8], BitLength: p.Bits()})
	}
	value, err := asn1.Marshal([]family{ipv4})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// again signs a CA certificate again, with changes.
func again(t *testing.T, cert, issuer *x509.Certificate, key crypto.Signer, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := *cert
	edit(&template)
	der, err := x509.CreateCertificate(rand.Reader, &template, issuer, cert.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// TestAddressBlocks shows certificates that say which addresses their holder may speak for (RFC 3779). A node asks its
// policy for that and does not read them: critical, as RFC 3779 wants them, they are an extension that it does not know, and
// the peer is refused; else the policy alone counts. strongSwan, which does read them, narrows the Child SA to those of
// the node's certificate, and the node lives with that.
func TestAddressBlocks(t *testing.T) {
	t.Parallel()
	shows(t, 15)
	oid := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 7}
	elsewhere := netip.MustParsePrefix("192.0.2.0/24")
	for _, c := range []struct {
		name     string
		critical bool
		want     []ike.Reason
	}{
		{"peer-critical", true, []ike.Reason{ike.ReasonCertInvalid}},
		{"peer-not-critical", false, nil},
	} {
		for _, initiator := range pair.Sides {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				ca := catest.New(t)
				peer := variant(t, ca, pair.PeerName, with(oid, c.critical, addressBlocks(t, elsewhere)))
				p.joined(ca, pair.Machine(t, ca, pair.NodeName), peer, pair.Policy{})
				p.endsAs(initiator, c.want)
			})
		}
	}
	half := netip.MustParsePrefix("10.1.0.0/25")
	for _, initiator := range pair.Sides {
		t.Run("node/"+initiator.String(), func(t *testing.T) {
			p := newPair(t)
			ca := catest.New(t)
			blocks := with(oid, false, addressBlocks(t, half))
			node := variant(t, ca, pair.NodeName, blocks)
			peer := pair.Machine(t, ca, pair.PeerName)
			// The blocks of a certificate are good when its issuers have them too (RFC 3779 2.3).
			ca.Authority.Root = again(t, ca.Authority.Root, ca.Authority.Root, ca.Authority.RootKey, blocks)
			ca.Authority.Issuing = again(t, ca.Authority.Issuing, ca.Authority.Root, ca.Authority.RootKey, blocks)
			node.Chain[1], peer.Chain[1] = ca.Authority.Issuing.Raw, ca.Authority.Issuing.Raw
			p.joined(ca, node, peer, pair.Policy{}, load("addrblock"))
			theirs, ours := p.Carries(initiator)
			if got := theirs.Children[0].RemoteTS; !slices.Equal(got, []string{half.String()}) {
				t.Errorf("strongSwan has the node's side as %v, want %s", got, half)
			}
			// As initiator strongSwan narrows what the node has answered, and does not tell.
			if got := ours.Children[0].LocalTS; initiator == pair.FromNode && !slices.Equal(got, []string{half.String()}) {
				t.Errorf("the node's side is %v, want %s", got, half)
			}
		})
	}
}
