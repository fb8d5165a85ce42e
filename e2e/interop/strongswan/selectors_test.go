package strongswan

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/tshark"
	"github.com/bailiwick-net/bailiwick/node/ike"
)

// TestPortSelectors meets a strongSwan that protects one protocol, or some ports, of what the node's tunnel covers (RFC 7296
// 2.9, 3.13.1). The Child SA is for those, and what it leaves out goes nowhere.
func TestPortSelectors(t *testing.T) {
	t.Parallel()
	shows(t, 45)
	for _, c := range []struct {
		name, local, remote string // of strongSwan
		want                string // as the node tells its peer's side
	}{
		{"port", "10.2.0.0/24[tcp/7007]", "10.1.0.0/24[tcp]", "10.2.0.0/24 protocol 6 port 7007"},
		{"range", "10.2.0.0/24[tcp/7000-7010]", "10.1.0.0/24[tcp]", "10.2.0.0/24 protocol 6 port 7000-7010"},
		{"protocol", "10.2.0.0/24[tcp]", "10.1.0.0/24[tcp]", "10.2.0.0/24 protocol 6"},
	} {
		for _, initiator := range []side{fromNode, fromPeer} {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				p.startPeer(partner(usualIKE, usualESP, child("local_ts", c.local), child("remote_ts", c.remote)))
				p.startNode(policy{})
				capture := p.capture()
				p.bringUp(initiator)
				p.talk(fromNode)
				p.protected(capture)
				_, ours := p.agree(initiator)
				if got := ours.Children[0].RemoteTS; !slices.Equal(got, []string{c.want}) {
					t.Errorf("the node has the peer's side as %q, want %q", got, c.want)
				}
			})
		}
	}
	t.Run("left-out", func(t *testing.T) {
		p := newPair(t)
		p.startPeer(partner(usualIKE, usualESP, child("local_ts", "10.2.0.0/24[udp]"), child("remote_ts", "10.1.0.0/24[udp]")))
		p.startNode(policy{})
		p.silent()
		if err := p.exchange(fromNode, time.Second); err == nil {
			t.Error("an exchange by TCP succeeds beside a Child SA for UDP")
		}
		p.fails([]ike.Reason{ike.ReasonTSUnacceptable})
	})
}

// The addresses of IPv6, outer and inner.
var (
	nodeOuter6 = netip.MustParseAddr("fd09::1")
	peerOuter6 = netip.MustParseAddr("fd09::2")
	nodeInner6 = netip.MustParseAddr("fd01::1")
	peerInner6 = netip.MustParseAddr("fd02::1")
	nodeNet6   = netip.MustParsePrefix("fd01::/64")
	peerNet6   = netip.MustParsePrefix("fd02::/64")
)

// addIPv6 gives both hosts the addresses of IPv6, and routes in clear.
func (p *pair) addIPv6() {
	p.t.Helper()
	for _, h := range []struct {
		host              *lab.Host
		outer, inner, via netip.Addr
		other             netip.Prefix
	}{{p.node, nodeOuter6, nodeInner6, peerOuter6, peerNet6}, {p.peer, peerOuter6, peerInner6, nodeOuter6, nodeNet6}} {
		if err := h.host.AddAddress("eth0", netip.PrefixFrom(h.outer, 64)); err != nil {
			p.t.Fatal(err)
		}
		if err := h.host.AddAddress("lo", netip.PrefixFrom(h.inner, 128)); err != nil {
			p.t.Fatal(err)
		}
		p.run(h.host, "ip", "-6", "route", "add", h.other.String(), "via", h.via.String(), "src", h.inner.String())
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
		for _, initiator := range []side{fromNode, fromPeer} {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				p.addIPv6()
				rules := policy{}
				config := partner(usualIKE, usualESP)
				conn := &config.Connections[0]
				source, target := nodeInner, peerInner
				if c.outer6 {
					conn.Local, conn.Remote, rules.tunnel = peerOuter6, nodeOuter6, peerOuter6.String()
				}
				if c.inner6 {
					conn.Children[0].LocalTS, conn.Children[0].RemoteTS = peerNet6, nodeNet6
					rules.local, rules.remote = nodeNet6.String(), peerNet6.String()
					source, target = nodeInner6, peerInner6
				}
				p.startPeer(config)
				p.startNode(rules)
				capture := p.capture()
				if initiator == fromPeer {
					p.bringUp(fromPeer)
				}
				if err := p.call(source, target); err != nil {
					t.Fatal(err)
				}
				frames, err := capture.Stop()
				if err != nil {
					t.Fatal(err)
				}
				if n := len(tshark.Holding(frames, marker[:16])); n != 0 {
					t.Errorf("%d frames hold payload in clear", n)
				}
				_, ours := p.agree(initiator)
				if got := netip.MustParseAddrPort(ours.Children[0].Remote).Addr(); got.Is6() != c.outer6 {
					t.Errorf("the tunnel goes to %s", got)
				}
			})
		}
	}
}

// call exchanges the marker from the node with an address of the peer, from an address of its own.
func (p *pair) call(source, target netip.Addr) error {
	var conn net.Conn
	dialer := net.Dialer{Timeout: 20 * time.Second, LocalAddr: &net.TCPAddr{IP: source.AsSlice()}}
	err := p.node.Do(func() (err error) {
		conn, err = dialer.DialContext(p.ctx, "tcp", netip.AddrPortFrom(target, echoPort).String())
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	return roundTrip(conn, marker, 20*time.Second)
}
