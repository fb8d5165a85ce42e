package ikesim

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

var (
	addrA2 = netip.MustParseAddr("10.9.0.1")
	addrB2 = netip.MustParseAddr("10.9.0.2")
	public = netip.MustParseAddr("192.0.2.1")
)

// roaming is two gateways with a tunnel, up, whose IKE SAs follow changes of address.
func roaming(t *testing.T, seed uint64, f Faults, m ike.Mobility) (w *World, a, b *Node) {
	t.Helper()
	w, a, b, _, narrow := gateways(seed, f)
	for _, n := range []*Node{a, b} {
		n.Config.Mobility = m
		n.Config.Rules[0].Pairs = slices.Clone(n.Config.Rules[0].Pairs)
		n.boot()
		n.addresses(n.Addr)
	}
	b.Do(ike.Acquire{Flow: narrow})
	w.Run(2 * time.Second)
	mirrored(t, w, a, b, 1)
	return w, a, b
}

// addresses tells a node which addresses it has; the first is the one that it sends from.
func (n *Node) addresses(list ...netip.Addr) {
	ev := ike.AddressesChanged{Addresses: list, Sources: make(map[netip.Addr]netip.Addr)}
	for _, o := range n.world.Nodes {
		for _, remote := range append([]netip.Addr{o.Addr}, o.Others...) {
			for _, own := range list {
				if own.BitLen() == remote.BitLen() {
					ev.Sources[remote] = own
					break
				}
			}
		}
	}
	n.Do(ev)
}

// moveTo gives a node another address instead of those that it has.
func (n *Node) moveTo(a netip.Addr) {
	n.world.logf("%s moves to %s", n.Name, a)
	n.Addr, n.Others = a, nil
	n.addresses(a)
}

func (n *Node) endpoints() (local, remote netip.Addr) {
	i := n.SADB[n.child()]
	return i.Child.Local.Addr(), i.Child.Remote.Addr()
}

// moved checks that the one Child SA is between the present addresses on both sides.
func moved(t *testing.T, w *World, a, b *Node) {
	t.Helper()
	mirrored(t, w, a, b, 1)
	for _, n := range []struct{ own, peer *Node }{{a, b}, {b, a}} {
		if local, remote := n.own.endpoints(); local != n.own.Addr || remote != n.peer.Addr {
			t.Errorf("%s has its Child SA between %s and %s, want %s and %s\n%s", n.own.Name, local, remote, n.own.Addr, n.peer.Addr, story(w))
		}
	}
}

// Whichever side gets another address, and both at once, the IKE SA and its Child SA move there: nothing is made anew.
func TestMOBIKE(t *testing.T) {
	for name, move := range map[string]func(a, b *Node){
		"initiator": func(_, b *Node) { b.moveTo(addrB2) },
		"responder": func(a, _ *Node) { a.moveTo(addrA2) },
		"one after the other": func(a, b *Node) {
			a.moveTo(addrA2)
			a.world.Run(40 * time.Second)
			b.moveTo(addrB2)
		},
		"and back before it is told": func(_, b *Node) {
			b.moveTo(addrB2)
			b.world.Run(time.Millisecond)
			b.moveTo(addrB)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed <= 8; seed++ {
				w, a, b := roaming(t, seed, calm, ike.MobilityOn)
				w.Faults.Loss, w.Faults.Jitter = 0.1*float64(seed%3), time.Duration(seed)*time.Millisecond
				before, ups := a.child(), a.Ups+b.Ups
				move(a, b)
				w.Run(80 * time.Second)
				moved(t, w, a, b)
				if a.child() != before || a.Ups+b.Ups != ups || len(a.Downs)+len(b.Downs) > 0 {
					t.Fatalf("seed %d: something was made anew\n%s", seed, story(w))
				}
				// What was moved works: both rekeys, from both sides.
				for _, n := range []*Node{a, b} {
					n.rekeyChild()
					w.Run(100 * time.Second)
					n.rekeyIKE()
					w.Run(100 * time.Second)
					moved(t, w, a, b)
				}
			}
		})
	}
}

