package strongswan

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/localapi"
	pkica "github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// newKey makes a key of the kind that the name says.
func newKey(t *testing.T, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "rsa2048":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "rsa4096":
		key, err = rsa.GenerateKey(rand.Reader, 4096)
	case "p256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "p384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "p521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		t.Fatalf("no such kind of key: %s", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issued gives a machine of the CA a certificate for a key of the kind.
func issued(t *testing.T, ca *catest.CA, kind, dnsName string) charon.Certificate {
	t.Helper()
	profile, err := pkica.NewProfile(pkica.Machine, pkica.ProfileConfig{})
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t, kind)
	return charon.Certificate{Name: "peer", Chain: ca.Sign(t, profile, key, catest.Identity(t, dnsName)).Chain(), Key: key}
}

// TestSignatures authenticates the two ends by keys of every kind, also of different kinds, with the hashes that both
// announce (RFC 7427, RFC 8420).
func TestSignatures(t *testing.T) {
	t.Parallel()
	shows(t, 3, 4, 5, 6, 7)
	for _, c := range []struct{ node, peer string }{
		{"p256", "rsa2048"}, {"rsa2048", "p256"}, {"rsa4096", "rsa4096"}, {"p384", "p256"}, {"p256", "p384"},
		{"p521", "p521"}, {"ed25519", "ed25519"}, {"ed25519", "rsa2048"},
	} {
		for _, initiator := range pair.Sides {
			t.Run(fmt.Sprintf("node-%s-peer-%s/%s", c.node, c.peer, initiator), func(t *testing.T) {
				p := newPair(t)
				ca := catest.New(t)
				p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP, pair.Authenticated(issued(t, ca, c.peer, pair.PeerName), ca, pair.PeerName)))
				p.JoinWith(issued(t, ca, c.node, pair.NodeName), ca.Bundle())
				p.StartNode(pair.Policy{Authenticate: pair.ByCertificate})
				p.Carries(initiator)
				p.Logged("authentication of '" + pair.NodeName + "' with " + map[string]string{
					"rsa2048": "RSA_EMSA_PSS", "rsa4096": "RSA_EMSA_PSS",
					"p256": "ECDSA_WITH_SHA256_DER", "p384": "ECDSA_WITH_SHA384_DER", "p521": "ECDSA_WITH_SHA512_DER", "ed25519": "ED25519",
				}[c.node])
			})
		}
	}
}

// TestSignaturesOfOldPeers meets a peer that does not know RFC 7427: the methods of RFC 4754, which fix a SHA-2 hash, are
// accepted and used; RSA by method 1, which means SHA-1, is not.
func TestSignaturesOfOldPeers(t *testing.T) {
	t.Parallel()
	shows(t, 4)
	old := pair.Option("signature_authentication", "no")
	for _, kind := range []string{"p256", "p384", "p521", "rsa2048"} {
		for _, initiator := range pair.Sides {
			t.Run(kind+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				ca := catest.New(t)
				p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP, pair.Authenticated(issued(t, ca, kind, pair.PeerName), ca, pair.PeerName), old))
				node := kind
				if kind == "rsa2048" {
					node = "p256"
				}
				p.JoinWith(issued(t, ca, node, pair.NodeName), ca.Bundle())
				p.StartNode(pair.Policy{Authenticate: pair.ByCertificate})
				if kind != "rsa2048" {
					p.BringUp(initiator)
					p.Talk(pair.FromNode)
					p.Agree(initiator)
					return
				}
				p.Refused(initiator)
				p.Fails(pair.PeerOuter, ike.ReasonAuthFailed)
			})
		}
	}
}

// TestPostquantumPresharedKeys mixes a key into those of the IKE SA (RFC 8784), where both ends have it.
func TestPostquantumPresharedKeys(t *testing.T) {
	t.Parallel()
	shows(t, 19)
	const name = "bank-ppk"
	key := []byte("0123456789abcdef0123456789abcdef")
	theirs := func(key []byte, required string) func(*charon.Config) {
		return func(c *charon.Config) {
			c.Connections[0].Settings["ppk_id"], c.Connections[0].Settings["ppk_required"] = name, required
			if key != nil {
				c.Sections += fmt.Sprintf("\nsecrets {\n  ppk-bank {\n    id = %s\n    secret = 0x%x\n  }\n}\n", name, key)
			}
		}
	}
	none := func(*charon.Config) {}
	for _, c := range []struct {
		name, node string // further fields of the node's authentication
		peer       func(*charon.Config)
		mixed      bool
		want       []ike.Reason // nil: it comes up
	}{
		{"required by both", ", ppkRef: " + name, theirs(key, "yes"), true, nil},
		{"optional for both", ", ppkRef: " + name + ", ppkOptional: true", theirs(key, "no"), true, nil},
		{"the peer has none", ", ppkRef: " + name + ", ppkOptional: true", none, false, nil},
		{"the node has none", "", theirs(key, "no"), false, nil},
		{"the node requires it", ", ppkRef: " + name, none, false, []ike.Reason{ike.ReasonNoPPK}},
		{"another key", ", ppkRef: " + name, theirs([]byte("fedcba9876543210fedcba9876543210"), "yes"), false,
			[]ike.Reason{ike.ReasonAuthFailed, ike.ReasonAuthRefused}},
	} {
		for _, initiator := range pair.Sides {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				p.Secret(name, key)
				p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP, c.peer))
				p.StartNode(pair.Policy{Authenticate: pair.ByPSK[:len(pair.ByPSK)-1] + c.node + "}"})
				if c.want != nil {
					p.Refused(initiator)
					p.Fails(pair.PeerOuter, c.want...)
					return
				}
				p.Carries(initiator)
				if said, err := p.Charon.Logged("using PPK for PPK_ID '" + name + "'"); err != nil || said != c.mixed {
					t.Errorf("strongSwan says %t that it uses the key, want %t (%v)", said, c.mixed, err)
				}
			})
		}
	}
}

