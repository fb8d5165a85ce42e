package strongswan

import (
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
)

// TestChildless makes IKE SAs without a Child SA (RFC 6023) by the wish of either side; the Child SA comes with a key
// exchange of its own.
func TestChildless(t *testing.T) {
	t.Parallel()
	shows(t, 30)
	for _, c := range []struct {
		name      string
		policy    pair.Policy
		peer      func(*charon.Config)
		from      pair.Side
		childless bool
	}{
		{"peer-insists", pair.Policy{}, pair.Connection("childless", "force"), pair.FromPeer, true},
		{"node-prefers", pair.Policy{KeyExchange: "  childless: prefer\n"}, pair.Connection("childless", "allow"), pair.FromNode, true},
		{"node-prefers-peer-insists", pair.Policy{KeyExchange: "  childless: prefer\n"}, pair.Connection("childless", "force"), pair.FromNode, true},
		{"node-prefers-peer-never", pair.Policy{KeyExchange: "  childless: prefer\n"}, pair.Connection("childless", "never"), pair.FromNode, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, capture := established(t, c.from, c.policy, c.peer)
			p.Talk(pair.FromNode)
			p.Talk(pair.FromPeer)
			p.Protected(capture)
			p.Agree(c.from)
			if created := p.NodeTold("CREATE_CHILD_SA"); created != c.childless {
				t.Errorf("the Child SA came by CREATE_CHILD_SA: %t, want %t", created, c.childless)
			}
		})
	}
	t.Run("peer-insists-node-does-not", func(t *testing.T) {
		p := ready(t, pair.Policy{KeyExchange: "  childless: never\n"}, pair.Connection("childless", "force"))
		p.Quiet()
		p.Refused(pair.FromPeer)
		if ours := p.Ours(); len(ours.Children) != 0 {
			t.Errorf("the node has %+v", ours.Children)
		}
	})
}
