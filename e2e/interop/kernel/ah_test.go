package kernel

import (
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/ike"
)

// TestAH meets a peer that would only authenticate (RFC 4302). AH leaves payload readable, and no policy can ask for it:
// whoever begins, the Child SA is refused, and nothing that the rule protects leaves the node.
func TestAH(t *testing.T) {
	shows(t, 49)
	for name, policy := range map[string]pair.Policy{"transport": {Transport: true}, "tunnel": {}} {
		for _, initiator := range pair.Sides {
			t.Run(name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				p.StartPeer(pair.Partner(policy, "", "", pair.Child("ah_proposals", "sha256"), func(c *charon.Config) {
					c.Connections[0].Children[0].Proposals = nil
				}))
				p.StartNode(policy)
				capture := p.Capture()
				if initiator == pair.FromNode {
					p.Silent(pair.FromNode)
				} else if err := p.Charon.Initiate(p.Ctx, pair.NetName); err == nil {
					t.Error("strongSwan says that it has the child")
				} else {
					p.Logged("received NO_PROPOSAL_CHOSEN notify")
				}
				p.Silent(pair.FromPeer)
				p.Fails(pair.PeerOuter, ike.ReasonNoProposal)
				if children := p.Ours().Children; len(children) != 0 {
					t.Errorf("the node has %+v, want no child", children)
				}
				if states := p.InGuest("ip", "xfrm", "state"); states != "" {
					t.Errorf("the guest's kernel has SAs, want none:\n%s", states)
				}
				frames, err := capture.Stop()
				if err != nil {
					t.Fatal(err)
				}
				if w := pair.Look(frames); w.IKE == 0 || w.ClearSent != 0 || w.Markers != 0 || w.ESP+w.Encap != 0 {
					t.Errorf("on the wire: %+v, want IKE, nothing in clear from the node and no ESP", w)
				}
			})
		}
	}
}
