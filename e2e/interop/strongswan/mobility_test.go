package strongswan

import (
	"net/netip"
	"strings"
	"testing"
)

// TestMobileNode gives the node another address while a TCP connection goes through the tunnel: the IKE SA moves (RFC
// 4555), strongSwan in user space rekeys the Child SA instead of moving it, and the connection lives on.
func TestMobileNode(t *testing.T) {
	shows(t, 53)
	p := newPair(t)
	p.startPeer(partner(usualIKE, usualESP))
	p.startNode(policy{})
	capture := p.capture()
	p.bringUp(fromNode)
	before := p.oursNow()
	stop := p.stream(fromNode)
	elsewhere := netip.MustParseAddr("10.9.0.3")
	p.run(p.node, "sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1")
	p.run(p.node, "ip", "address", "add", elsewhere.String()+"/24", "dev", "eth0")
	p.run(p.node, "ip", "address", "del", nodeOuter.String()+"/24", "dev", "eth0")
	p.run(p.node, "ip", "route", "replace", peerNet.String(), "via", peerOuter.String(), "src", nodeInner.String())
	p.until("the IKE SA has moved", func() (bool, error) {
		now := p.oursNow()
		return len(now.IKE) == 1 && strings.HasPrefix(now.IKE[0].Local, elsewhere.String()), nil
	})
	p.talk(fromNode)
	if n := stop(); n == 0 {
		t.Error("nothing went through the connection")
	}
	if now := p.oursNow(); len(now.IKE) != 1 || now.IKE[0].SPI != before.IKE[0].SPI {
		t.Errorf("the node has %+v, want the IKE SA %v", now.IKE, before.IKE[0].SPI)
	}
	p.sentNothingClear(capture)
}

// TestMobilePeer gives strongSwan another address: it tells so, returns the cookie that the node asks for there (RFC 4555
// 3.7), and the tunnel goes on at the new address, where no rule of the node names it.
func TestMobilePeer(t *testing.T) {
	shows(t, 53)
	p := newPair(t)
	p.startPeer(partner(usualIKE, usualESP))
	p.startNode(policy{})
	capture := p.capture()
	p.bringUp(fromPeer)
	before := p.oursNow()
	stop := p.stream(fromPeer)
	elsewhere := netip.MustParseAddr("10.9.0.4")
	p.run(p.peer, "sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1")
	p.run(p.peer, "ip", "address", "add", elsewhere.String()+"/24", "dev", "eth0")
	p.run(p.peer, "ip", "address", "del", peerOuter.String()+"/24", "dev", "eth0")
	p.until("the IKE SA has moved", func() (bool, error) {
		now := p.oursNow()
		return len(now.IKE) == 1 && strings.HasPrefix(now.IKE[0].Remote, elsewhere.String()), nil
	})
	p.logged("COOKIE2")
	if n := stop(); n == 0 {
		t.Error("nothing went through the connection")
	}
	if now := p.oursNow(); len(now.IKE) != 1 || now.IKE[0].SPI != before.IKE[0].SPI {
		t.Errorf("the node has %+v, want the IKE SA %v", now.IKE, before.IKE[0].SPI)
	}
	p.sentNothingClear(capture)
}
