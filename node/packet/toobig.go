package packet

import (
	"encoding/binary"
	"net/netip"
)

// TooBig is what a router tells of a packet that did not fit the next link: ICMP "fragmentation needed and DF set"
// (RFC 1191 4) or ICMPv6 "packet too big" (RFC 4443 3.2).
type TooBig struct {
	MTU                 int        // octets; 0 where the router does not tell (RFC 1191 5)
	Source, Destination netip.Addr // of the quoted packet
	Protocol            uint8      // of what follows its header and extension headers
	Payload             []byte     // as much of that as was quoted
}

// QuotedESP names an ESP packet by what an ICMP message quotes of it.
type QuotedESP struct {
	SPI                 uint32
	Sequence            uint32 // low half
	Source, Destination netip.AddrPort
	Encap               bool // in UDP; else the ports are 0
}

// ParseTooBig reads an ICMP message, ICMPv6 with v6. It verifies the checksum of ICMP; that of ICMPv6 is left to whoever
// knows the addresses. The error is ErrMalformed for every other message, and ErrTruncated for one that is cut.
func ParseTooBig(icmp []byte, v6 bool) (TooBig, error) {
	const header = 8
	if len(icmp) < header {
		return TooBig{}, ErrTruncated
	}
	if v6 {
		if icmp[0] != 2 || icmp[1] != 0 {
			return TooBig{}, ErrMalformed
		}
		mtu := binary.BigEndian.Uint32(icmp[4:])
		return quoted(icmp[header:], v6, int(min(mtu, 1<<20)))
	}
	if icmp[0] != 3 || icmp[1] != 4 || Sum(icmp, 0) != 0xffff {
		return TooBig{}, ErrMalformed
	}
	return quoted(icmp[header:], v6, int(binary.BigEndian.Uint16(icmp[6:])))
}

// quoted reads the beginning of a packet, which is cut where the router cut it.
func quoted(b []byte, v6 bool, mtu int) (TooBig, error) {
	t := TooBig{MTU: mtu}
	if !v6 {
		if len(b) < IPv4HeaderLen {
			return TooBig{}, ErrTruncated
		}
		header := int(b[0]&0x0f) * 4
		// The quote of a later fragment says nothing about the protocol that it belongs to.
		if b[0]>>4 != 4 || header < IPv4HeaderLen || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			return TooBig{}, ErrMalformed
		}
		if header > len(b) {
			return TooBig{}, ErrTruncated
		}
		t.Source, t.Destination = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		t.Protocol, t.Payload = b[9], b[header:]
		return t, nil
	}
	if len(b) < IPv6HeaderLen {
		return TooBig{}, ErrTruncated
	}
	if b[0]>>4 != 6 {
		return TooBig{}, ErrMalformed
	}
	t.Source, t.Destination = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	t.Protocol, b = b[6], b[IPv6HeaderLen:]
	for range maxExtensions {
		size := 8
		switch t.Protocol {
		case ProtocolHopByHop, ProtocolRouting, ProtocolDestination:
			if len(b) < 2 {
				return TooBig{}, ErrTruncated
			}
			size += int(b[1]) * 8
		case ProtocolFragment:
			if len(b) >= 4 && binary.BigEndian.Uint16(b[2:])&^7 != 0 {
				return TooBig{}, ErrMalformed
			}
		default:
			t.Payload = b
			return t, nil
		}
		if len(b) < size {
			return TooBig{}, ErrTruncated
		}
		t.Protocol, b = b[0], b[size:]
	}
	return TooBig{}, ErrMalformed
}

// Quoted returns what an ICMP error tells of the packet that it is about, as far as it is quoted: addresses, protocol and
// ports. It is false for everything else, redirects included. pkt is a whole packet that Parse has said info of.
func Quoted(pkt []byte, info Info) (Info, bool) {
	const header = 8
	if info.Fragment || info.Length > len(pkt) || info.HeaderLen+header > info.Length {
		return Info{}, false
	}
	icmp := pkt[info.HeaderLen:info.Length]
	v6 := info.Version == 6
	switch {
	case !v6 && info.Protocol == ProtocolICMP && (icmp[0] == 3 || icmp[0] == 11 || icmp[0] == 12):
	case v6 && info.Protocol == ProtocolICMPv6 && icmp[0] >= 1 && icmp[0] <= 4:
	default:
		return Info{}, false
	}
	t, err := quoted(icmp[header:], v6, 0)
	if err != nil {
		return Info{}, false
	}
	q := Info{Version: info.Version, Protocol: t.Protocol, Source: t.Source, Destination: t.Destination}
	switch t.Protocol {
	case ProtocolTCP, ProtocolUDP, ProtocolSCTP, ProtocolUDPLite:
		if len(t.Payload) < 4 {
			return Info{}, false
		}
		q.SourcePort, q.DestinationPort = binary.BigEndian.Uint16(t.Payload), binary.BigEndian.Uint16(t.Payload[2:])
	}
	return q, true
}

// ESP returns which ESP packet is quoted, false where it is none or the quote is too short to tell: an SPI that is not
// there cannot be compared. Any UDP may be ESP: the ports are for the caller to compare.
func (t TooBig) ESP() (QuotedESP, bool) {
	q := QuotedESP{Source: netip.AddrPortFrom(t.Source, 0), Destination: netip.AddrPortFrom(t.Destination, 0)}
	esp := t.Payload
	switch t.Protocol {
	case ProtocolESP:
	case ProtocolUDP:
		if len(esp) < UDPHeaderLen {
			return QuotedESP{}, false
		}
		q.Encap = true
		q.Source = netip.AddrPortFrom(t.Source, binary.BigEndian.Uint16(esp))
		q.Destination = netip.AddrPortFrom(t.Destination, binary.BigEndian.Uint16(esp[2:]))
		esp = esp[UDPHeaderLen:]
	default:
		return QuotedESP{}, false
	}
	if len(esp) < 8 {
		return QuotedESP{}, false
	}
	q.SPI, q.Sequence = binary.BigEndian.Uint32(esp), binary.BigEndian.Uint32(esp[4:])
	return q, q.SPI != 0 // 0 is the non-ESP marker
}
