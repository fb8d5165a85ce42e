package userspace

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// form is how a packet comes: as it is, or in pieces.
type form uint8

const (
	whole      form = iota
	complete        // every piece, in any order; of IPv6 perhaps a single one (RFC 6946)
	repeated        // a piece comes twice
	headless        // the first piece is missing
	tailless        // the last piece is missing
	overlapped      // two pieces overlap, and differ where they do (RFC 5722)
)

func (f form) String() string {
	return [...]string{"whole", "in pieces", "in pieces, one of them twice", "without its first piece", "without its last piece", "in pieces that overlap"}[f]
}

// IPv6 extension headers that say nothing (RFC 8200 4).
const (
	headerHopByHop    = 0
	headerRouting     = 43
	headerDestination = 60
)

// shape is what a packet looks like beside what a filter can see of it.
type shape struct {
	form    form
	piece   int     // octets of a piece
	first   int     // the piece that comes first
	options bool    // IPv4 options
	before  []uint8 // IPv6 extension headers, those in front of the fragment header
	behind  bool    // destination options behind it
}

func (s shape) String() string {
	out := s.form.String()
	if s.form != whole {
		out += fmt.Sprintf(" of %d octets from number %d on", s.piece, s.first+1)
	}
	if s.options {
		out += ", with IPv4 options"
	}
	if len(s.before) > 0 {
		out += fmt.Sprintf(", with extension headers %v", s.before)
	}
	if s.behind {
		out += ", with destination options"
	}
	return out
}

func (s shape) pieces() bool { return s.form != whole }

func (s shape) extended() bool { return s.options || s.behind || len(s.before) > 0 }

func shapes() *rapid.Generator[shape] {
	return rapid.Custom(func(t *rapid.T) shape {
		s := shape{
			form:    rapid.SampledFrom([]form{whole, whole, whole, whole, complete, complete, repeated, headless, tailless, overlapped}).Draw(t, "form"),
			piece:   rapid.SampledFrom([]int{8, 16, 24, 40, contentLen}).Draw(t, "piece"),
			first:   rapid.IntRange(0, 3).Draw(t, "first"),
			options: rapid.IntRange(0, 4).Draw(t, "options") == 0,
			behind:  rapid.IntRange(0, 4).Draw(t, "behind") == 0,
		}
		if rapid.IntRange(0, 3).Draw(t, "extended") == 0 {
			s.before = rapid.SampledFrom([][]uint8{{headerHopByHop}, {headerRouting}, {headerDestination}, {headerHopByHop, headerRouting}, {headerHopByHop, headerDestination}}).Draw(t, "before")
		}
		return s
	})
}

// contentLen is the length of the content of a crafted packet: several pieces.
const contentLen = 64

// content is what an IP packet carries: what the description says of ports and types, and serial wherever nothing else is.
func content(p spd.Packet, serial uint32, length int) []byte {
	out := make([]byte, length)
	switch {
	case spd.HasPorts(p.Protocol):
		binary.BigEndian.PutUint16(out, p.SourcePort)
		binary.BigEndian.PutUint16(out[2:], p.DestinationPort)
		if p.Protocol == spd.ProtocolTCP {
			out[12] = 5 << 4
			if p.Opens {
				out[13] = 0x02
			}
		}
		if p.Protocol == spd.ProtocolUDP {
			binary.BigEndian.PutUint16(out[4:], uint16(len(out)))
		}
	case p.Protocol == spd.ProtocolICMP || p.Protocol == spd.ProtocolICMPv6:
		out[0], out[1] = p.ICMPType, p.ICMPCode
	}
	for at := 20; at+4 <= len(out); at += 4 {
		binary.BigEndian.PutUint32(out[at:], serial)
	}
	return out
}

// crafted makes what is sent of a description in a shape, in its order. lost tells that the kernel has no whole packet
// of it, so that nothing may go anywhere.
func crafted(p spd.Packet, s shape, serial uint32) (out [][]byte, lost bool) {
	body, protocol := content(p, serial, contentLen), p.Protocol
	if p.Source.Is6() && s.behind {
		body, protocol = append([]byte{protocol, 0, 1, 4, 0, 0, 0, 0}, body...), headerDestination
	}
	if !s.pieces() || p.Source.Is4() && s.piece >= len(body) {
		return [][]byte{piece(p, s, protocol, serial, body, -1, false)}, false
	}
	var cuts [][2]int
	for at := 0; at < len(body); at += s.piece {
		cuts = append(cuts, [2]int{at, min(at+s.piece, len(body))})
	}
	add := func(c [2]int) {
		out = append(out, piece(p, s, protocol, serial, body[c[0]:c[1]], c[0], c[1] < len(body)))
	}
	// The kernel takes no first piece of IPv6 without every header to the end of the transport protocol's (RFC 8200 4.5).
	lost = p.Source.Is6() && cuts[0][1] < len(body)-contentLen+leastHeader(p.Protocol)
	first := s.first % len(cuts)
	order := slices.Concat(cuts[first:], cuts[:first])
	switch {
	case s.form == headless, s.form == tailless && len(cuts) == 1:
		order, lost = slices.DeleteFunc(order, func(c [2]int) bool { return c[0] == 0 }), true
	case s.form == tailless:
		order, lost = slices.DeleteFunc(order, func(c [2]int) bool { return c[1] == len(body) }), true
	case s.form == repeated && len(cuts) > 1:
		add(order[0])
	case s.form == overlapped && len(cuts) > 1 && cuts[1][1]-cuts[1][0] > 8 && s.piece > 8: // more than what covers another
		// What lies over the end of one piece and the beginning of the next.
		over := slices.Clone(body[cuts[1][0]-8 : cuts[1][0]+8])
		for i := range over {
			over[i] ^= 0x55
		}
		add(order[0])
		out = append(out, piece(p, s, protocol, serial, over, cuts[1][0]-8, true))
		order, lost = order[1:], true
	}
	for _, c := range order {
		add(c)
	}
	return out, lost
}