// An update is answered, and the traffic moves only after the peer has returned the cookie from there (RFC 4555 3.7).
func TestMOBIKEMovesTrafficAfterReturnRoutability(t *testing.T) {
	w, a, b := roaming(t, 1, calm, ike.MobilityOn)
	w.Hold(func(from, _ *Node, _ uint8, response bool) bool { return from == b && response })
	b.moveTo(addrB2)
	w.Run(500 * time.Millisecond)
	if _, remote := a.endpoints(); remote != addrB {
		t.Fatalf("the responder sends to %s before anything has come back from there\n%s", remote, story(w))
	}
	if count(w, "a.example", "N(COOKIE2)") == 0 {
		t.Fatalf("the responder does not ask for proof\n%s", story(w))
	}
	w.Release()
	w.Run(5 * time.Second)
	moved(t, w, a, b)
}

// Without MOBIKE an address that is lost takes its IKE SA with it, at once and on both sides, and traffic makes another.
func TestAddressLostWithoutMOBIKE(t *testing.T) {
	for _, loser := range []string{"initiator", "responder"} {
		w, a, b := roaming(t, 1, calm, ike.MobilityOff)
		n := map[string]*Node{"initiator": b, "responder": a}[loser]
		n.moveTo(addrA2)
		w.Run(time.Second)
		if len(a.SADB)+len(b.SADB) != 0 {
			t.Errorf("%s: a Child SA is left at an address that is gone\n%s", loser, story(w))
		}
		if len(n.Downs) != 1 || n.Downs[0].Reason != ike.ReasonAddressChanged {
			t.Errorf("%s: want one Down for %s, have %+v", loser, ike.ReasonAddressChanged, n.Downs)
		}
	}
}

// nat puts a NAT before n, whose outer port for 4500 is *port.
func (w *World) nat(n *Node, port *uint16) {
	n.Others = []netip.Addr{public}
	w.translate = func(from, to *Node, d *ike.Datagram) bool {
		outside := func(inside netip.AddrPort) netip.AddrPort {
			if inside.Port() == 4500 {
				return netip.AddrPortFrom(public, *port)
			}
			return netip.AddrPortFrom(public, 1024+inside.Port())
		}
		switch {
		case from == n:
			d.Remote = outside(d.Remote)
		case to == n:
			for _, p := range []uint16{500, 4500} {
				if inside := netip.AddrPortFrom(n.Addr, p); d.Local == outside(inside) {
					d.Local = inside
					return true
				}
			}
			return false
		}
		return true
	}
}

// A NAT that gives the initiator another port is noticed: without MOBIKE by the next message (RFC 7296 2.23), with it by
// the next liveness check, or when ESP comes from there.
func TestNATRebinding(t *testing.T) {
	for _, c := range []struct {
		name string
		m    ike.Mobility
		esp  bool
	}{{"liveness", ike.MobilityOff, false}, {"ESP", ike.MobilityOff, true}, {"MOBIKE, liveness", ike.MobilityOn, false}, {"MOBIKE, ESP", ike.MobilityOn, true}} {
		t.Run(c.name, func(t *testing.T) {
			w, a, b, _, narrow := gateways(1, calm)
			port := uint16(20001)
			w.nat(b, &port)
			// The responder knows the initiator by where the NAT lets it appear.
			a.Config.Rules[0].Tunnel = public
			for _, n := range []*Node{a, b} {
				n.Config.Mobility = c.m
				n.boot()
				n.addresses(n.Addr)
			}
			b.Do(ike.Acquire{Flow: narrow})
			w.Run(time.Second)
			at := func() netip.AddrPort { return a.SADB[a.child()].Child.Remote }
			if len(a.SADB) != 1 || at() != netip.AddrPortFrom(public, 20001) {
				t.Fatalf("no Child SA through the NAT\n%s", story(w))
			}
			w.Run(time.Minute) // a liveness check has shown the mapping
			before := a.child()
			port = 20002
			if c.esp {
				a.Do(ike.PeerMoved{SPI: before, Remote: netip.AddrPortFrom(public, 20002)})
				w.Run(100 * time.Millisecond)
			} else {
				w.Run(time.Minute)
			}
			byDatapath := c.esp && c.m == ike.MobilityOff // which has moved its SA itself
			if !byDatapath && at() != netip.AddrPortFrom(public, 20002) || a.child() != before {
				t.Errorf("the responder sends to %s\n%s", at(), story(w))
			}
			if c.esp && c.m == ike.MobilityOff && a.Engine.Snapshot().SAs[0].Remote.Port() != 20002 {
				t.Errorf("the IKE SA did not follow")
			}
			w.Run(10 * time.Minute)
			if a.child() != before || b.child() == 0 {
				t.Errorf("the Child SA did not survive\n%s", story(w))
			}
		})
	}
}

