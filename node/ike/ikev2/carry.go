package ikev2

import (
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// A rule asks for all of its traffic, and gets as much as the peer's policy has in common with it: a Child SA may be
// narrower than the flow that waits for it (RFC 7296 2.9). Whether a flow is served is then a question of the packet that
// asked.

// FlowServed says that a flow needs no Child SA of its own: one that is there, or is about to be used, carries the packet
// that asked. Traffic of the flow outside of it asks again.
type FlowServed struct{ Flow ike.Flow }

func (FlowServed) note() {}

// carrying finds the Child SA that carries a flow, or at least the packet that asked, in use or about to be.
func (s *SA) carrying(flow ike.Flow) *child {
	if c := s.covering(flow); c != nil {
		return c
	}
	for _, c := range s.children {
		if s.lasting(c) && c.Rule == flow.Rule && c.DefaultResponse == flow.DefaultResponse && coversPacket(c.Child, flow.Packet) {
			return c
		}
	}
	return nil
}

// lasting reports whether a Child SA is there to stay.
func (s *SA) lasting(c *child) bool { return !c.gone && !c.deleting && !c.replaced }

// same finds a Child SA of the same rule with the same selectors.
func (s *SA) same(as *child) *child {
	for _, c := range s.children {
		if c != as && s.lasting(c) && c.Rule == as.Rule && c.DefaultResponse == as.DefaultResponse &&
			slices.Equal(c.LocalTS, as.LocalTS) && slices.Equal(c.RemoteTS, as.RemoteTS) {
			return c
		}
	}
	return nil
}

// coversPacket reports whether the selectors of a Child SA contain an outbound packet. The zero packet is in none.
func coversPacket(c sa.Child, p spd.Packet) bool {
	return p.Source.IsValid() && p.Destination.IsValid() &&
		slices.ContainsFunc(c.LocalTS, func(s sa.Selector) bool { return s.Contains(selectorOf(p, p.Source, p.SourcePort)) }) &&
		slices.ContainsFunc(c.RemoteTS, func(s sa.Selector) bool { return s.Contains(selectorOf(p, p.Destination, p.DestinationPort)) })
}

// selectorOf is the selector of exactly one end of a packet. ICMP has its type and code in the place of the ports (RFC
// 7296 3.13.1).
func selectorOf(p spd.Packet, a netip.Addr, port uint16) sa.Selector {
	if p.Protocol == spd.ProtocolICMP || p.Protocol == spd.ProtocolICMPv6 {
		port = uint16(p.ICMPType)<<8 | uint16(p.ICMPCode)
	}
	return sa.Selector{Protocol: p.Protocol, From: a, To: a, PortFrom: port, PortTo: port}
}
