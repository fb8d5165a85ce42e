package userspace

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func testFlow(n byte) ike.Flow {
	return ike.Flow{Rule: "r", Local: netip.AddrFrom4([4]byte{10, 0, 0, 1}), Remote: netip.AddrFrom4([4]byte{10, 0, 1, n})}
}

func TestWaitingKeepsTheFirstPacketsInOrder(t *testing.T) {
	w := newWaiting(Limits{FlowPackets: 3, Flows: 2, Octets: 100})
	q := w.open(testFlow(1), start)
	for i, want := range []bool{true, true, true, false} {
		if got := w.put(q, []byte{byte(i)}, start); got != want {
			t.Errorf("put of packet %d gave %v, want %v", i, got, want)
		}
	}
	other := testFlow(1)
	other.Packet.SourcePort = 7
	if w.get(other) != q {
		t.Error("another packet of the same flow has another queue")
	}
	if diff := cmp.Diff([][]byte{{0}, {1}, {2}}, w.take(q)); diff != "" {
		t.Error(diff)
	}
	if w.octets != 0 || len(w.flows) != 0 {
		t.Errorf("%d octets in %d flows wait after take, want none", w.octets, len(w.flows))
	}
}

func TestWaitingIsBoundedInOctets(t *testing.T) {
	w := newWaiting(Limits{FlowPackets: 10, Flows: 2, Octets: 100})
	q := w.open(testFlow(1), start)
	if !w.put(q, make([]byte, 60), start) || w.put(q, make([]byte, 60), start) || !w.put(q, make([]byte, 40), start) {
		t.Errorf("100 octets of packets of 60, 60 and 40 hold %d octets, want the first and the last", w.octets)
	}
}

func TestWaitingEvictsFlowsOfWhichNothingWaits(t *testing.T) {
	w := newWaiting(Limits{FlowPackets: 1, Flows: 2, Octets: 100})
	w.put(w.open(testFlow(1), start), []byte{1}, start)
	w.open(testFlow(2), start)
	if w.open(testFlow(3), start) == nil {
		t.Error("an empty flow was not evicted for a new one")
	}
	w.put(w.get(testFlow(3)), []byte{3}, start)
	if w.open(testFlow(4), start) != nil {
		t.Error("a flow with packets was evicted")
	}
}

func TestWaitingExpires(t *testing.T) {
	w := newWaiting(Limits{FlowPackets: 10, Flows: 10, Octets: 100})
	q := w.open(testFlow(1), start)
	q.acquired = true
	w.put(q, []byte{1}, start)
	if n := w.expire(start.Add(waitFor - 1)); n != 0 {
		t.Errorf("%d packets expired too early", n)
	}
	if n := w.expire(start.Add(waitFor)); n != 1 {
		t.Errorf("%d packets expired, want 1", n)
	}
	if w.get(testFlow(1)) == nil {
		t.Error("flow was forgotten before its Acquire was answered")
	}
	w.expire(start.Add(askAgain))
	if w.get(testFlow(1)) != nil {
		t.Error("flow that nobody answered for was not forgotten")
	}
}

func TestWaitingRefuses(t *testing.T) {
	w := newWaiting(Limits{FlowPackets: 10, Flows: 10, Octets: 100})
	q := w.open(testFlow(1), start)
	q.acquired = true
	w.put(q, []byte{1}, start)
	if n := w.refuse(testFlow(1), start); n != 1 {
		t.Errorf("refusal dropped %d packets, want 1", n)
	}
	if !q.isRefused(start.Add(refusedFor-1)) || q.isRefused(start.Add(refusedFor)) || q.acquired {
		t.Error("refusal does not end when it should, or the next packet would not ask again")
	}
	w.expire(start.Add(refusedFor))
	if len(w.flows) != 0 {
		t.Error("refused flow was not forgotten")
	}
}

func selector(s string, protocol uint8, from, to uint16) sa.Selector {
	a := netip.MustParseAddr(s)
	return sa.Selector{Protocol: protocol, From: a, To: a, PortFrom: from, PortTo: to}
}

