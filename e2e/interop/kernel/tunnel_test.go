package kernel

import (
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// TestTunnel protects what the networks behind the two ends say to each other, packets that are larger than
// the wire carries among them, before and after a rekey.
func TestTunnel(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy pair.Policy
	}{
		{"psk", pair.Policy{}},
		{"certificates", pair.Policy{Authenticate: pair.ByCertificate, PFS: true}},
		{"udp", pair.Policy{UDP: true}},
	} {
		for _, initiator := range pair.Sides {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				esp := "aes256gcm16-esn-noesn"
				if c.policy.PFS {
					esp = "aes256gcm16-ecp384-esn-noesn"
				}
				var change []func(*charon.Config)
				if c.policy.Authenticate == pair.ByCertificate {
					ca := catest.New(t)
					p.Join(ca)
					change = append(change, pair.Certified(t, ca, ca, pair.PeerName))
				}
				p.StartPeer(pair.Partner(c.policy, "", esp, change...))
				p.StartNode(c.policy)
				capture := p.Capture()
				p.BringUp(initiator)
				p.Talk(pair.FromNode)
				p.Talk(pair.FromPeer)
				p.Ping(56, 3000)
				p.RekeyChild(initiator.Other())
				p.Talk(initiator.Other())
				w := p.Protected(capture)
				theirs, ours := p.Agree(initiator)
				if theirs.Children[0].Mode != "TUNNEL" || ours.Children[0].Mode != "tunnel" ||
					theirs.Children[0].Encapsulated != c.policy.UDP || (w.Encap != 0) != c.policy.UDP || (w.ESP != 0) == c.policy.UDP {
					t.Errorf("strongSwan says %+v, the node says %+v, on the wire %+v; want tunnel mode, in UDP: %t", theirs.Children[0], ours.Children[0], w, c.policy.UDP)
				}
			})
		}
	}
}
