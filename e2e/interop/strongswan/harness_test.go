package strongswan

import (
	"net/netip"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
)

// These tests wait for daemons most of the time: more of them than there are processors run side by pair.Side.
func TestMain(m *testing.M) { pair.Main(m, 8) }

// otherNet is a network that no policy names.
var otherNet = netip.MustParsePrefix("10.3.0.0/24")

// peers are a node of ours, and a strongSwan with ESP in user space.
type peers struct{ *pair.Pair }

func newPair(t *testing.T) peers {
	t.Helper()
	t.Parallel()
	return peers{pair.WithHost(t, "bwio-")}
}

// StartNode starts the node's daemon, for a peer that carries ESP in UDP only.
func (p peers) StartNode(policy pair.Policy) {
	p.T.Helper()
	policy.UDP = true
	p.Pair.StartNode(policy)
}

// ready starts both with the usual proposals.
func ready(t *testing.T, policy pair.Policy, change ...func(*charon.Config)) peers {
	t.Helper()
	p := newPair(t)
	p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP, change...))
	p.StartNode(policy)
	return p
}

// established lets a side negotiate as well, and tells what was on the wire since before.
func established(t *testing.T, initiator pair.Side, policy pair.Policy, change ...func(*charon.Config)) (peers, *lab.Capture) {
	t.Helper()
	p := ready(t, policy, change...)
	capture := p.Capture()
	p.BringUp(initiator)
	return p, capture
}

// partner is strongSwan's side of a tunnel between the networks behind the ends.
func partner(ike, esp string, change ...func(*charon.Config)) charon.Config {
	return pair.Partner(pair.Policy{}, ike, esp, change...)
}
