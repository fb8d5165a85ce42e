package ikesim

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// gateways returns two gateways with a tunnel between their networks; b's rule covers only a part of what a's covers.
func gateways(seed uint64, f Faults) (w *World, a, b *Node, wide, narrow ike.Flow) {
	network := func(s string) sa.Selector {
		p := netip.MustParsePrefix(s)
		last := p.Addr().As4()
		for i := p.Bits(); i < 32; i++ {
			last[i/8] |= 0x80 >> (i % 8)
		}
		return sa.Selector{From: p.Addr(), To: netip.AddrFrom4(last), PortTo: 65535}
	}
	rule := func(id string, local, remote sa.Selector, peer netip.Addr) ike.Rule {
		r := meshRule(addrA, pskAuth)
		r.ID, r.Mode, r.Tunnel, r.Pairs = id, sa.Tunnel, peer, []ike.Pair{{Local: local, Remote: remote}}
		return r
	}
	left, right, part := network("10.1.0.0/24"), network("10.2.0.0/16"), network("10.2.0.0/24")
	w = New(seed, f)
	w.Tracing = true
	a = w.Add("a.example", addrA, config("a.example", addrA, rule("left", left, right, addrB)))
	b = w.Add("b.example", addrB, config("b.example", addrB, rule("right", part, left, addrA)))
	packet := func(from, to string) spd.Packet {
		return spd.Packet{Source: netip.MustParseAddr(from), Destination: netip.MustParseAddr(to), Protocol: 1, ICMPType: 8}
	}
	wide = ike.Flow{Rule: "left", Local: addrA, Remote: addrB, LocalTS: left, RemoteTS: right, Packet: packet("10.1.0.1", "10.2.0.1")}
	narrow = ike.Flow{Rule: "right", Local: addrB, Remote: addrA, LocalTS: part, RemoteTS: left, Packet: packet("10.2.0.1", "10.1.0.1")}
	return w, a, b, wide, narrow
}

// A packet that asks for protection while the peer's narrower Child SA, which covers it, is installed but not used yet,
// waits for that one.
func TestAcquireDuringTheConfirmationOfANarrowerChildSA(t *testing.T) {
	for _, after := range []time.Duration{11 * time.Millisecond, 30 * time.Millisecond, 200 * time.Millisecond, time.Second} {
		w, a, b, wide, narrow := gateways(1, calm)
		b.Do(ike.Acquire{Flow: narrow})
		w.Run(5 * time.Millisecond)
		for len(a.SADB) == 0 {
			w.Run(time.Millisecond)
		}
		w.Run(after)
		a.Do(ike.Acquire{Flow: wide})
		w.Run(5 * time.Second)
		mirrored(t, w, a, b, 1)
		if n := len(a.Engine.Snapshot().Waiting); n != 0 {
			t.Errorf("asked %s after the Child SA came: %d flows still wait", after, n)
		}
	}
}

// A Child SA that the peer narrowed serves the packet that asked, and the flow ends: traffic outside of it asks again and
// hears that the peer does not take it, without one more Child SA each time.
func TestTheRestOfANarrowedFlowIsRefused(t *testing.T) {
	w, a, b, wide, _ := gateways(1, calm)
	a.Do(ike.Acquire{Flow: wide})
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
	if n := len(a.Engine.Snapshot().Waiting); n != 0 {
		t.Fatalf("%d flows still wait for what the peer has narrowed", n)
	}
	wide.Packet.Destination = netip.MustParseAddr("10.2.7.7")
	for range 3 {
		a.Results = nil
		a.Do(ike.Acquire{Flow: wide})
		w.Run(5 * time.Second)
		mirrored(t, w, a, b, 1)
		if r := results[ike.Refuse](a); len(r) != 1 || r[0].Reason != ike.ReasonTSUnacceptable {
			t.Fatalf("want the flow refused for %s, have %+v\n%s", ike.ReasonTSUnacceptable, a.Results, story(w))
		}
	}
}
