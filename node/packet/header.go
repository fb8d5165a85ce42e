package packet

import (
	"encoding/binary"
	"net/netip"
)

// IP is what AppendHeader writes. Fields it does not have are 0 on the wire, options never occur.
type IP struct {
	Source, Destination netip.Addr // both of one family
	Protocol            uint8
	TrafficClass        uint8
	HopLimit            uint8
	ID                  uint16 // IPv4
	DontFragment        bool   // IPv4
	PayloadLen          int    // octets after the header, up to 65535-20 or 65535
}

// HeaderLen returns the length of the header in octets.
func (h IP) HeaderLen() int {
	if h.Source.Is4() {
		return IPv4HeaderLen
	}
	return IPv6HeaderLen
}

// AppendHeader appends the IPv4 or IPv6 header h to dst.
func (h IP) AppendHeader(dst []byte) []byte {
	if h.Source.Is4() {
		at := len(dst)
		s, d := h.Source.As4(), h.Destination.As4()
		var flags byte
		if h.DontFragment {
			flags = 0x40
		}
		total := IPv4HeaderLen + h.PayloadLen
		dst = append(dst, 0x45, h.TrafficClass, byte(total>>8), byte(total), byte(h.ID>>8), byte(h.ID), flags, 0,
			h.HopLimit, h.Protocol, 0, 0, s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3])
		SetIPv4Checksum(dst[at:])
		return dst
	}
	s, d := h.Source.As16(), h.Destination.As16()
	dst = append(dst, 0x60|h.TrafficClass>>4, h.TrafficClass<<4, 0, 0, byte(h.PayloadLen>>8), byte(h.PayloadLen),
		h.Protocol, h.HopLimit)
	dst = append(dst, s[:]...)
	return append(dst, d[:]...)
}

// The ECN codepoints (RFC 3168 5).
const (
	NotECT = 0
	ECT1   = 1
	ECT0   = 2
	CE     = 3
)

// TrafficClass returns DSCP and ECN of a packet that Parse accepted.
func TrafficClass(pkt []byte) uint8 {
	if pkt[0]>>4 == 4 {
		return pkt[1]
	}
	return pkt[0]<<4 | pkt[1]>>4
}

// DecapsulateECN carries a congestion mark of the outer header over to the inner packet (RFC 6040 4.2). It returns
// false where the packet must be dropped: congestion was experienced and the inner transport could not be told.
func DecapsulateECN(pkt []byte, outer uint8) bool {
	inner := TrafficClass(pkt) & 3
	outer &= 3
	set := inner
	switch {
	case outer == CE && inner == NotECT:
		return false
	case outer == CE:
		set = CE
	case outer == ECT1 && inner == ECT0:
		set = ECT1
	}
	if set == inner {
		return true
	}
	if pkt[0]>>4 == 4 {
		old := binary.BigEndian.Uint16(pkt)
		pkt[1] = pkt[1]&^3 | set
		adjust(pkt[10:12], old, binary.BigEndian.Uint16(pkt))
		return true
	}
	pkt[1] = pkt[1]&^0x30 | set<<4
	return true
}

// ClampMSS lowers the MSS option of a TCP SYN to at most mss, with its checksum, and reports whether it changed the
// packet. Anything but the whole header of a SYN is left alone, and so is a SYN without the option.
func ClampMSS(pkt []byte, info Info, mss uint16) bool {
	const syn, endOfList, nop, mssKind = 0x02, 0, 1, 2
	if info.Protocol != ProtocolTCP || info.FragmentOffset > 0 || info.Length > len(pkt) {
		return false
	}
	tcp := pkt[info.HeaderLen:info.Length]
	if len(tcp) < TCPHeaderLen || tcp[13]&syn == 0 {
		return false
	}
	end := int(tcp[12]>>4) * 4
	if end < TCPHeaderLen || end > len(tcp) {
		return false
	}
	for at := TCPHeaderLen; at < end; {
		switch tcp[at] {
		case endOfList:
			return false
		case nop:
			at++
			continue
		}
		if at+2 > end || tcp[at+1] < 2 || at+int(tcp[at+1]) > end {
			return false
		}
		if tcp[at] != mssKind || tcp[at+1] != 4 {
			at += int(tcp[at+1])
			continue
		}
		value := tcp[at+2 : at+4]
		old := binary.BigEndian.Uint16(value)
		if old <= mss {
			return false
		}
		if at%2 == 0 {
			adjust(tcp[16:18], old, mss)
		} else { // the value straddles two words of the checksum, as its octets swapped
			adjust(tcp[16:18], old<<8|old>>8, mss<<8|mss>>8)
		}
		binary.BigEndian.PutUint16(value, mss)
		return true
	}
	return false
}

// FixedHeaderLen is the length of the IP header of a version without options and extension headers.
func FixedHeaderLen(version uint8) int {
	if version == 4 {
		return IPv4HeaderLen
	}
	return IPv6HeaderLen
}

// HopLimit returns hop limit or time to live of a packet that Parse accepted.
func HopLimit(pkt []byte) uint8 {
	if pkt[0]>>4 == 4 {
		return pkt[8]
	}
	return pkt[7]
}

// SetHopLimit sets hop limit or time to live of a packet that Parse accepted.
func SetHopLimit(pkt []byte, hops uint8) {
	if pkt[0]>>4 == 4 {
		old := binary.BigEndian.Uint16(pkt[8:])
		pkt[8] = hops
		adjust(pkt[10:12], old, binary.BigEndian.Uint16(pkt[8:]))
		return
	}
	pkt[7] = hops
}

// SetTransport makes the header of a packet, of which Parse has said info, that of a packet with other octets of a protocol
// at info.TransportOffset: next header, length and checksum. The length is that of pkt; it is an error of the caller where
// that is more than an IP packet can have.
func SetTransport(pkt []byte, info Info, protocol uint8) {
	if info.Version == 4 {
		binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
		pkt[9] = protocol
		SetIPv4Checksum(pkt)
		return
	}
	binary.BigEndian.PutUint16(pkt[4:], uint16(len(pkt)-IPv6HeaderLen))
	// The next header field to change is that of the last header before.
	field := 6
	for at := IPv6HeaderLen; at < info.TransportOffset; {
		size := int(pkt[at+1])*8 + 8
		if pkt[field] == ProtocolFragment {
			size = 8
		}
		field, at = at, at+size
	}
	pkt[field] = protocol
}

// SetTrafficClass sets DSCP and ECN of a packet that Parse accepted.
func SetTrafficClass(pkt []byte, class uint8) {
	if pkt[0]>>4 == 4 {
		old := binary.BigEndian.Uint16(pkt)
		pkt[1] = class
		adjust(pkt[10:12], old, binary.BigEndian.Uint16(pkt))
		return
	}
	pkt[0] = pkt[0]&0xf0 | class>>4
	pkt[1] = pkt[1]&0x0f | class<<4
}
