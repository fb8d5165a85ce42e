package strongswan

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/localapi"
	"github.com/bailiwick-net/bailiwick/pki/catest"
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

// TestRestartElsewhere kills an end without a word and starts it again at another address. It begins anew there, and its
// INITIAL_CONTACT ends what the other end still has of it (RFC 7296 2.4). The node believes that only of whom its rule
// names and who proves it by a certificate: who has a preshared key could be anybody of those who have it.
func TestRestartElsewhere(t *testing.T) {
	t.Parallel()
	shows(t, 43)
	elsewhere := netip.MustParseAddr("10.9.0.5")
	for _, c := range []struct {
		name         string
		side         pair.Side
		certificates bool
	}{{"node-psk", pair.FromNode, false}, {"node-certificate", pair.FromNode, true}, {"peer-psk", pair.FromPeer, false}, {"peer-certificate", pair.FromPeer, true}} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			policy := pair.Policy{}
			change := []func(*charon.Config){pair.Connection("local_addrs", "%any"), pair.Connection("remote_addrs", pair.NodeOuter.String()+",%any")}
			if c.certificates {
				ca := catest.New(t)
				p.Join(ca)
				policy.Authenticate, change = pair.ByCertificate, append(change, pair.Certified(t, ca, ca, pair.PeerName))
			}
			p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP, change...))
			p.StartNode(policy)
			capture := p.Capture()
			p.BringUp(c.side.Other())
			p.Talk(pair.FromNode)
			before := p.Ours().IKE[0].SPI
			p.restartAt(c.side, elsewhere)
			if c.name == "peer-psk" {
				p.Refused(c.side)
				p.Fails(elsewhere, ike.ReasonAuthFailed)
				p.SentNothingClear(capture)
				return
			}
			p.BringUp(c.side)
			p.Talk(pair.FromNode)
			p.Talk(pair.FromPeer)
			p.Until("both ends have the new associations alone", func() (bool, error) {
				ours := p.Ours()
				theirs, err := p.Charon.SAs(p.Ctx)
				return len(ours.IKE) == 1 && len(theirs) == 1, err
			})
			_, ours := p.Agree(c.side)
			at := ours.IKE[0].Remote
			if c.side == pair.FromNode {
				at = ours.IKE[0].Local
			}
			if ours.IKE[0].SPI == before || !strings.HasPrefix(at, elsewhere.String()+":") {
				t.Errorf("the node has %+v, want a new IKE SA at %s", ours.IKE[0], elsewhere)
			}
			p.SentNothingClear(capture)
		})
	}
}

// restartAt kills an end, gives it another address and starts it again.
func (p peers) restartAt(side pair.Side, address netip.Addr) {
	p.T.Helper()
	kill := p.Charon.Kill
	if side == pair.FromNode {
		kill = p.Process.Kill
	}
	if err := kill(); err != nil {
		p.T.Fatal(err)
	}
	p.renumber(side, address)
	if side == pair.FromNode {
		p.RestartNode()
	} else if err := p.Charon.Restart(p.Ctx); err != nil {
		p.T.Fatal(err)
	}
}