// TestRightOfSeveralCertificates lets a peer that has two names, each with a certificate of its own, choose by the IDr
// that the node asks for.
func TestRightOfSeveralCertificates(t *testing.T) {
	t.Parallel()
	shows(t, 10)
	const second = "second.bank.example"
	for _, name := range []string{pair.PeerName, second} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			ca := catest.New(t)
			config := partner(pair.UsualPeerIKE, pair.UsualPeerESP, pair.Authenticated(issued(t, ca, "p256", pair.PeerName), ca, pair.PeerName))
			other := config.Connections[0]
			other.Name, other.LocalID, other.Certificate = "second", second, "second"
			cert := issued(t, ca, "rsa2048", second)
			cert.Name = "second"
			config.Certificates = append(config.Certificates, cert)
			config.Connections = append(config.Connections, other)
			p.StartPeer(config)
			p.Join(ca)
			p.StartNode(pair.Policy{Authenticate: `{method: certificate, remoteID: "fqdn:` + name + `"}`})
			p.Talk(pair.FromNode)
			if ours := p.Ours(); len(ours.IKE) != 1 || ours.IKE[0].Peer != name {
				t.Errorf("the node has %+v, want an IKE SA with %s", ours.IKE, name)
			}
		})
	}
}

// TestFormsOfIdentity authenticates by preshared key under identities of every form, and lets strongSwan begin without
// saying whom it wants to talk with.
func TestFormsOfIdentity(t *testing.T) {
	t.Parallel()
	shows(t, 17)
	for _, c := range []struct{ name, ours, theirs, node, peer string }{
		{"address", "ip:" + pair.NodeOuter.String(), "ip:" + pair.PeerOuter.String(), pair.NodeOuter.String(), pair.PeerOuter.String()},
		{"mail", "email:node@bank.example", "email:peer@bank.example", "node@bank.example", "peer@bank.example"},
		{"no IDr", "fqdn:" + pair.NodeName, "fqdn:" + pair.PeerName, "%any", pair.PeerName},
	} {
		for _, initiator := range pair.Sides {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := ready(t, pair.Policy{Authenticate: fmt.Sprintf(`{method: psk, secretRef: %s, localID: "%s", remoteID: "%s"}`, pair.PSKName, c.ours, c.theirs)}, func(config *charon.Config) {
					config.Connections[0].LocalID, config.Connections[0].RemoteID = c.peer, c.node
					config.Secrets = []charon.Secret{{Key: pair.PSK}}
				})
				p.Carries(initiator)
			})
		}
	}
}

// TestOneMethodBothWays refuses a peer that authenticates by another method than the rule, although it would take the
// rule's from the node.
func TestOneMethodBothWays(t *testing.T) {
	shows(t, 16)
	p := newPair(t)
	ca := catest.New(t)
	config := partner(pair.UsualPeerIKE, pair.UsualPeerESP, pair.Authenticated(issued(t, ca, "p256", pair.PeerName), ca, pair.PeerName))
	config.Connections[0].RemoteSettings = map[string]string{"auth": "psk"}
	p.StartPeer(config)
	p.Join(ca)
	p.StartNode(pair.Policy{})
	p.Refused(pair.FromPeer)
	p.Fails(pair.PeerOuter, ike.ReasonAuthFailed)
}

// TestAuthenticationLifetime lets the node's policy end authentications after a while (RFC 4478): as initiator it makes a
// new one before, under a connection that lives through it; as responder it tells strongSwan, which does the same.
func TestAuthenticationLifetime(t *testing.T) {
	t.Parallel()
	shows(t, 38)
	for _, initiator := range pair.Sides {
		t.Run(initiator.String(), func(t *testing.T) {
			p := newPair(t)
			ca := catest.New(t)
			p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP, pair.Authenticated(issued(t, ca, "p256", pair.PeerName), ca, pair.PeerName), pair.Option("make_before_break", "yes")))
			p.Join(ca)
			p.StartNode(pair.Policy{Authenticate: pair.ByCertificate, KeyExchange: "  reauthentication: 15s\n"})
			capture := p.Capture()
			p.BringUp(initiator)
			stop := p.Stream(pair.FromNode)
			before := p.Ours()
			p.settled(localapi.Associations{IKE: before.IKE, Children: before.Children})
			stop()
			if initiator == pair.FromPeer {
				p.Logged("received AUTH_LIFETIME of 1")
			}
			p.Talk(pair.FromPeer)
			if w := p.SentNothingClear(capture); w.Clear != 0 {
				t.Errorf("on the wire: %+v, want nothing in clear", w)
			}
		})
	}
}
