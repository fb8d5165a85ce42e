package strongswan

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/identity"
	pkica "github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// join gives the node a certificate of the CA, as joining would leave it.
func (p *pair) join(ca *catest.CA) {
	p.t.Helper()
	cert := ca.Machine(p.t, catest.Identity(p.t, nodeName))
	store, err := identity.Open(filepath.Join(p.dir, "state"))
	if err != nil {
		p.t.Fatal(err)
	}
	credentials, err := identity.NewCredentials(time.Now(), signer(p.t, cert), cert.Certificate, ca.Bundle(), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := store.Save(credentials); err != nil {
		p.t.Fatal(err)
	}
}

func signer(t *testing.T, cert tls.Certificate) crypto.Signer {
	t.Helper()
	s, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		t.Fatalf("the key of %v does not sign", cert.Leaf.DNSNames)
	}
	return s
}

// certified lets strongSwan authenticate with a certificate of one CA and trust another, or the same one.
func certified(t *testing.T, issuer, trusted *catest.CA, dnsName string) func(*charon.Config) {
	t.Helper()
	cert := issuer.Machine(t, catest.Identity(t, dnsName))
	return authenticated(charon.Certificate{Name: "peer", Chain: cert.Certificate, Key: signer(t, cert)}, trusted, dnsName)
}

func authenticated(cert charon.Certificate, trusted *catest.CA, dnsName string) func(*charon.Config) {
	return func(c *charon.Config) {
		c.Certificates = []charon.Certificate{cert}
		c.Authorities = [][]byte{trusted.Authority.Root.Raw}
		c.Connections[0].Auth, c.Connections[0].Certificate = charon.AuthCertificate, "peer"
		c.Connections[0].LocalID = dnsName
	}
}

// connection changes a setting of strongSwan's connection.
func connection(key, value string) func(*charon.Config) {
	return func(c *charon.Config) { c.Connections[0].Settings[key] = value }
}

// child changes a setting of its child.
func child(key, value string) func(*charon.Config) {
	return func(c *charon.Config) { c.Connections[0].Children[0].Settings[key] = value }
}

// option changes a setting of the daemon.
func option(key, value string) func(*charon.Config) {
	return func(c *charon.Config) { c.Options[key] = value }
}

// TestCertificates authenticates both ends with certificates of the fleet's CA. An MTU that a whole chain exceeds makes
// both ends fragment their IKE messages (RFC 7383).
func TestCertificates(t *testing.T) {
	t.Parallel()
	shows(t, 25)
	for _, initiator := range []side{fromNode, fromPeer} {
		for _, fragments := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/fragments-%t", initiator, fragments), func(t *testing.T) {
				p := newPair(t)
				ca := catest.New(t)
				change := []func(*charon.Config){certified(t, ca, ca, peerName), option("fragment_size", "800")}
				if !fragments {
					change = append(change, connection("fragmentation", "no"))
				}
				p.startPeer(partner("aes256gcm16-prfsha384-ecp384", "aes256gcm16", change...))
				p.join(ca)
				p.startNode(policy{authenticate: byCertificate})
				capture := p.capture()
				p.bringUp(initiator)
				p.talk(fromNode)
				p.talk(fromPeer)
				w := p.protected(capture)
				theirs, ours := p.agree(initiator)
				if theirs.LocalID != peerName || theirs.RemoteID != nodeName {
					t.Errorf("strongSwan is %s and talks with %s", theirs.LocalID, theirs.RemoteID)
				}
				if ours.IKE[0].Peer != peerName {
					t.Errorf("the node talks with %q, want %q", ours.IKE[0].Peer, peerName)
				}
				if fragments != (w.fragmentsSent >= 2) || fragments != (w.fragmentsReceived >= 2) {
					t.Errorf("the node sent %d fragments and received %d; fragmentation is %t", w.fragmentsSent, w.fragmentsReceived, fragments)
				}
			})
		}
	}
}

// TestRSA lets strongSwan authenticate with an RSA key, by either padding of RFC 7427.
func TestRSA(t *testing.T) {
	t.Parallel()
	shows(t, 5)
	ca := catest.New(t)
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	profile, err := pkica.NewProfile(pkica.Machine, pkica.ProfileConfig{})
	if err != nil {
		t.Fatal(err)
	}
	issued := ca.Sign(t, profile, key, catest.Identity(t, peerName))
	for _, c := range []struct{ name, pss, scheme string }{{"pkcs1", "no", "RSA_EMSA_PKCS1_SHA2"}, {"pss", "yes", "RSA_EMSA_PSS"}} {
		for _, initiator := range []side{fromNode, fromPeer} {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				cert := charon.Certificate{Name: "peer", Chain: issued.Chain(), Key: key}
				p.startPeer(partner(usualIKE, usualESP, authenticated(cert, ca, peerName), option("rsa_pss", c.pss)))
				p.join(ca)
				p.startNode(policy{authenticate: byCertificate})
				p.bringUp(initiator)
				p.talk(fromNode)
				p.talk(fromPeer)
				p.logged("authentication of '" + peerName + "' (myself) with " + c.scheme)
				p.agree(initiator)
			})
		}
	}
}