// leastHeader is what the kernel wants to see of a transport protocol.
func leastHeader(protocol uint8) int {
	switch protocol {
	case spd.ProtocolTCP:
		return 20
	case spd.ProtocolUDP, spd.ProtocolICMPv6:
		return 8
	}
	return 1
}

// piece makes one IP packet; offset is negative for one that is not cut.
func piece(p spd.Packet, s shape, protocol uint8, serial uint32, body []byte, offset int, more bool) []byte {
	h := packet.IP{Source: p.Source, Destination: p.Destination, Protocol: protocol, HopLimit: 64, PayloadLen: len(body), ID: uint16(serial)}
	if p.Source.Is4() {
		out := h.AppendHeader(nil)
		if offset >= 0 {
			field := uint16(offset / 8)
			if more {
				field |= 0x2000
			}
			binary.BigEndian.PutUint16(out[6:], field)
		}
		if s.options {
			out = append(out, 1, 1, 1, 1) // no operation (RFC 791 3.1)
			out[0]++
			binary.BigEndian.PutUint16(out[2:], uint16(len(out)+len(body)))
		}
		out[10], out[11] = 0, 0
		binary.BigEndian.PutUint16(out[10:], ^packet.Sum(out, 0))
		return append(out, body...)
	}
	var headers []byte
	next := make([]uint8, 0, len(s.before)+2)
	next = append(next, s.before...)
	if offset >= 0 {
		next = append(next, packet.ProtocolFragment)
	}
	next = append(next, protocol)
	for i, header := range next[:len(next)-1] {
		switch header {
		case packet.ProtocolFragment:
			field := uint16(offset)
			if more {
				field |= 1
			}
			headers = append(headers, next[i+1], 0, byte(field>>8), byte(field))
			headers = binary.BigEndian.AppendUint32(headers, serial)
		case headerRouting: // of an unknown type, without a segment that is left: to be ignored (RFC 8200 4.4)
			headers = append(headers, next[i+1], 0, 253, 0, 0, 0, 0, 0)
		default:
			headers = append(headers, next[i+1], 0, 1, 4, 0, 0, 0, 0) // PadN
		}
	}
	h.Protocol, h.PayloadLen = next[0], len(headers)+len(body)
	return slices.Concat(h.AppendHeader(nil), headers, body)
}

// isOf reports whether octets are a crafted packet, or a piece of it.
func isOf(p spd.Packet, serial uint32, octets []byte) bool {
	at, length := 12, 4
	if p.Source.Is6() {
		at, length = 8, 16
	}
	if len(octets) < at+2*length || octets[0]>>4 == 4 != p.Source.Is4() {
		return false
	}
	ends := append(p.Source.AsSlice(), p.Destination.AsSlice()...)
	if !slices.Equal(octets[at:at+2*length], ends) {
		return false
	}
	info, err := packet.Parse(octets)
	return err != nil || info.Fragment || binary.BigEndian.Uint32(octets[len(octets)-4:]) == serial
}

// describe prints a packet in one line.
func describe(way string, p spd.Packet, s shape) string {
	out := fmt.Sprintf("%s packet %s -> %s protocol %d", way, p.Source, p.Destination, p.Protocol)
	switch {
	case spd.HasPorts(p.Protocol):
		out += fmt.Sprintf(" ports %d -> %d", p.SourcePort, p.DestinationPort)
	case p.Protocol == spd.ProtocolICMP || p.Protocol == spd.ProtocolICMPv6:
		out += fmt.Sprintf(" type %d code %d", p.ICMPType, p.ICMPCode)
	}
	for _, flag := range []struct {
		set  bool
		name string
	}{{p.Opens, "SYN"}, {p.Own, "own"}, {p.Unknown, "of an address that the policy does not know"}} {
		if flag.set {
			out += ", " + flag.name
		}
	}
	return out + ", " + s.String()
}

func named(by []spd.Match) string {
	var lines []string
	for _, m := range by {
		line := "  no filter: " + m.Action.String()
		if m.Filter != nil {
			line = "  " + m.Filter.String()
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// listed prints the filters of the rules in their order.
func listed(set spd.Set) string {
	var b strings.Builder
	for _, f := range set.Filters() {
		if f.Exempt == "" {
			fmt.Fprintln(&b, " ", f.String())
		}
	}
	return b.String()
}
