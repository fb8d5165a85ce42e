package judge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Numbers of IP protocols and IPv6 extension headers.
const (
	protocolHopByHop    = 0
	protocolICMP        = 1
	protocolIPIP        = 4
	protocolTCP         = 6
	protocolUDP         = 17
	protocolIPv6        = 41
	protocolRouting     = 43
	protocolFragment    = 44
	protocolESP         = 50
	protocolAH          = 51
	protocolICMPv6      = 58
	protocolDestination = 60
	protocolMobility    = 135
	protocolHIP         = 139
	protocolShim6       = 140
)

// Ethernet types.
const (
	typeIPv4  = 0x0800
	typeARP   = 0x0806
	typeVLAN  = 0x8100
	typeQinQ  = 0x88a8
	typeIPv6  = 0x86dd
	etherSize = 14
)

var (
	errShort   = errors.New("it ends within a header")
	errVersion = errors.New("its version is neither 4 nor 6")
	errLengths = errors.New("its lengths contradict each other")
	errHeaders = errors.New("it has too many headers")
)

// frame is an Ethernet frame.
type frame struct {
	source  [6]byte
	kind    uint16
	payload []byte
}

// parseFrame reads an Ethernet header and the VLAN tags after it.
func parseFrame(b []byte) (frame, error) {
	if len(b) < etherSize {
		return frame{}, errShort
	}
	f := frame{source: [6]byte(b[6:12]), kind: binary.BigEndian.Uint16(b[12:]), payload: b[etherSize:]}
	const mostTags = 4
	for range mostTags {
		if f.kind != typeVLAN && f.kind != typeQinQ {
			return f, nil
		}
		if len(f.payload) < 4 {
			return frame{}, errShort
		}
		f.kind, f.payload = binary.BigEndian.Uint16(f.payload[2:]), f.payload[4:]
	}
	return frame{}, errHeaders
}

// packet is an IP packet behind all of its headers but the one of its protocol.
type packet struct {
	src, dst netip.Addr
	protocol uint8
	body     []byte // from the header of the protocol on
	ah       bool   // an Authentication Header stood before it
	// Of fragments: the identification, and where the fragment begins.
	id       uint32
	offset   int
	fragment bool

	portsKnown       bool
	srcPort, dstPort uint16
}

// parseIP reads an IP packet. One that is cut short, as quotes in ICMP errors are, ends where the octets end; a length of
// zero is that of a packet which was too long for the field, and will be cut by the network card.
func parseIP(b []byte) (packet, error) {
	if len(b) == 0 {
		return packet{}, errShort
	}
	switch b[0] >> 4 {
	case 4:
		return parseIPv4(b)
	case 6:
		return parseIPv6(b)
	}
	return packet{}, errVersion
}

// parseIPv4 reads what RFC 791 3.1 draws.
func parseIPv4(b []byte) (packet, error) {
	if len(b) < 20 {
		return packet{}, errShort
	}
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < 20 || total != 0 && total < header {
		return packet{}, errLengths
	}
	if len(b) < header {
		return packet{}, errShort
	}
	if total != 0 && total < len(b) {
		b = b[:total] // Ethernet pads short frames
	}
	flags := binary.BigEndian.Uint16(b[6:])
	p := packet{
		src: netip.AddrFrom4([4]byte(b[12:16])), dst: netip.AddrFrom4([4]byte(b[16:20])),
		id: uint32(binary.BigEndian.Uint16(b[4:])), offset: int(flags&0x1fff) * 8, fragment: flags&0x3fff != 0,
	}
	return p, p.follow(b[9], b[header:])
}

// parseIPv6 reads what RFC 8200 3 draws.
func parseIPv6(b []byte) (packet, error) {
	const header = 40
	if len(b) < header {
		return packet{}, errShort
	}
	if length := int(binary.BigEndian.Uint16(b[4:])); length != 0 && length < len(b)-header {
		b = b[:header+length]
	}
	p := packet{src: netip.AddrFrom16([16]byte(b[8:24])), dst: netip.AddrFrom16([16]byte(b[24:40]))}
	return p, p.follow(b[6], b[header:])
}

