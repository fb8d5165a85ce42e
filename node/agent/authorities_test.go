package agent

import (
	"crypto"
	"crypto/x509"
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// A CA that an entry excludes by name stands in no certificate request, and with an entry that excludes the fleet's own
// there is no request at all.
func TestExcludedCAsAreNotAskedFor(t *testing.T) {
	ca, other := catest.New(t), catest.New(t)
	cert := ca.Machine(t, catest.Identity(t, "a.bank.example"))
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		t.Fatal("the key does not sign")
	}
	own, foreign := ca.Bundle(), other.Bundle()
	bundle, err := trust.NewBundle(1, append(own.Roots(), foreign.Roots()...), append(own.Intermediates(), foreign.Intermediates()...))
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := identity.NewCredentials(time.Now(), key, cert.Certificate, bundle, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := len(bundle.Roots()) + len(bundle.Intermediates())
	named := func(subject string) (n int) {
		for _, list := range [][]*x509.Certificate{bundle.Roots(), bundle.Intermediates()} {
			for _, c := range list {
				if c.Subject.String() == subject {
					n++
				}
			}
		}
		return n
	}
	root := own.Roots()[0].Subject.String()
	for _, c := range []struct {
		name string
		auth []spd.Auth
		want int
	}{
		{"none excluded", []spd.Auth{{Method: spd.AuthCertificate}}, all},
		{"one excluded, beside an entry for all", []spd.Auth{{Method: spd.AuthCertificate}, {Method: spd.AuthCertificate, CA: root, ExcludeCAName: true}}, all - named(root)},
		{"an unknown CA excluded", []spd.Auth{{Method: spd.AuthCertificate, CA: "CN=Nobody", ExcludeCAName: true}}, all},
		{"all excluded", []spd.Auth{{Method: spd.AuthCertificate, ExcludeCAName: true}}, 0},
	} {
		set, err := spd.Expand(spd.Policy{
			Name: "p", KeyExchange: spd.KeyExchange{Offers: proposal.DefaultIKE()},
			DefaultResponse: spd.DefaultResponse{Active: true, Offers: proposal.DefaultESP(), Auth: c.auth},
		}, spd.Facts{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
		if err != nil {
			t.Fatal(err)
		}
		if got := len(IKEConfig(set, credentials, Negotiation{}).Authorities); got != c.want {
			t.Errorf("%s: %d CAs are asked for, want %d", c.name, got, c.want)
		}
	}
}
