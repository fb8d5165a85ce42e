package strongswan

import (
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
)

// TestChildless makes IKE SAs without a Child SA (RFC 6023) by the wish of either side; the Child SA comes with a key
// exchange of its own.
func TestChildless(t *testing.T) {
	t.Parallel()
	shows(t, 30)
	for _, c := range []struct {
		name      string
		policy    policy
		peer      func(*charon.Config)
		from      side
		childless bool
	}{
		{"peer-insists", policy{}, connection("childless", "force"), fromPeer, true},
		{"node-prefers", policy{exchange: "  childless: prefer\n"}, connection("childless", "allow"), fromNode, true},
		{"node-prefers-peer-insists", policy{exchange: "  childless: prefer\n"}, connection("childless", "force"), fromNode, true},
		{"node-prefers-peer-never", policy{exchange: "  childless: prefer\n"}, connection("childless", "never"), fromNode, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			p.startPeer(partner(usualIKE, usualESP, c.peer))
			p.startNode(c.policy)
			capture := p.capture()
			p.bringUp(c.from)
			p.talk(fromNode)
			p.talk(fromPeer)
			p.protected(capture)
			p.agree(c.from)
			if created := p.nodeTold("CREATE_CHILD_SA"); created != c.childless {
				t.Errorf("the Child SA came by CREATE_CHILD_SA: %t, want %t", created, c.childless)
			}
		})
	}
	t.Run("peer-insists-node-does-not", func(t *testing.T) {
		p := newPair(t)
		p.startPeer(partner(usualIKE, usualESP, connection("childless", "force")))
		p.startNode(policy{exchange: "  childless: never\n"})
		p.silent()
		if err := p.charon.Initiate(p.ctx, netName); err == nil {
			t.Error("strongSwan says that it has the child")
		}
		if ours := p.oursNow(); len(ours.Children) != 0 {
			t.Errorf("the node has %+v", ours.Children)
		}
	})
}
