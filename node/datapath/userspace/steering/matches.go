package steering

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Match is one condition on a packet. The set is closed.
type Match interface {
	text() string
}

// Interface compares the name of the incoming or, with Out, the outgoing interface; with Route the one that the route to the
// destination has, before a packet is on it. A * at the end of the name stands for any rest.
type Interface struct {
	Out   bool
	Route bool
	Not   bool
	Name  string
}

// MarkIs compares the bits of Mask.
type MarkIs struct{ Value, Mask uint32 }

// Family is true for packets of one IP version.
type Family struct{ IPv6 bool }

// Address is true for packets with a source or, with Destination, a destination in the range. It is preceded by a
// Family.
type Address struct {
	Destination bool
	Range       spd.Range
}

// Proto compares the protocol of the upper layer, after extension headers.
type Proto uint8

// Ports compares a port, inclusive. It is preceded by a Proto.
type Ports struct {
	Destination bool
	From, To    uint16
}

// ICMPCode compares the code. It is preceded by a Proto.
type ICMPCode struct {
	IPv6 bool
	Code uint8
}

// ICMPTypes compares the type, inclusive. It is preceded by a Proto.
type ICMPTypes struct {
	IPv6     bool
	From, To uint8
}

// Opening is true for the first packet of a TCP connection, or with Not for all others. It is preceded by Proto 6.
type Opening struct{ Not bool }

// LocalAddress is true for packets from or, with Destination, to an address of this machine. With Device it is true for
// packets from an address of the device that they leave by: of IPv6 programs may use an address for a moment before there is
// a route that makes it local.
type LocalAddress struct{ Destination, Device bool }

// NoOptions is true for IPv4 headers without options.
type NoOptions struct{ Not bool }

// Quoted compares the packet inside an ICMP error: an Address, Proto, Ports or NoOptions. Ports mean what they say behind
// an IPv4 header without options or an IPv6 header without extensions.
type Quoted struct {
	IPv6 bool
	Of   Match
}

// InSet looks the packet up in a Set. An outbound packet has its local side in the source, an inbound one in the
// destination. It is preceded by a Family.
type InSet struct {
	Set     Set
	Inbound bool
}

// LocalDestination is true for packets to an address of this machine; with Not, for those to be forwarded to a single
// host.
type LocalDestination struct{ Not bool }

// Unread is true for fragments whose ports nobody can read, although the kernel reassembles before it asks: of IPv4 those
// but the first; of IPv6 all, because a first one that lacks some of the headers is shown alone (RFC 8200 4.5: it is to be
// discarded).
type Unread struct{ IPv6 bool }

// Reassembly has the kernel reassemble fragments; as a match it is never evaluated.
type Reassembly struct{ Conntrack bool }

func (m Reassembly) text() string {
	if m.Conntrack {
		return "ct state invalid"
	}
	return "tproxy to :1"
}

func (m Interface) text() string {
	key, op := "iifname", ""
	switch {
	case m.Route:
		key = "fib daddr oifname"
	case m.Out:
		key = "oifname"
	}
	if m.Not {
		op = "!= "
	}
	return fmt.Sprintf("%s %s%q", key, op, m.Name)
}

func (m MarkIs) text() string { return fmt.Sprintf("meta mark & 0x%08x == 0x%08x", m.Mask, m.Value) }

func (m Family) text() string {
	if m.IPv6 {
		return "meta nfproto ipv6"
	}
	return "meta nfproto ipv4"
}

func (m Address) text() string {
	return ipName(!m.Range.Is4()) + " " + side(m.Destination) + "addr " + addressText(m.Range)
}

func (m Proto) text() string { return fmt.Sprintf("meta l4proto %d", uint8(m)) }

func (m Ports) text() string {
	if m.From == m.To {
		return fmt.Sprintf("th %sport %d", side(m.Destination), m.From)
	}
	return fmt.Sprintf("th %sport %d-%d", side(m.Destination), m.From, m.To)
}

