package driver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// A certificate that is valid for IKE is enough, unless the policy wants it to stand for an account: then it must name a
// machine, the directory must have been heard, and it must not deny it.
func TestAccountMapping(t *testing.T) {
	const name = "b.bank.example"
	ca := catest.NewAt(t, time.Now)
	stranger := newFleet(t).join(name, time.Now().Add(time.Hour))
	for _, c := range []struct {
		name    string
		peer    member
		mapping bool
		level   spd.Revocation
		heard   bool
		denied  []pki.UUID
		want    ike.Reason
	}{
		{"an account", machine(t, ca, name).member, true, spd.RevocationKnown, true, nil, ike.ReasonNone},
		{"an account that is disabled", machine(t, ca, name).member, true, spd.RevocationOff, true, []pki.UUID{catest.Identity(t, name).UUID()}, ike.ReasonPeerDenied},
		{"a directory that was never heard", machine(t, ca, name).member, true, spd.RevocationOff, false, nil, ike.ReasonStandingUnknown},
		{"no account", stranger, true, spd.RevocationKnown, true, nil, ike.ReasonPeerDenied},
		{"no account, and none is wanted", stranger, false, spd.RevocationKnown, false, nil, ike.ReasonNone},
	} {
		t.Run(c.name, func(t *testing.T) {
			judge := machine(t, ca, "a.bank.example")
			judge.bundle = c.peer.bundle
			if c.heard {
				judge.hear(t, trust.Revocations{}, c.denied...)
			}
			got := BundleVerifier{Credentials: judge}.RejudgePeer(time.Now(), ike.Rejudge{
				IDType: pki.IDFQDN, ID: []byte(name), Chain: c.peer.chain, Revocation: c.level,
				Auth: spd.Auth{Method: spd.AuthCertificate, AccountMapping: c.mapping},
			})
			if got.Reason != c.want {
				t.Errorf("got %q (%s), want %q", got.Reason, got.Detail, c.want)
			}
		})
	}
}

// The names of CAs may have letters of every script, and are compared as DNs, not as texts.
func TestCANamesBeyondASCII(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Żółw CA", Organization: []string{"Söhne, Großbank + 銀行"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := trust.NewBundle(1, []*x509.Certificate{root}, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t, key, root, bundle}
	peer := f.join("gw.partner.example", time.Now().Add(time.Hour))
	for ca, want := range map[string]ike.Reason{
		`CN=Żółw CA,O=Söhne\, Großbank \+ 銀行`:                     ike.ReasonNone,
		`cn=żółw ca,o=SÖHNE\2C GROßBANK \2B 銀行`:                   ike.ReasonNone,
		`2.5.4.3=Żółw CA,organizationName=Söhne\, Großbank \+ 銀行`: ike.ReasonNone,
		`CN=Zolw CA,O=Söhne\, Großbank \+ 銀行`:                     ike.ReasonIssuerNotAllowed,
		`O=Söhne\, Großbank \+ 銀行,CN=Żółw CA`:                     ike.ReasonIssuerNotAllowed,
	} {
		got := BundleVerifier{Credentials: peer}.RejudgePeer(time.Now(), ike.Rejudge{
			IDType: pki.IDFQDN, ID: []byte("gw.partner.example"), Chain: peer.chain, Auth: spd.Auth{Method: spd.AuthCertificate, CA: ca},
		})
		if got.Reason != want {
			t.Errorf("%s: got %q (%s), want %q", ca, got.Reason, got.Detail, want)
		}
	}
}
