package strongswan

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/node/ike"
)

// TestPortSelectors meets a strongSwan that protects one protocol, or some ports, of what the node's tunnel covers (RFC 7296
// 2.9, 3.13.1). The Child SA is for those, and what it leaves out goes nowhere.
func TestPortSelectors(t *testing.T) {
	t.Parallel()
	shows(t, 45)
	for _, c := range []struct {
		name, local, remote string // of strongSwan
		want                string // as the node tells its peer's pair.Side
	}{
		{"port", "10.2.0.0/24[tcp/7007]", "10.1.0.0/24[tcp]", "10.2.0.0/24 protocol 6 port 7007"},
		{"range", "10.2.0.0/24[tcp/7000-7010]", "10.1.0.0/24[tcp]", "10.2.0.0/24 protocol 6 port 7000-7010"},
		{"protocol", "10.2.0.0/24[tcp]", "10.1.0.0/24[tcp]", "10.2.0.0/24 protocol 6"},
	} {
		for _, initiator := range pair.Sides {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p, capture := established(t, initiator, pair.Policy{}, pair.Child("local_ts", c.local), pair.Child("remote_ts", c.remote))
				p.Talk(pair.FromNode)
				p.Protected(capture)
				_, ours := p.Agree(initiator)
				if got := ours.Children[0].RemoteTS; !slices.Equal(got, []string{c.want}) {
					t.Errorf("the node has the peer's side as %q, want %q", got, c.want)
				}
			})
		}
	}
	t.Run("left-out", func(t *testing.T) {
		p := ready(t, pair.Policy{}, pair.Child("local_ts", "10.2.0.0/24[udp]"), pair.Child("remote_ts", "10.1.0.0/24[udp]"))
		p.Quiet()
		p.Silent(pair.FromNode)
		p.Fails(pair.PeerOuter, ike.ReasonTSUnacceptable)
	})
}

// The addresses of IPv6, outer and inner.
var (
	nodeInner6 = netip.MustParseAddr("fd01::1")
	peerInner6 = netip.MustParseAddr("fd02::1")
	nodeNet6   = netip.MustParsePrefix("fd01::/64")
	peerNet6   = netip.MustParsePrefix("fd02::/64")
)

// addIPv6 gives both hosts the addresses of IPv6, and routes in clear.
func (p peers) addIPv6() {
	p.T.Helper()
	for _, h := range []struct {
		host              *lab.Host
		outer, inner, via netip.Addr
		other             netip.Prefix
	}{{p.Node, pair.NodeOuter6, nodeInner6, pair.PeerOuter6, peerNet6}, {p.Peer, pair.PeerOuter6, peerInner6, pair.NodeOuter6, nodeNet6}} {
		if err := h.host.AddAddress("eth0", netip.PrefixFrom(h.outer, 64)); err != nil {
			p.T.Fatal(err)
		}
		if err := h.host.AddAddress("lo", netip.PrefixFrom(h.inner, 128)); err != nil {
			p.T.Fatal(err)
		}
		p.Run(h.host, "ip", "-6", "route", "add", h.other.String(), "via", h.via.String(), "src", h.inner.String())
	}
}

// TestFamilies carries either family of addresses inside of either.
func TestFamilies(t *testing.T) {
	t.Parallel()
	shows(t, 56)
	for _, c := range []struct {
		name           string
		outer6, inner6 bool
	}{{"6-in-6", true, true}, {"4-in-6", true, false}, {"6-in-4", false, true}} {
		for _, initiator := range pair.Sides {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				p.addIPv6()
				rules := pair.Policy{}
				config := partner(pair.UsualPeerIKE, pair.UsualPeerESP)
				conn := &config.Connections[0]
				path := pair.Inner
				if c.outer6 {
					conn.Local, conn.Remote, rules.Tunnel = pair.PeerOuter6, pair.NodeOuter6, pair.PeerOuter6.String()
				}
				if c.inner6 {
					conn.Children[0].LocalTS, conn.Children[0].RemoteTS = peerNet6, nodeNet6
					rules.Local, rules.Remote = nodeNet6.String(), peerNet6.String()
					path = pair.Path{Node: nodeInner6, Peer: peerInner6}
				}
				p.StartPeer(config)
				p.StartNode(rules)
				p.Path = path
				capture := p.Capture()
				p.BringUp(initiator)
				p.Talk(pair.FromNode)
				p.Protected(capture)
				_, ours := p.Agree(initiator)
				if got := netip.MustParseAddrPort(ours.Children[0].Remote).Addr(); got.Is6() != c.outer6 {
					t.Errorf("the tunnel goes to %s", got)
				}
			})
		}
	}
}
