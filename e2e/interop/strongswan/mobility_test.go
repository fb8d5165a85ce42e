package strongswan

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// moves gives one end another address while a TCP connection goes through the tunnel from there: the IKE SA moves (RFC
// 4555), strongSwan in user space rekeys the Child SA instead of moving it, and the connection lives on. told is the end's
// address of the IKE SA, as the node tells it.
func moves(t *testing.T, side pair.Side, elsewhere string, told func(localapi.IKE) string) peers {
	t.Helper()
	p, capture := established(t, side, pair.Policy{})
	before := p.Ours()
	stop := p.Stream(side)
	p.renumber(side, netip.MustParseAddr(elsewhere))
	p.Until("the IKE SA has moved", func() (bool, error) {
		now := p.Ours()
		return len(now.IKE) == 1 && strings.HasPrefix(told(now.IKE[0]), elsewhere), nil
	})
	p.Talk(side)
	stop()
	if now := p.Ours(); len(now.IKE) != 1 || now.IKE[0].SPI != before.IKE[0].SPI {
		t.Errorf("the node has %+v, want the IKE SA %v", now.IKE, before.IKE[0].SPI)
	}
	p.SentNothingClear(capture)
	return p
}

// renumber gives an end another outer address instead of the one that it had.
func (p peers) renumber(side pair.Side, address netip.Addr) {
	p.T.Helper()
	host, old, other := p.Node, pair.NodeOuter, pair.PeerOuter
	inner, net := pair.NodeInner, pair.PeerNet
	if side == pair.FromPeer {
		host, old, other, inner, net = p.Peer, other, old, pair.PeerInner, pair.NodeNet
	}
	for _, command := range []string{
		"sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1",
		"ip address add " + address.String() + "/24 dev eth0",
		"ip address del " + old.String() + "/24 dev eth0",
		"ip route replace " + net.String() + " via " + other.String() + " src " + inner.String(),
	} {
		p.Run(host, strings.Fields(command)...)
	}
}

// TestMobileNode moves the node.
func TestMobileNode(t *testing.T) {
	shows(t, 53)
	moves(t, pair.FromNode, "10.9.0.3", func(s localapi.IKE) string { return s.Local })
}

// TestMobilePeer moves strongSwan: it tells so, returns the cookie that the node asks for there (RFC 4555 3.7), and the
// tunnel goes on at the new address, where no rule of the node names it.
func TestMobilePeer(t *testing.T) {
	shows(t, 53)
	moves(t, pair.FromPeer, "10.9.0.4", func(s localapi.IKE) string { return s.Remote }).Logged("COOKIE2")
}