// follow goes from header to header, to the one that is no extension.
func (p *packet) follow(next uint8, b []byte) error {
	const mostHeaders = 16
	for range mostHeaders {
		p.protocol, p.body = next, b
		if p.fragment && p.offset > 0 {
			return nil // what follows is the middle of something
		}
		var length int
		switch next {
		case protocolHopByHop, protocolRouting, protocolDestination, protocolMobility, protocolHIP, protocolShim6:
			if p.src.Is4() {
				return nil // in IPv4 these are protocols like others
			}
			if len(b) < 2 {
				return errShort
			}
			length = (int(b[1]) + 1) * 8
		case protocolFragment:
			if p.src.Is4() {
				return nil
			}
			if len(b) < 8 {
				return errShort
			}
			field := binary.BigEndian.Uint16(b[2:])
			p.fragment, p.offset, p.id = field&0xfff9 != 0, int(field&0xfff8), binary.BigEndian.Uint32(b[4:])
			length = 8
		case protocolAH:
			if len(b) < 2 {
				return errShort
			}
			p.ah = true
			length = (int(b[1]) + 2) * 4 // RFC 4302 2.2
		default:
			p.ports()
			return nil
		}
		if len(b) < length {
			return errShort
		}
		next, b = b[0], b[length:]
	}
	return errHeaders
}

// ports reads those of TCP and UDP.
func (p *packet) ports() {
	if (p.protocol == protocolTCP || p.protocol == protocolUDP) && len(p.body) >= 4 {
		p.srcPort, p.dstPort, p.portsKnown = binary.BigEndian.Uint16(p.body), binary.BigEndian.Uint16(p.body[2:]), true
	}
}

// icmpError reports whether the packet is an ICMP error, and returns what it quotes.
func (p *packet) icmpError() (quoted []byte, is bool) {
	if len(p.body) < 8 {
		return nil, false
	}
	switch kind := p.body[0]; p.protocol {
	case protocolICMP:
		is = kind == 3 || kind == 4 || kind == 5 || kind == 11 || kind == 12 // RFC 792
	case protocolICMPv6:
		is = kind < 128 // RFC 4443 2.1
	}
	return p.body[8:], is
}

// neighbour reports whether the packet is one of neighbour discovery (RFC 4861) or multicast listener discovery (RFC 2710, RFC 3810).
func (p *packet) neighbour() bool {
	if p.protocol != protocolICMPv6 || len(p.body) == 0 {
		return false
	}
	kind := p.body[0]
	return kind >= 133 && kind <= 137 || kind >= 130 && kind <= 132 || kind == 143
}

// String describes the headers for people.
func (p *packet) String() string {
	src, dst := p.src.String(), p.dst.String()
	if p.portsKnown {
		src, dst = netip.AddrPortFrom(p.src, p.srcPort).String(), netip.AddrPortFrom(p.dst, p.dstPort).String()
	}
	s := fmt.Sprintf("%s > %s %s, %d octets", src, dst, protocolName(p.protocol), len(p.body))
	switch {
	case p.protocol == protocolTCP && p.portsKnown && len(p.body) > 13:
		s += fmt.Sprintf(", flags 0x%02x", p.body[13])
	case (p.protocol == protocolICMP || p.protocol == protocolICMPv6) && p.offset == 0 && len(p.body) > 1:
		s += fmt.Sprintf(", type %d code %d", p.body[0], p.body[1])
	}
	if p.fragment {
		s += fmt.Sprintf(", fragment of %#x at %d", p.id, p.offset)
	}
	if p.ah {
		s += ", behind AH"
	}
	return s
}

func protocolName(n uint8) string {
	switch n {
	case protocolICMP:
		return "ICMP"
	case protocolTCP:
		return "TCP"
	case protocolUDP:
		return "UDP"
	case protocolESP:
		return "ESP"
	case protocolICMPv6:
		return "ICMPv6"
	}
	return fmt.Sprintf("protocol %d", n)
}
