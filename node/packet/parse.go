package packet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Lengths of the fixed headers in octets.
const (
	IPv4HeaderLen = 20
	IPv6HeaderLen = 40
	UDPHeaderLen  = 8
	TCPHeaderLen  = 20
)

// maxExtensions bounds the walk over IPv6 extension headers; RFC 8200 4.1 knows seven positions.
const maxExtensions = 8

// Parse reads the headers of one IPv4 or IPv6 packet. Octets after the packet's own length are ignored. The error is
// ErrTruncated where the slice, or the packet itself, ends inside a header, and ErrMalformed otherwise.
func Parse(b []byte) (Info, error) {
	if len(b) == 0 {
		return Info{}, ErrTruncated
	}
	switch b[0] >> 4 {
	case 4:
		return parseIPv4(b)
	case 6:
		return parseIPv6(b)
	}
	return Info{}, fmt.Errorf("IP version %d: %w", b[0]>>4, ErrMalformed)
}

func parseIPv4(b []byte) (Info, error) {
	if len(b) < IPv4HeaderLen {
		return Info{}, ErrTruncated
	}
	header := int(b[0]&0x0f) * 4
	length := int(binary.BigEndian.Uint16(b[2:]))
	if header < IPv4HeaderLen || length < header {
		return Info{}, ErrMalformed
	}
	if length > len(b) {
		return Info{}, ErrTruncated
	}
	fragment := binary.BigEndian.Uint16(b[6:])
	info := Info{
		Version: 4, Protocol: b[9], TrafficClass: b[1],
		Fragment: fragment&0x3fff != 0, FragmentOffset: int(fragment&0x1fff) * 8,
		Source: netip.AddrFrom4([4]byte(b[12:16])), Destination: netip.AddrFrom4([4]byte(b[16:20])),
		HeaderLen: header, TransportOffset: header, NextHeader: b[9], Length: length,
	}
	return info, info.readPorts(b[:length])
}

func parseIPv6(b []byte) (Info, error) {
	if len(b) < IPv6HeaderLen {
		return Info{}, ErrTruncated
	}
	length := IPv6HeaderLen + int(binary.BigEndian.Uint16(b[4:]))
	if length > len(b) {
		return Info{}, ErrTruncated
	}
	b = b[:length]
	info := Info{
		Version: 6, TrafficClass: b[0]<<4 | b[1]>>4,
		Source: netip.AddrFrom16([16]byte(b[8:24])), Destination: netip.AddrFrom16([16]byte(b[24:40])),
		TransportOffset: IPv6HeaderLen, NextHeader: b[6], Length: length,
	}
	next, at := b[6], IPv6HeaderLen
walk:
	for n := 0; ; n++ {
		size := 8
		switch next {
		case ProtocolHopByHop, ProtocolRouting, ProtocolDestination, ProtocolFragment:
		default:
			break walk
		}
		if n == maxExtensions {
			return Info{}, fmt.Errorf("more than %d extension headers: %w", maxExtensions, ErrMalformed)
		}
		// RFC 8200 4.1: hop-by-hop options only right after the IPv6 header.
		if next == ProtocolHopByHop && n > 0 {
			return Info{}, fmt.Errorf("hop-by-hop options are not the first extension header: %w", ErrMalformed)
		}
		if at+8 > length {
			return Info{}, ErrTruncated
		}
		if next == ProtocolFragment {
			if info.Fragment {
				return Info{}, fmt.Errorf("two fragment headers: %w", ErrMalformed)
			}
			field := binary.BigEndian.Uint16(b[at+2:])
			info.FragmentOffset = int(field &^ 7)
			info.Fragment = field&^6 != 0 // offset 0 without more is a whole packet (RFC 6946)
		} else {
			size = int(b[at+1])*8 + 8
		}
		if at+size > length {
			return Info{}, ErrTruncated
		}
		outer := next != ProtocolDestination
		next = b[at]
		at += size
		if outer {
			info.TransportOffset, info.NextHeader = at, next
		}
		if info.FragmentOffset > 0 {
			break // what follows is the middle of a packet
		}
	}
	info.Protocol, info.HeaderLen = next, at
	return info, info.readPorts(b)
}

// readPorts fills the ports from the packet p, cut to its length. A first fragment too short for its ports is an error:
// it would slip past a policy that names ports (RFC 1858 3).
func (i *Info) readPorts(p []byte) error {
	switch i.Protocol {
	case ProtocolTCP, ProtocolUDP, ProtocolSCTP, ProtocolUDPLite:
	default:
		return nil
	}
	if i.FragmentOffset > 0 {
		return nil
	}
	if len(p) < i.HeaderLen+4 {
		return ErrTruncated
	}
	i.SourcePort = binary.BigEndian.Uint16(p[i.HeaderLen:])
	i.DestinationPort = binary.BigEndian.Uint16(p[i.HeaderLen+2:])
	return nil
}
