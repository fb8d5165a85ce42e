package spd

import (
	"fmt"
	"net/netip"
)

// The IP protocol numbers that this package knows by name (IANA "Assigned Internet Protocol Numbers").
const (
	ProtocolICMP    = 1
	ProtocolTCP     = 6
	ProtocolUDP     = 17
	ProtocolDCCP    = 33
	ProtocolESP     = 50
	ProtocolICMPv6  = 58
	ProtocolSCTP    = 132
	ProtocolUDPLite = 136
)

// HasPorts reports whether packets of an IP protocol carry ports that a filter can name.
func HasPorts(protocol uint8) bool {
	switch protocol {
	case ProtocolTCP, ProtocolUDP, ProtocolDCCP, ProtocolSCTP, ProtocolUDPLite:
		return true
	}
	return false
}

// Direction is the direction of a packet as the machine sees it.
type Direction uint8

// The directions. Forwarded packets of a gateway are outbound towards the far side of the tunnel and inbound from it.
const (
	Out Direction = iota + 1
	In
)

// String names the direction.
func (d Direction) String() string {
	switch d {
	case Out:
		return "out"
	case In:
		return "in"
	}
	return fmt.Sprintf("direction(%d)", uint8(d))
}

// Packet is what a filter can see of a packet. Fragments are reassembled before they are looked up: ports stand in the
// first fragment alone, and a filter with ports must not be passed by the others.
type Packet struct {
	Source          netip.Addr
	Destination     netip.Addr
	Protocol        uint8
	SourcePort      uint16 // 0 where the protocol has none
	DestinationPort uint16
	ICMPType        uint8 // of ICMP and ICMPv6
	ICMPCode        uint8
	// Interfaces is the class of the interface that the packet passes. Every interface is LAN unless it is known to be
	// remote access, so the zero value counts as LAN.
	Interfaces Interfaces
	Loopback   bool // passes the loopback interface
	// Own tells that one of the node's own sockets sends the packet: IKE, or ESP made from a packet that was already
	// looked up. The datapath marks those sockets, because a port alone would be a hole for any local process.
	Own bool
	// Opens tells the first packet of a TCP connection: SYN without ACK.
	Opens bool
	// Unknown tells that the machine's side of the packet is an address that its kernel has, and that Facts lacks: it is
	// as new as that, and nobody can tell yet which filters mean it.
	Unknown bool
}

// Reverse returns the packet that would answer p: addresses and ports swapped.
func (p Packet) Reverse() Packet {
	p.Source, p.Destination = p.Destination, p.Source
	p.SourcePort, p.DestinationPort = p.DestinationPort, p.SourcePort
	return p
}

// Range is an inclusive range of addresses of one family.
type Range struct{ From, To netip.Addr }

// Contains reports whether an address of the same family lies in the range.
func (r Range) Contains(a netip.Addr) bool {
	return a.BitLen() == r.From.BitLen() && r.From.Compare(a) <= 0 && a.Compare(r.To) <= 0
}

// Single reports whether the range is one address.
func (r Range) Single() bool { return r.From == r.To }

// Is4 reports whether the range is of IPv4 addresses.
func (r Range) Is4() bool { return r.From.Is4() }

// Prefix returns the range as a prefix, if it is one.
func (r Range) Prefix() (netip.Prefix, bool) {
	p := netip.PrefixFrom(r.From, r.From.BitLen()-r.wildcardBits())
	if p.Masked() != p || RangeOf(p) != r {
		return netip.Prefix{}, false
	}
	return p, true
}

// String prints an address, a prefix or "from-to".
func (r Range) String() string {
	if r.Single() {
		return r.From.String()
	}
	if p, ok := r.Prefix(); ok {
		return p.String()
	}
	return r.From.String() + "-" + r.To.String()
}

// wildcardBits is the length of the part that varies: the smallest n for which the range is not wider than 2^n
// addresses. For a prefix it is what its length leaves of the address.
func (r Range) wildcardBits() int {
	from, to := r.From.As16(), r.To.As16()
	// The width less one, as a big-endian number; As16 of an IPv4 address differs in its last four octets only.
	var width [16]byte
	borrow := 0
	for i := len(from) - 1; i >= 0; i-- {
		d := int(to[i]) - int(from[i]) - borrow
		borrow = 0
		if d < 0 {
			d += 256
			borrow = 1
		}
		width[i] = byte(d)
	}
	for i, octet := range width {
		for bit := 7; bit >= 0; bit-- {
			if octet>>bit&1 == 1 {
				return 8*(len(width)-1-i) + bit + 1
			}
		}
	}
	return 0
}

// RangeOf returns the addresses of a masked prefix.
func RangeOf(p netip.Prefix) Range {
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(last); bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	to, _ := netip.AddrFromSlice(last)
	return Range{p.Addr(), to}
}

// Any reports whether the range stands for every port.
func (r PortRange) Any() bool { return r == PortRange{} }

// Contains reports whether a port lies in the range.
func (r PortRange) Contains(port uint16) bool { return r.Any() || r.From <= port && port <= r.To }

// Bounds returns the range as its first and last port; "every port" is 0 to 65535.
func (r PortRange) Bounds() (from, to uint16) {
	if r.Any() {
		return 0, 65535
	}
	return r.From, r.To
}

// String prints "any", a port or "from-to".
func (r PortRange) String() string {
	switch {
	case r.Any():
		return "any"
	case r.From == r.To:
		return fmt.Sprint(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// ICMPScope says how much of an ICMP header an ICMP value compares.
type ICMPScope uint8

// The scopes.
const (
	ICMPEvery ICMPScope = iota
	ICMPOfType
	ICMPOfTypeAndCode
)

// ICMP narrows a filter for ICMP or ICMPv6 to one type, or to one type and code. The zero value means every type. Only
// exemptions use it; the filters of a policy name protocols and ports.
type ICMP struct {
	Scope      ICMPScope
	Type, Code uint8
}

// Contains reports whether a packet of protocol ICMP or ICMPv6 is meant.
func (i ICMP) Contains(p Packet) bool {
	switch i.Scope {
	case ICMPEvery:
		return true
	case ICMPOfType:
		return i.Type == p.ICMPType
	default:
		return i.Type == p.ICMPType && i.Code == p.ICMPCode
	}
}

// Range returns the addresses that a filter names itself; false for one that depends on the machine.
func (a Address) Range() (Range, bool) {
	switch a.Kind {
	case AddressPrefix:
		return RangeOf(a.Prefix), true
	case AddressRange:
		return Range{a.From, a.To}, true
	case AddressAny, AddressMe, AddressDNSServers, AddressDHCPServer, AddressDefaultGateway, AddressName:
	}
	return Range{}, false
}