// A peer that is not behind a NAT stays where it is, whatever address its authentic messages seem to come from; so does
// one that is, as long as what comes is old or not authentic.
func TestNobodyElseMovesThePeer(t *testing.T) {
	w, a, b, _, narrow := gateways(1, calm)
	b.Do(ike.Acquire{Flow: narrow})
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
	w.translate = func(from, _ *Node, d *ike.Datagram) bool {
		if from == b {
			d.Remote = netip.AddrPortFrom(public, 6666)
		}
		return true
	}
	w.Run(3 * time.Minute)
	a.Do(ike.PeerMoved{SPI: a.child(), Remote: netip.AddrPortFrom(public, 6666)})
	if _, remote := a.endpoints(); remote != addrB {
		t.Errorf("a peer without NAT was followed to %s", remote)
	}

	w, a, b, _, narrow = gateways(2, calm)
	port := uint16(20001)
	w.nat(b, &port)
	a.Config.Rules[0].Tunnel = public
	a.boot()
	var old ike.Datagram
	through := w.translate
	w.translate = func(from, to *Node, d *ike.Datagram) bool {
		ok := through(from, to, d)
		if from == b && d.Bytes[18] == inform && d.Bytes[19]&0x20 == 0 {
			old = *d
		}
		return ok
	}
	b.Do(ike.Acquire{Flow: narrow})
	w.Run(4 * time.Minute)
	if old.Bytes == nil {
		t.Fatal("no message to repeat")
	}
	here := a.Engine.Snapshot().SAs[0].Remote
	for name, change := range map[string]func(*ike.Datagram){
		"a repeated message": func(*ike.Datagram) {},
		"another message ID": func(d *ike.Datagram) { d.Bytes[23]++ },
		"a wrong ICV":        func(d *ike.Datagram) { d.Bytes[23]++; d.Bytes[len(d.Bytes)-1] ^= 1 },
	} {
		d := old
		d.Bytes = slices.Clone(old.Bytes)
		d.Remote = netip.AddrPortFrom(public, 6666)
		change(&d)
		a.Do(d)
		if now := a.Engine.Snapshot().SAs[0].Remote; now != here {
			t.Errorf("%s moves the peer from %s to %s", name, here, now)
		}
	}
}

// An update through a NAT is refused where the initiator allows none, and one to an address that is no peer's as well.
func TestMOBIKERefusesPaths(t *testing.T) {
	w, _, b := roaming(t, 1, calm, ike.MobilityWithoutNAT)
	port := uint16(20001)
	b.Addr = addrB2
	w.nat(b, &port)
	b.addresses(addrB2)
	w.Run(2 * time.Second)
	if count(w, "a.example", "UNEXPECTED_NAT_DETECTED") == 0 {
		t.Errorf("a NAT on the new path is not refused\n%s", story(w))
	}
	if len(b.Downs) != 1 || b.Downs[0].Reason != ike.ReasonAddressChanged {
		t.Errorf("want the IKE SA closed for %s, have %+v", ike.ReasonAddressChanged, b.Downs)
	}
	w, a, b := roaming(t, 2, calm, ike.MobilityOn)
	w.translate = func(from, _ *Node, d *ike.Datagram) bool {
		if from == b {
			d.Remote = netip.AddrPortFrom(netip.MustParseAddr("224.0.0.9"), 4500)
		}
		return true
	}
	before, _ := a.endpoints()
	b.addresses(addrB2)
	w.Run(time.Second)
	if now, _ := a.endpoints(); now != before || count(w, "a.example", "UNACCEPTABLE_ADDRESSES") == 0 {
		t.Errorf("an update to a group address is not refused\n%s", story(w))
	}
}

