package steering

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Dimension is a part of a packet that a verdict map can decide by.
type Dimension uint8

// The dimensions, in the order in which a rule compares them.
const (
	Source Dimension = iota
	Destination
	L4Protocol
	SourcePort
	DestinationPort
	ICMPType
	dimensions
)

// Key is what a verdict map looks up: a dimension of the packet or, with Quoted, of the packet inside an ICMP error.
type Key struct {
	Of     Dimension
	IPv6   bool
	Quoted bool
}

// Octets returns the length of the key.
func (k Key) Octets() int {
	switch k.Of {
	case Source, Destination:
		if k.IPv6 {
			return 16
		}
		return 4
	case SourcePort, DestinationPort:
		return 2
	default:
		return 1
	}
}

// match returns the condition that a value of the dimension lies between two others.
func (k Key) match(s span) Match {
	m := k.plain(s)
	if k.Quoted {
		return Quoted{IPv6: k.IPv6, Of: m}
	}
	return m
}

func (k Key) plain(s span) Match {
	switch k.Of {
	case L4Protocol:
		return Proto(s.from.lo)
	case SourcePort, DestinationPort:
		return Ports{Destination: k.Of == DestinationPort, From: uint16(s.from.lo), To: uint16(s.to.lo)}
	case ICMPType:
		return ICMPTypes{IPv6: k.IPv6, From: uint8(s.from.lo), To: uint8(s.to.lo)}
	default:
		return Address{Destination: k.Of == Destination, Range: spd.Range{From: s.from.address(k.IPv6), To: s.to.address(k.IPv6)}}
	}
}

func (k Key) text() string {
	if k.Quoted {
		offset, from, _ := k.match(span{}).(Quoted).field()
		return fmt.Sprintf("@th,%d,%d", 8*offset, 8*len(from))
	}
	switch k.Of {
	case L4Protocol:
		return "meta l4proto"
	case SourcePort, DestinationPort:
		return "th " + side(k.Of == DestinationPort) + "port"
	case ICMPType:
		return icmpName(k.IPv6) + " type"
	default:
		return ipName(k.IPv6) + " " + side(k.Of == Destination) + "addr"
	}
}

// typeText declares the key of a map.
func (k Key) typeText() string {
	if k.Quoted {
		return "typeof " + k.text()
	}
	switch k.Of {
	case L4Protocol:
		return "type inet_proto"
	case SourcePort, DestinationPort:
		return "type inet_service"
	case ICMPType:
		return "type " + icmpName(k.IPv6) + "_type"
	default:
		if k.IPv6 {
			return "type ipv6_addr"
		}
		return "type ipv4_addr"
	}
}

func (k Key) valueText(octets []byte) string {
	switch k.Of {
	case Source, Destination:
		if k.Quoted {
			return fmt.Sprintf("0x%x", octets)
		}
		a, _ := netip.AddrFromSlice(octets)
		return a.String()
	case SourcePort, DestinationPort:
		return fmt.Sprint(binary.BigEndian.Uint16(octets))
	default:
		return fmt.Sprint(octets[0])
	}
}

func icmpName(v6 bool) string {
	if v6 {
		return "icmpv6"
	}
	return "icmp"
}

// position is a value of a dimension as a number: an address of either family, a protocol, a port, a type.
type position struct{ hi, lo uint64 }

// span is a range of positions, inclusive.
type span struct{ from, to position }

func (p position) less(q position) bool { return p.hi < q.hi || p.hi == q.hi && p.lo < q.lo }

func (p position) compare(q position) int {
	switch {
	case p.less(q):
		return -1
	case q.less(p):
		return 1
	}
	return 0
}

// next returns the position behind p; false if there is none.
func (p position) next() (position, bool) {
	if p.lo++; p.lo == 0 {
		p.hi++
	}
	return p, p != position{}
}

// before returns the position in front of p, which is not the first.
func (p position) before() position {
	if p.lo == 0 {
		p.hi--
	}
	p.lo--
	return p
}

func (p position) octets(k Key) []byte {
	b := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, p.hi), p.lo)
	return b[16-k.Octets():]
}

func (p position) address(v6 bool) netip.Addr {
	a, _ := netip.AddrFromSlice(p.octets(Key{IPv6: v6}))
	return a
}

func positionOf(a netip.Addr) position {
	if a.Is4() {
		b := a.As4()
		return position{lo: uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return position{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func spanOf(r spd.Range) span { return span{positionOf(r.From), positionOf(r.To)} }

func numbers(from, to uint16) span { return span{position{lo: uint64(from)}, position{lo: uint64(to)}} }