func (m ICMPCode) text() string { return fmt.Sprintf("%s code %d", icmpName(m.IPv6), m.Code) }

func (m ICMPTypes) text() string {
	if m.From == m.To {
		return fmt.Sprintf("%s type %d", icmpName(m.IPv6), m.From)
	}
	return fmt.Sprintf("%s type %d-%d", icmpName(m.IPv6), m.From, m.To)
}

func (m Opening) text() string {
	if m.Not {
		return "tcp flags & (syn | ack) != syn"
	}
	return "tcp flags & (syn | ack) == syn"
}

func (m LocalAddress) text() string {
	if m.Device {
		return "fib saddr . oif type local"
	}
	return "fib " + side(m.Destination) + "addr type local"
}

func (m NoOptions) text() string {
	if m.Not {
		return "ip hdrlength != 5"
	}
	return "ip hdrlength 5"
}

func (m Quoted) text() string {
	offset, from, to := m.field()
	s := fmt.Sprintf("@th,%d,%d ", 8*offset, 8*len(from))
	switch {
	case m.not():
		s += "!= "
	case !bytes.Equal(from, to):
		return s + fmt.Sprintf("0x%x-0x%x", from, to)
	}
	return s + fmt.Sprintf("0x%x", from)
}

func (m Quoted) not() bool {
	o, ok := m.Of.(NoOptions)
	return ok && o.Not
}

// field returns where the compared part of the quoted packet lies in the ICMP error, and its bounds.
func (m Quoted) field() (offset uint32, from, to []byte) {
	const at = 8 // the ICMP header (RFC 792, RFC 4443 3)
	source, destination, protocol, transport := uint32(12), uint32(16), uint32(9), uint32(20)
	if m.IPv6 {
		source, destination, protocol, transport = 8, 24, 6, 40
	}
	switch of := m.Of.(type) {
	case Address:
		offset = source
		if of.Destination {
			offset = destination
		}
		return at + offset, of.Range.From.AsSlice(), of.Range.To.AsSlice()
	case Proto:
		return at + protocol, []byte{byte(of)}, []byte{byte(of)}
	case Ports:
		if offset = transport; of.Destination {
			offset += 2
		}
		return at + offset, binary.BigEndian.AppendUint16(nil, of.From), binary.BigEndian.AppendUint16(nil, of.To)
	case NoOptions:
		return at, []byte{0x45}, []byte{0x45}
	}
	panic("steering: match that a quoted packet does not have") // guards.go uses no other
}

func (m InSet) text() string {
	var parts []string
	for _, f := range m.Set.Key {
		switch f {
		case Local, Remote:
			parts = append(parts, ipName(m.Set.IPv6)+" "+side((f == Remote) != m.Inbound)+"addr")
		case Protocol:
			parts = append(parts, "meta l4proto")
		case LocalPort, RemotePort:
			parts = append(parts, "th "+side((f == RemotePort) != m.Inbound)+"port")
		}
	}
	return strings.Join(parts, " . ") + " @" + m.Set.Name
}

func (m LocalDestination) text() string {
	if m.Not {
		return "fib daddr type unicast"
	}
	return "fib daddr type local"
}

func (m Unread) text() string {
	if m.IPv6 {
		return "exthdr frag exists"
	}
	return "ip frag-off & 0x1fff != 0"
}

func side(destination bool) string {
	if destination {
		return "d"
	}
	return "s"
}

func ipName(v6 bool) string {
	if v6 {
		return "ip6"
	}
	return "ip"
}

func addressText(r spd.Range) string {
	if p, ok := r.Prefix(); ok && !r.Single() {
		return p.String()
	}
	return r.String()
}

// whole reports whether a range is every address of its family.
func whole(r spd.Range) bool {
	return r.From.IsUnspecified() && !netip.AddrFrom16(r.To.As16()).Next().IsValid() ||
		r.Is4() && r.From.IsUnspecified() && r.To == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
