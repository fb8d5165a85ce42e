package strongswan

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	pkica "github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// TestCertificates authenticates both ends with certificates of the fleet's CA. An MTU that a whole chain exceeds makes
// both ends fragment their IKE messages (RFC 7383).
func TestCertificates(t *testing.T) {
	t.Parallel()
	shows(t, 25)
	for _, initiator := range pair.Sides {
		for _, fragments := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/fragments-%t", initiator, fragments), func(t *testing.T) {
				p := newPair(t)
				ca := catest.New(t)
				change := []func(*charon.Config){pair.Certified(t, ca, ca, pair.PeerName), pair.Option("fragment_size", "800")}
				if !fragments {
					change = append(change, pair.Connection("fragmentation", "no"))
				}
				p.StartPeer(partner("aes256gcm16-prfsha384-ecp384", "aes256gcm16", change...))
				p.Join(ca)
				p.StartNode(pair.Policy{Authenticate: pair.ByCertificate})
				capture := p.Capture()
				p.BringUp(initiator)
				p.Talk(pair.FromNode)
				p.Talk(pair.FromPeer)
				w := p.Protected(capture)
				theirs, ours := p.Agree(initiator)
				if theirs.LocalID != pair.PeerName || theirs.RemoteID != pair.NodeName {
					t.Errorf("strongSwan is %s and talks with %s", theirs.LocalID, theirs.RemoteID)
				}
				if ours.IKE[0].Peer != pair.PeerName {
					t.Errorf("the node talks with %q, want %q", ours.IKE[0].Peer, pair.PeerName)
				}
				if fragments != (w.FragmentsSent >= 2) || fragments != (w.FragmentsReceived >= 2) {
					t.Errorf("the node sent %d fragments and received %d; fragmentation is %t", w.FragmentsSent, w.FragmentsReceived, fragments)
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
	issued := ca.Sign(t, profile, key, catest.Identity(t, pair.PeerName))
	for _, c := range []struct{ name, pss, scheme string }{{"pkcs1", "no", "RSA_EMSA_PKCS1_SHA2"}, {"pss", "yes", "RSA_EMSA_PSS"}} {
		for _, initiator := range pair.Sides {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				cert := charon.Certificate{Name: "peer", Chain: issued.Chain(), Key: key}
				p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP, pair.Authenticated(cert, ca, pair.PeerName), pair.Option("rsa_pss", c.pss)))
				p.Join(ca)
				p.StartNode(pair.Policy{Authenticate: pair.ByCertificate})
				p.BringUp(initiator)
				p.Talk(pair.FromNode)
				p.Talk(pair.FromPeer)
				p.Logged("authentication of '" + pair.PeerName + "' (myself) with " + c.scheme)
				p.Agree(initiator)
			})
		}
	}
}