func testAssociation(spi sa.SPI, rule string, protocol uint8, from, to uint16) *association {
	return &association{installed: start, used: start, child: sa.Child{
		Rule: rule, In: sa.Keys{SPI: spi},
		LocalTS: []sa.Selector{selector("10.0.0.1", protocol, 0, 65535)}, RemoteTS: []sa.Selector{selector("10.0.0.2", protocol, from, to)},
	}}
}

func TestFindTakesTheNewestThatCovers(t *testing.T) {
	d := newSADB()
	all, web, newer := testAssociation(1, "r", 0, 0, 65535), testAssociation(2, "r", 6, 80, 80), testAssociation(3, "r", 0, 0, 65535)
	other := testAssociation(4, "", 0, 0, 65535)
	newer.child.ReplacesIn = 1
	packet := func(protocol uint8, port uint16) *spd.Packet {
		return &spd.Packet{
			Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("10.0.0.2"), Protocol: protocol, DestinationPort: port,
		}
	}
	for _, a := range []*association{all, web, newer, other} {
		d.children[a.child.In.SPI] = a
	}
	if d.find("r", packet(6, 80)) != nil {
		t.Error("an SA that was not switched to was found")
	}
	for _, step := range []struct {
		name       string
		do         func()
		web, other *association
	}{
		{"switch to all", func() { d.activate(all) }, all, all},
		{"switch to web", func() { d.activate(web) }, web, all},
		{"switch to newer", func() { d.activate(newer) }, newer, newer},
		{"switch to other", func() { d.activate(other) }, newer, newer},
		{"newer dies", func() { newer.dead = true }, web, all},
		{"remove web", func() { d.deactivate(web) }, all, all},
		{"remove all", func() { d.deactivate(all) }, nil, nil},
	} {
		step.do()
		if got := d.find("r", packet(6, 80)); got != step.web {
			t.Errorf("%s: TCP port 80 goes through %v", step.name, got)
		}
		if got := d.find("r", packet(17, 53)); got != step.other {
			t.Errorf("%s: UDP port 53 goes through %v", step.name, got)
		}
	}
	if d.find("", packet(6, 80)) != other {
		t.Error("SA of the default response was not found")
	}
	if !all.replaced {
		t.Error("SA that another one replaced does not say so")
	}
	backwards := packet(6, 80)
	backwards.Source, backwards.Destination = backwards.Destination, backwards.Source
	if d.find("", backwards) != nil {
		t.Error("SA was found for a packet in the wrong direction")
	}
}

func TestCoveredKnowsICMP(t *testing.T) {
	echo := uint16(8) << 8 // RFC 7296 3.13.1
	s := []sa.Selector{selector("10.0.0.1", spd.ProtocolICMP, echo, echo|0xff)}
	a := netip.MustParseAddr("10.0.0.1")
	request := spd.Packet{Source: a, Protocol: spd.ProtocolICMP, ICMPType: 8}
	reply := spd.Packet{Source: a, Protocol: spd.ProtocolICMP}
	if !covered(s, a, request.Protocol, 0, &request) || covered(s, a, reply.Protocol, 0, &reply) {
		t.Error("selector for echo requests does not tell them from replies")
	}
}

func TestExpiring(t *testing.T) {
	a := testAssociation(1, "r", 0, 0, 65535)
	a.child.Soft, a.child.Hard, a.child.Idle = sa.Limits{Bytes: 10}, sa.Limits{Time: time.Minute}, time.Second
	if l, ok := a.expiring(start); ok {
		t.Errorf("limit %d is reached at once", l)
	}
	a.inOctets = 10
	for _, want := range []ike.Limit{ike.LimitHard, ike.LimitSoft, ike.LimitIdle} {
		l, ok := a.expiring(start.Add(time.Minute))
		if !ok || l != want {
			t.Errorf("limit %d is reached (%v), want %d", l, ok, want)
		}
		a.told[l] = true
	}
	if l, ok := a.expiring(start.Add(time.Minute)); ok {
		t.Errorf("limit %d is reported twice", l)
	}
}
