package userspace

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func selector(s string, protocol uint8, from, to uint16) sa.Selector {
	a := netip.MustParseAddr(s)
	return sa.Selector{Protocol: protocol, From: a, To: a, PortFrom: from, PortTo: to}
}

func testAssociation(spi sa.SPI, rule string, protocol uint8, from, to uint16) *association {
	return &association{installed: start, child: sa.Child{
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
	if d.find("r", packet(6, 80), 0, 1) != nil {
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
		if got := d.find("r", packet(6, 80), 0, 1); got != step.web {
			t.Errorf("%s: TCP port 80 goes through %v", step.name, got)
		}
		if got := d.find("r", packet(17, 53), 0, 1); got != step.other {
			t.Errorf("%s: UDP port 53 goes through %v", step.name, got)
		}
	}
	if d.find("", packet(6, 80), 0, 1) != other {
		t.Error("SA of the default response was not found")
	}
	if !all.replaced {
		t.Error("SA that another one replaced does not say so")
	}
	backwards := packet(6, 80)
	backwards.Source, backwards.Destination = backwards.Destination, backwards.Source
	if d.find("", backwards, 0, 1) != nil {
		t.Error("SA was found for a packet in the wrong direction")
	}
}

// Of SAs that were made together each thread uses the one whose packets arrive at it; where another bundle is newer, or an
// SA replaced, they do not count.
func TestFindSpreadsABundle(t *testing.T) {
	d := newSADB()
	p := &spd.Packet{Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("10.0.0.2"), Protocol: 6, DestinationPort: 80}
	add := func(spi, bundle, replaces sa.SPI) {
		a := testAssociation(spi, "r", 0, 0, 65535)
		a.child.Bundle, a.child.ReplacesIn = bundle, replaces
		d.children[spi] = a
		d.activate(a)
	}
	found := func(threads int) (spis []sa.SPI) {
		for thread := range threads {
			spis = append(spis, d.find("r", p, thread, threads).child.In.SPI)
		}
		return spis
	}
	for _, step := range []struct {
		name    string
		do      func()
		threads int
		want    []sa.SPI
	}{
		{"one of its own", func() { add(64, 0, 0) }, 3, []sa.SPI{64, 64, 64}},
		{"the first of a bundle", func() { add(128, 128, 0) }, 3, []sa.SPI{128, 128, 128}},
		{"a bundle", func() { add(193, 128, 0); add(258, 128, 0) }, 3, []sa.SPI{128, 193, 258}},
		{"one thread", func() {}, 1, []sa.SPI{258}},
		{"fewer threads", func() {}, 2, []sa.SPI{258, 193}},
		{"more threads", func() {}, 5, []sa.SPI{128, 193, 258, 258, 193}},
		{"a rekey", func() { add(321, 128, 193) }, 3, []sa.SPI{128, 321, 258}},
		{"one is dead", func() { d.children[321].dead = true }, 3, []sa.SPI{128, 128, 258}},
		{"another bundle", func() { add(384, 384, 0) }, 3, []sa.SPI{384, 384, 384}},
	} {
		step.do()
		if got := found(step.threads); !slices.Equal(got, step.want) {
			t.Errorf("%s: %d threads use %v, want %v", step.name, step.threads, got, step.want)
		}
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
