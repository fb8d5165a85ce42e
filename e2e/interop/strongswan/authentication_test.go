package strongswan

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/localapi"
	pkica "github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/trust"
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

// joinWith gives the node a certificate, and what it trusts.
func (p *pair) joinWith(cert charon.Certificate, bundle trust.Bundle) {
	p.t.Helper()
	store, err := identity.Open(filepath.Join(p.dir, "state"))
	if err != nil {
		p.t.Fatal(err)
	}
	credentials, err := identity.NewCredentials(time.Now(), cert.Key, cert.Chain, bundle, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := store.Save(credentials); err != nil {
		p.t.Fatal(err)
	}
}

// secret puts a further key into the node's secrets.
func (p *pair) secret(name string, content []byte) {
	p.t.Helper()
	dir := filepath.Join(p.dir, "state", "secrets")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		p.t.Fatal(err)
	}
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
		for _, initiator := range []side{fromNode, fromPeer} {
			t.Run(fmt.Sprintf("node-%s-peer-%s/%s", c.node, c.peer, initiator), func(t *testing.T) {
				p := newPair(t)
				ca := catest.New(t)
				p.startPeer(partner(usualIKE, usualESP, authenticated(issued(t, ca, c.peer, peerName), ca, peerName)))
				p.joinWith(issued(t, ca, c.node, nodeName), ca.Bundle())
				p.startNode(policy{authenticate: byCertificate})
				capture := p.capture()
				p.bringUp(initiator)
				p.talk(fromNode)
				p.talk(fromPeer)
				p.protected(capture)
				p.agree(initiator)
				p.logged("authentication of '" + nodeName + "' with " + map[string]string{
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
	old := option("signature_authentication", "no")
	for _, kind := range []string{"p256", "p384", "p521", "rsa2048"} {
		for _, initiator := range []side{fromNode, fromPeer} {
			t.Run(kind+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				ca := catest.New(t)
				p.startPeer(partner(usualIKE, usualESP, authenticated(issued(t, ca, kind, peerName), ca, peerName), old))
				node := kind
				if kind == "rsa2048" {
					node = "p256"
				}
				p.joinWith(issued(t, ca, node, nodeName), ca.Bundle())
				p.startNode(policy{authenticate: byCertificate})
				if kind != "rsa2048" {
					p.bringUp(initiator)
					p.talk(fromNode)
					p.agree(initiator)
					return
				}
				if initiator == fromNode {
					if err := p.exchange(fromNode, 3*time.Second); err == nil {
						t.Error("an exchange from the node succeeds")
					}
				} else if err := p.charon.Initiate(p.ctx, netName); err == nil {
					t.Error("strongSwan says that it has the child")
				}
				p.fails([]ike.Reason{ike.ReasonAuthFailed})
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
		for _, initiator := range []side{fromNode, fromPeer} {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				p.secret(name, key)
				p.startPeer(partner(usualIKE, usualESP, c.peer))
				p.startNode(policy{authenticate: byPSK[:len(byPSK)-1] + c.node + "}"})
				if c.want != nil {
					if initiator == fromNode {
						if err := p.exchange(fromNode, 4*time.Second); err == nil {
							t.Error("an exchange from the node succeeds")
						}
					} else if err := p.charon.Initiate(p.ctx, netName); err == nil {
						t.Error("strongSwan says that it has the child")
					}
					p.fails(c.want)
					return
				}
				capture := p.capture()
				p.bringUp(initiator)
				p.talk(fromNode)
				p.talk(fromPeer)
				p.protected(capture)
				p.agree(initiator)
				if said, err := p.charon.Logged("using PPK for PPK_ID '" + name + "'"); err != nil || said != c.mixed {
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
	for _, name := range []string{peerName, second} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			ca := catest.New(t)
			config := partner(usualIKE, usualESP, authenticated(issued(t, ca, "p256", peerName), ca, peerName))
			other := config.Connections[0]
			other.Name, other.LocalID, other.Certificate = "second", second, "second"
			cert := issued(t, ca, "rsa2048", second)
			cert.Name = "second"
			config.Certificates = append(config.Certificates, cert)
			config.Connections = append(config.Connections, other)
			p.startPeer(config)
			p.join(ca)
			p.startNode(policy{authenticate: `{method: certificate, remoteID: "fqdn:` + name + `"}`})
			p.talk(fromNode)
			if ours := p.oursNow(); len(ours.IKE) != 1 || ours.IKE[0].Peer != name {
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
		{"address", "ip:" + nodeOuter.String(), "ip:" + peerOuter.String(), nodeOuter.String(), peerOuter.String()},
		{"mail", "email:node@bank.example", "email:peer@bank.example", "node@bank.example", "peer@bank.example"},
		{"no IDr", "fqdn:" + nodeName, "fqdn:" + peerName, "%any", peerName},
	} {
		for _, initiator := range []side{fromNode, fromPeer} {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				p.startPeer(partner(usualIKE, usualESP, func(config *charon.Config) {
					config.Connections[0].LocalID, config.Connections[0].RemoteID = c.peer, c.node
					config.Secrets = []charon.Secret{{Key: psk}}
				}))
				p.startNode(policy{authenticate: fmt.Sprintf(`{method: psk, secretRef: %s, localID: "%s", remoteID: "%s"}`, pskName, c.ours, c.theirs)})
				p.bringUp(initiator)
				p.talk(fromNode)
				p.talk(fromPeer)
				p.agree(initiator)
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
	config := partner(usualIKE, usualESP, authenticated(issued(t, ca, "p256", peerName), ca, peerName))
	config.Connections[0].RemoteSettings = map[string]string{"auth": "psk"}
	p.startPeer(config)
	p.join(ca)
	p.startNode(policy{})
	if err := p.charon.Initiate(p.ctx, netName); err == nil {
		t.Error("strongSwan says that it has the child")
	}
	p.fails([]ike.Reason{ike.ReasonAuthFailed})
}

// TestAuthenticationLifetime lets the node's policy end authentications after a while (RFC 4478): as initiator it makes a
// new one before, under a connection that lives through it; as responder it tells strongSwan, which does the same.
func TestAuthenticationLifetime(t *testing.T) {
	t.Parallel()
	shows(t, 38)
	for _, initiator := range []side{fromNode, fromPeer} {
		t.Run(initiator.String(), func(t *testing.T) {
			p := newPair(t)
			ca := catest.New(t)
			p.startPeer(partner(usualIKE, usualESP, authenticated(issued(t, ca, "p256", peerName), ca, peerName), option("make_before_break", "yes")))
			p.join(ca)
			p.startNode(policy{authenticate: byCertificate, exchange: "  reauthentication: 15s\n"})
			capture := p.capture()
			p.bringUp(initiator)
			stop := p.stream(fromNode)
			before := p.oursNow()
			p.settled(localapi.Associations{IKE: before.IKE, Children: before.Children})
			stop()
			if initiator == fromPeer {
				p.logged("received AUTH_LIFETIME of 1")
			}
			p.talk(fromPeer)
			if w := p.sentNothingClear(capture); w.clear != 0 {
				t.Errorf("on the wire: %+v, want nothing in clear", w)
			}
		})
	}
}