// The initiator finds another path when the present one is dead, with the addresses that the responder told.
func TestMOBIKEFindsAnotherPath(t *testing.T) {
	w, a, b, _, narrow := gateways(1, calm)
	for _, n := range []*Node{a, b} {
		n.Config.Mobility = ike.MobilityOn
		n.boot()
	}
	a.Others = []netip.Addr{addrA2}
	a.addresses(addrA, addrA2)
	b.addresses(addrB)
	b.Do(ike.Acquire{Flow: narrow})
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
	before := a.child()
	w.translate = func(_, _ *Node, d *ike.Datagram) bool { return d.Local.Addr() != addrA && d.Remote.Addr() != addrA }
	w.disturbed = true
	w.Run(90 * time.Second)
	a.Addr, a.Others = addrA2, nil
	moved(t, w, a, b)
	if a.child() != before {
		t.Errorf("the Child SA was made anew\n%s", story(w))
	}
}

// A peer that tells every address it has, as strongSwan does, also tells those inside its network. They lie in the tunnel:
// when the path is dead, nothing is sent to them in clear.
func TestMOBIKETriesNoPathIntoTheTunnel(t *testing.T) {
	w, a, b, _, narrow := gateways(1, calm)
	inner := netip.MustParseAddr("10.1.0.200")
	// The responder's own rule ends before the address, so that it tells it.
	a.Config.Rules[0].Pairs[0].Local.To = netip.MustParseAddr("10.1.0.127")
	for _, n := range []*Node{a, b} {
		n.Config.Mobility = ike.MobilityOn
		n.boot()
	}
	a.Others = []netip.Addr{inner}
	a.addresses(addrA, inner)
	b.addresses(addrB)
	b.Do(ike.Acquire{Flow: narrow})
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
	if count(w, "a.example", "N(ADDITIONAL_IP4_ADDRESS)") == 0 {
		t.Fatalf("the responder does not tell the address\n%s", story(w))
	}
	repeated, inside := 0, 0
	w.translate = func(from, _ *Node, d *ike.Datagram) bool {
		switch {
		case from != b:
		case d.Local.Addr() == inner || d.Remote.Addr() == inner:
			inside++
		default:
			repeated++
		}
		return false
	}
	w.disturbed = true
	w.Run(90 * time.Second)
	if repeated < 4 || inside != 0 {
		t.Errorf("%d messages to the peer and %d to the address inside, want at least 4 and none\n%s", repeated, inside, story(w))
	}
}

// Transport mode cannot move: the Child SA ends, the IKE SA moves, and the next one is made through it.
func TestMOBIKEWithTransportMode(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	for _, n := range []*Node{a, b} {
		n.Config.Mobility = ike.MobilityOn
		n.boot()
		n.addresses(n.Addr)
	}
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
	c := a.Config
	c.Rules = slices.Clone(c.Rules)
	c.Rules[0].Pairs = []ike.Pair{{Local: host(addrA2), Remote: everything()}}
	a.moveTo(addrA2)
	a.Do(ike.Reconfigure{Config: c})
	w.Run(time.Second)
	mirrored(t, w, a, b, 0)
	a.Do(ike.Acquire{Flow: flow(addrA2, addrB)})
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
	if a.Ups != 1 || len(a.Downs) != 0 {
		t.Errorf("want the IKE SA moved, have %d up and %+v\n%s", a.Ups, a.Downs, story(w))
	}
	if got := a.SADB[a.child()].Child.LocalTS; !slices.Equal(got, []sa.Selector{host(addrA2)}) {
		t.Errorf("the new Child SA is for %v", got)
	}
}
