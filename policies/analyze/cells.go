package analyze

import (
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// A cell is a set of packets between two addresses that no filter of either end tells apart: every filter describes all of
// it or nothing. What Lookup says of one packet of it, it says of all, and so does everything that is decided by the
// filters: one packet stands for the cell.
//
// Filters tell packets apart by protocol and ports; the class of the interface is that of the own address. The exemptions
// that every machine has alike are left out: they accept what they are about in either direction, whoever protects it or
// not, and nobody negotiates by them.

// cellLimit bounds the cells of one pair of addresses.
const cellLimit = 1 << 16

// side is what a filter, or a selector, says of packets from the first address to the second.
type side struct {
	protocol            uint8
	source, destination spd.PortRange
}

func sideOf(f *spd.Specific) side {
	return side{f.Protocol, f.SourcePort, f.DestinationPort}
}

// sidesOf are the cuts that the selectors of an association make.
func sidesOf(n *Negotiation) []side {
	var out []side
	for _, l := range n.InitiatorSelectors {
		for _, r := range n.ResponderSelectors {
			out = append(out, side{protocol: l.Protocol, source: portsOf(l), destination: portsOf(r)})
		}
	}
	return out
}

func portsOf(s spd.Selector) spd.PortRange {
	if s.PortFrom == 0 && s.PortTo == 65535 {
		return spd.PortRange{}
	}
	return spd.PortRange{From: s.PortFrom, To: s.PortTo}
}

// cellsOf returns one packet of every cell between two addresses. whole is false when there were more cells than the
// limit, and some are left out.
func cellsOf(sides []side, from, to netip.Addr) (packets []spd.Packet, whole bool) {
	whole = true
	for _, protocol := range protocols(sides) {
		sources, destinations := []uint16{0}, []uint16{0}
		if spd.HasPorts(protocol) {
			sources, destinations = portCells(sides, protocol, true), portCells(sides, protocol, false)
		}
		for _, source := range sources {
			for _, destination := range destinations {
				if len(packets) == cellLimit {
					return packets, false
				}
				packets = append(packets, spd.Packet{
					Source: from, Destination: to, Protocol: protocol, SourcePort: source, DestinationPort: destination,
					Opens: protocol == spd.ProtocolTCP,
				})
			}
		}
	}
	return packets, whole
}

// protocols returns those that filters name, and one that stands for all others.
func protocols(sides []side) []uint8 {
	var named [256]bool
	for _, s := range sides {
		named[s.protocol] = true
	}
	var out []uint8
	for p := 1; p < len(named); p++ {
		if named[p] {
			out = append(out, uint8(p))
		}
	}
	for _, other := range []uint8{spd.ProtocolTCP, spd.ProtocolUDP, 47, 41, 253} { // what people know, or else an experiment's
		if !named[other] {
			return append(out, other)
		}
	}
	return out
}

// portCells returns one port of every cell of the source or destination ports of a protocol.
func portCells(sides []side, protocol uint8, source bool) []uint16 {
	var ranges []spd.PortRange
	for _, s := range sides {
		if s.protocol != protocol {
			continue
		}
		r := s.destination
		if source {
			r = s.source
		}
		if !r.Any() && !slices.Contains(ranges, r) {
			ranges = append(ranges, r)
		}
	}
	// Every cell begins at 0, where a range begins or where one has ended; cells in the same ranges are one.
	starts := []int{40000, 0}
	for _, r := range ranges {
		starts = append(starts, int(r.From), int(r.To)+1)
	}
	seen := map[string]bool{}
	var out []uint16
	mark := make([]byte, len(ranges))
	for _, start := range starts {
		if start > 65535 {
			continue
		}
		for i, r := range ranges {
			mark[i] = '0'
			if r.Contains(uint16(start)) {
				mark[i] = '1'
			}
		}
		if !seen[string(mark)] {
			seen[string(mark)] = true
			out = append(out, uint16(start))
		}
	}
	return out
}

// addressCells cuts the addresses where any filter, tunnel or machine's environment names one.
type addressCells struct{ starts []netip.Addr } // sorted: IPv4 before IPv6

func (c *addressCells) cut(r spd.Range) {
	c.starts = append(c.starts, r.From)
	if next := r.To.Next(); next.IsValid() {
		c.starts = append(c.starts, next)
	}
}

func (c *addressCells) finish() {
	slices.SortFunc(c.starts, netip.Addr.Compare)
	c.starts = slices.Compact(c.starts)
}

// of returns the cell of an address, as a number.
func (c *addressCells) of(a netip.Addr) int {
	n, found := slices.BinarySearchFunc(c.starts, a, netip.Addr.Compare)
	if found {
		n++
	}
	if a.Is4() {
		return -1 - n
	}
	return n
}

// free returns two addresses in the cell that fewest ranges are about: what is not known of a machine is taken to be there.
func (c *addressCells) free() [2]netip.Addr {
	for _, text := range []string{"192.0.2.0", "198.51.100.0", "203.0.113.0", "198.18.0.0", "240.0.0.0", "0.0.0.0"} { // RFC 5737, RFC 2544
		a := netip.MustParseAddr(text).Next()
		if c.of(a) == c.of(a.Next()) {
			return [2]netip.Addr{a, a.Next()}
		}
	}
	return [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
}
