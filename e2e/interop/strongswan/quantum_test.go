package strongswan

import (
	"errors"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
)

// newer makes the partner a strongSwan 6.1, which knows ML-KEM.
func newer(t *testing.T) func(*charon.Config) {
	t.Helper()
	r, err := root.Open(t.Context(), root.StrongSwan)
	if errors.Is(err, root.ErrUnreachable) {
		t.Skipf("a newer strongSwan is needed: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func(c *charon.Config) { c.Root = r }
}

// TestPostQuantum negotiates ML-KEM beside another key exchange and alone, from either side, and rekeys Child SA and IKE SA
// from both under a TCP connection: the keys of each come from the same key exchanges again.
func TestPostQuantum(t *testing.T) {
	t.Parallel()
	shows(t, 57)
	for _, c := range []struct {
		name, ike, esp   string // of the node
		peerIKE, peerESP string // of strongSwan
		group            string // what strongSwan says of the outcome
		additional       []string
	}{
		{
			"x25519-mlkem768", "AES-GCM-256-SHA384-x25519+mlkem768", "ESP[AES-GCM-256]-x25519+mlkem768",
			"aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes256gcm16-x25519-ke1_mlkem768", "CURVE_25519", []string{"ML_KEM_768"},
		},
		{
			"mlkem768", "AES-GCM-256-SHA384-mlkem768", "ESP[AES-GCM-256]-mlkem768",
			"aes256gcm16-prfsha384-mlkem768", "aes256gcm16-mlkem768", "ML_KEM_768", nil,
		},
		{
			"ecp384-mlkem1024-x25519", "AES256-SHA256-ecp384+mlkem1024+x25519", "ESP[AES-GCM-128]-ecp384+mlkem1024+x25519",
			"aes256-sha256-ecp384-ke1_mlkem1024-ke2_x25519", "aes128gcm16-ecp384-ke1_mlkem1024-ke2_x25519", "ECP_384", []string{"ML_KEM_1024", "CURVE_25519"},
		},
	} {
		for _, initiator := range pair.Sides {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				strongSwan61 := newer(t)
				p := newPair(t)
				p.StartPeer(partner(c.peerIKE, c.peerESP, strongSwan61))
				p.StartNode(pair.Policy{IKE: c.ike, ESP: c.esp, PFS: true})
				capture := p.Capture()
				theirs, ours := p.Carries(initiator)
				if theirs.Group != c.group || !slices.Equal(theirs.Additional, c.additional) {
					t.Errorf("strongSwan says %+v", theirs)
				}
				if ours.IKE[0].Suite != c.ike {
					t.Errorf("the node says %+v", ours)
				}
				stop := p.Stream(pair.FromNode)
				for _, by := range pair.Sides {
					p.RekeyChild(by)
					theirs, ours := p.Agree(initiator)
					if child := theirs.Children[0]; child.Group != c.group || !slices.Equal(child.Additional, c.additional) {
						t.Errorf("rekeyed by the %s, strongSwan says of the child %+v", by, child)
					}
					if ours.Children[0].Suite != c.esp {
						t.Errorf("rekeyed by the %s, the node says of the child %+v", by, ours.Children[0])
					}
				}
				for _, by := range []pair.Side{initiator, initiator.Other()} {
					p.RekeyIKE(by)
					theirs, ours := p.Agree(by)
					if theirs.Group != c.group || !slices.Equal(theirs.Additional, c.additional) || ours.IKE[0].Suite != c.ike {
						t.Errorf("rekeyed by the %s, strongSwan says %+v, the node %+v", by, theirs, ours)
					}
				}
				p.RekeyChild(initiator) // with keys of the new IKE SA
				stop()
				p.Protected(capture)
			})
		}
	}
}

// TestPostQuantumPreference holds the node to the order of its policy: ML-KEM where the peer can, and nothing that the
// policy does not list where it cannot.
func TestPostQuantumPreference(t *testing.T) {
	t.Parallel()
	shows(t, 57)
	const hybrid, plain = "AES-GCM-256-SHA384-x25519+mlkem768", "AES-GCM-256-SHA384-x25519"
	const peerHybrid, peerPlain = "aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes256gcm16-prfsha384-x25519"
	for _, c := range []struct {
		name, ike, peerIKE string
		newer              bool
		want               string
	}{
		{"both-can", hybrid + " " + plain, peerHybrid + "," + peerPlain, true, hybrid},
		{"peer-prefers-plain", hybrid + " " + plain, peerPlain + "," + peerHybrid, true, hybrid},
		{"peer-cannot", hybrid + " " + plain, peerPlain, false, plain},
		{"policy-insists", hybrid, peerPlain, false, ""},
	} {
		for _, initiator := range pair.Sides {
			if c.name == "peer-prefers-plain" && initiator == pair.FromNode {
				continue // the responder decides
			}
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				change := func(*charon.Config) {}
				if c.newer {
					change = newer(t)
				}
				p := newPair(t)
				p.StartPeer(partner(c.peerIKE, pair.UsualPeerESP, change))
				p.StartNode(pair.Policy{IKE: c.ike})
				if c.want == "" {
					p.Refused(initiator)
					if ours := p.Ours(); len(ours.Children) > 0 {
						t.Errorf("the node has %+v", ours)
					}
					return
				}
				p.BringUp(initiator)
				p.Talk(pair.FromNode)
				if _, ours := p.Agree(initiator); ours.IKE[0].Suite != c.want {
					t.Errorf("the node says %+v, want %s", ours.IKE[0], c.want)
				}
			})
		}
	}
}
