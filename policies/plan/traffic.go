package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// ephemeral is the source port of a client that chooses none (RFC 6335 6).
const ephemeral = 49152

// protocolRSVP is RFC 2205; kerberos is the port of RFC 4120 7.2. Policies may exempt both.
const protocolRSVP = 46

var kerberos = spd.PortRange{From: 88, To: 88}

// traffic is a kind of traffic that no rule of some policies tells apart, with one packet of it: where that goes, so goes
// all of it. The first packet goes from the client to the server.
type traffic struct {
	// what is the protocol with the server's ports; other says that it stands for everything that no filter names, of the
	// protocol or, without one, of all protocols.
	what       policies.Traffic
	other      bool
	sourcePort uint16 // of the client, if a filter names it beside the destination port
	packet     spd.Packet
}

// String prints the traffic as documents write it, "tcp/445", and what no filter names as "other tcp" or "everything else".
func (t traffic) String() string {
	switch {
	case t.other && t.what.Protocol == 0:
		return "everything else"
	case t.other:
		return "other " + policies.Traffic{Protocol: t.what.Protocol}.String()
	case t.sourcePort != 0:
		return fmt.Sprintf("%s from port %d", t.what, t.sourcePort)
	}
	return t.what.String()
}

// ports are what filters name of the ports of one protocol.
type ports struct {
	ranges []spd.PortRange // disjoint and ascending after merge
	cuts   []int           // where an interval begins
	pairs  []spd.PortRange // source and destination port of filters that name both, alternating
}

// distinguish lists the traffic that some policies may tell apart. Clients have an ephemeral port, unless a filter names
// both ports.
func distinguish(list []spd.Policy, asserted ...policies.Traffic) []traffic {
	protocols := map[uint8]*ports{}
	at := func(protocol uint8) *ports {
		p, ok := protocols[protocol]
		if !ok {
			p = &ports{}
			protocols[protocol] = p
		}
		return p
	}
	for _, p := range list {
		for _, r := range p.Rules {
			for _, f := range r.Filters {
				if f.Protocol == 0 {
					continue
				}
				n := at(f.Protocol)
				n.name(f.SourcePort)
				n.name(f.DestinationPort)
				if !f.SourcePort.Any() && !f.DestinationPort.Any() {
					n.pairs = append(n.pairs, f.SourcePort, f.DestinationPort)
				}
			}
		}
		for _, port := range p.Exemptions.BreakGlassTCP {
			at(spd.ProtocolTCP).name(spd.PortRange{From: port, To: port})
		}
		if p.Exemptions.Kerberos {
			at(spd.ProtocolTCP).name(kerberos)
			at(spd.ProtocolUDP).name(kerberos)
		}
		if p.Exemptions.RSVP {
			at(protocolRSVP)
		}
		if p.Exemptions.ICMP {
			at(spd.ProtocolICMP)
			at(spd.ProtocolICMPv6)
		}
	}
	for _, t := range asserted {
		if t.Protocol != 0 {
			at(t.Protocol).name(t.Ports)
		}
	}
	var out []traffic
	for protocol := range 256 {
		if p, ok := protocols[uint8(protocol)]; ok {
			out = append(out, p.traffic(uint8(protocol))...)
		}
	}
	return append(out, traffic{other: true, packet: spd.Packet{Protocol: unnamed(protocols)}})
}

// unnamed finds a protocol that stands for all that no filter names: one of those for experiments (RFC 3692), if it can.
func unnamed(protocols map[uint8]*ports) uint8 {
	for _, p := range []uint8{253, 254} {
		if _, named := protocols[p]; !named {
			return p
		}
	}
	for p := uint8(255); p > 0; p-- {
		if _, named := protocols[p]; !named && p != spd.ProtocolESP && !spd.HasPorts(p) {
			return p
		}
	}
	return 253
}

func (p *ports) name(r spd.PortRange) {
	if !r.Any() {
		p.ranges, p.cuts = append(p.ranges, r), append(p.cuts, int(r.From), int(r.To)+1)
	}
}

func (p *ports) traffic(protocol uint8) []traffic {
	if !spd.HasPorts(protocol) {
		return []traffic{{what: policies.Traffic{Protocol: protocol}, packet: spd.Packet{Protocol: protocol}}}
	}
	p.merge()
	cuts := append([]int{1}, p.cuts...)
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var out []traffic
	other := -1
	for i, from := range cuts {
		to := 65535
		if i+1 < len(cuts) {
			to = cuts[i+1] - 1
		}
		if from > 65535 {
			break
		}
		r := spd.PortRange{From: uint16(from), To: uint16(to)}
		if !p.covers(r.From) {
			if other < 0 {
				other = from
			}
			continue
		}
		out = append(out, traffic{what: policies.Traffic{Protocol: protocol, Ports: r},
			packet: spd.Packet{Protocol: protocol, SourcePort: p.clientPort(), DestinationPort: r.From}})
	}
	seen := map[[2]uint16]bool{}
	for i := 0; i < len(p.pairs); i += 2 {
		for _, pair := range [][2]spd.PortRange{{p.pairs[i], p.pairs[i+1]}, {p.pairs[i+1], p.pairs[i]}} {
			s, d := pair[0].From, pair[1].From
			if seen[[2]uint16{s, d}] {
				continue
			}
			seen[[2]uint16{s, d}] = true
			out = append(out, traffic{what: policies.Traffic{Protocol: protocol, Ports: pair[1]}, sourcePort: s,
				packet: spd.Packet{Protocol: protocol, SourcePort: s, DestinationPort: d}})
		}
	}
	if other >= 0 {
		out = append(out, traffic{what: policies.Traffic{Protocol: protocol}, other: true,
			packet: spd.Packet{Protocol: protocol, SourcePort: p.clientPort(), DestinationPort: uint16(other)}})
	}
	return out
}

// merge joins the ranges that overlap.
func (p *ports) merge() {
	slices.SortFunc(p.ranges, func(a, b spd.PortRange) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	var out []spd.PortRange
	for _, r := range p.ranges {
		if n := len(out); n > 0 && r.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, r.To)
			continue
		}
		out = append(out, r)
	}
	p.ranges = out
}

func (p *ports) covers(port uint16) bool {
	i, exact := slices.BinarySearchFunc(p.ranges, port, func(r spd.PortRange, port uint16) int { return cmp.Compare(r.From, port) })
	return exact || i > 0 && port <= p.ranges[i-1].To
}

// clientPort is the ephemeral port, or another one if filters name that.
func (p *ports) clientPort() uint16 {
	for port := uint16(ephemeral); port != 0; port++ {
		if !p.covers(port) {
			return port
		}
	}
	for port := uint16(ephemeral - 1); port > 0; port-- {
		if !p.covers(port) {
			return port
		}
	}
	return ephemeral
}

// label names a set of kinds of traffic out of those that were judged, the shorter way: what it is, or everything but what
// it is not.
func label(all []traffic, judged, in []bool) []string {
	var with, without []string
	rest := false
	for i, t := range all {
		switch {
		case in[i] && t.other && t.what.Protocol == 0:
			rest = true
		case in[i]:
			with = append(with, t.String())
		case judged[i]:
			without = append(without, t.String())
		}
	}
	switch {
	case rest && len(without) == 0:
		return []string{"all traffic"}
	case rest:
		for i, t := range without {
			without[i] = "except " + t
		}
		return without
	}
	return with
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
