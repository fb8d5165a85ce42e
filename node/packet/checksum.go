package packet

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Sum adds b to a ones' complement sum of 16-bit words and returns it folded (RFC 1071). A piece of odd length must be
// the last one. The Internet checksum is the complement of the sum.
func Sum(b []byte, initial uint16) uint16 {
	var sum uint64
	if sumBlock > 0 && len(b) >= sumBlock {
		sum = sumBlocks(b)
		b = b[len(b)&^(sumBlock-1):]
	}
	return sumScalar(b, sum, initial)
}

// sumScalar adds b to the words of 16 bits in host order that are in sum, and all of them to initial.
func sumScalar(b []byte, sum uint64, initial uint16) uint16 {
	// Eight octets at a time in host order, with end-around carry: the sum does not depend on the byte order
	// (RFC 1071 2 (B)), which is put right once at the end.
	var carry uint64
	for len(b) >= 64 {
		c := b[:64:64]
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(c), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(c[8:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(c[16:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(c[24:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(c[32:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(c[40:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(c[48:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(c[56:]), carry)
		b = b[64:]
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b), carry)
		b = b[8:]
	}
	var tail uint64
	for i, octet := range b {
		tail |= uint64(octet) << (8 * i)
	}
	sum, carry = bits.Add64(sum, tail, carry)
	sum, carry = bits.Add64(sum, 0, carry)
	sum += carry
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return Add16(bits.ReverseBytes16(uint16(sum)), initial)
}

// Add16 adds two folded sums.
func Add16(a, b uint16) uint16 {
	s := uint32(a) + uint32(b)
	return uint16(s>>16 + s)
}

// PseudoHeaderSum is the sum of the pseudo-header of RFC 9293 3.1 and RFC 8200 8.1; length is that of the upper-layer
// packet.
func PseudoHeaderSum(source, destination netip.Addr, protocol uint8, length int) uint16 {
	var sum uint16
	if source.Is4() {
		s, d := source.As4(), destination.As4()
		sum = Sum(d[:], Sum(s[:], 0))
	} else {
		s, d := source.As16(), destination.As16()
		sum = Sum(d[:], Sum(s[:], 0))
	}
	sum = Add16(sum, uint16(length>>16))
	sum = Add16(sum, uint16(length))
	return Add16(sum, uint16(protocol))
}

// CompleteChecksum finishes a partial checksum: the field at start+offset holds the sum of the pseudo-header, the result
// covers everything from start (virtio 1.2, 5.1.6.2). For UDP a result of 0 is sent as 0xffff (RFC 768).
func CompleteChecksum(pkt []byte, start, offset int) error {
	if start < 0 || offset < 0 || start+offset+2 > len(pkt) {
		return ErrMalformed
	}
	sum := ^Sum(pkt[start:], 0)
	if sum == 0 && offset == 6 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(pkt[start+offset:], sum)
	return nil
}

// ChecksumOffset tells where in the upper-layer header the checksum stands that covers the pseudo-header; false for
// protocols without one.
func ChecksumOffset(protocol uint8) (int, bool) {
	switch protocol {
	case ProtocolTCP:
		return 16, true
	case ProtocolUDP:
		return 6, true
	case ProtocolICMPv6:
		return 2, true
	}
	return 0, false
}

// VerifyChecksum reports whether the TCP, UDP or ICMPv6 checksum of a whole packet is right. A protocol without one, a
// fragment, and UDP over IPv4 that carries no checksum count as right.
func VerifyChecksum(pkt []byte, info Info) bool {
	upper, _, ok := checksumField(pkt, info)
	if upper == nil {
		return !ok
	}
	return Sum(upper, PseudoHeaderSum(info.Source, info.Destination, info.Protocol, len(upper))) == 0xffff
}

// FixChecksum computes the TCP, UDP or ICMPv6 checksum of a whole packet anew (RFC 3948 3.1.2). It reports whether the
// packet is now right; UDP over IPv4 that carries no checksum stays so.
func FixChecksum(pkt []byte, info Info) bool {
	upper, offset, ok := checksumField(pkt, info)
	if upper == nil {
		return !ok
	}
	binary.BigEndian.PutUint16(upper[offset:], PseudoHeaderSum(info.Source, info.Destination, info.Protocol, len(upper)))
	return CompleteChecksum(pkt[:info.Length], info.HeaderLen, offset) == nil
}

// checksumField returns the upper layer and where its checksum stands. Where there is none to look at, upper is nil and
// ok false; where the packet ends before it, upper is nil and ok true.
func checksumField(pkt []byte, info Info) (upper []byte, offset int, ok bool) {
	offset, ok = ChecksumOffset(info.Protocol)
	if !ok || info.Fragment || info.Version == 4 && info.Protocol == ProtocolICMPv6 {
		return nil, 0, false
	}
	if info.Length > len(pkt) || info.HeaderLen+offset+2 > info.Length {
		return nil, 0, true
	}
	upper = pkt[info.HeaderLen:info.Length]
	if info.Version == 4 && info.Protocol == ProtocolUDP && upper[offset] == 0 && upper[offset+1] == 0 {
		return nil, 0, false // RFC 768: the sender computed none
	}
	return upper, offset, true
}

// SetIPv4Checksum computes the header checksum of an IPv4 packet anew.
func SetIPv4Checksum(header []byte) {
	header[10], header[11] = 0, 0
	binary.BigEndian.PutUint16(header[10:], ^Sum(header[:int(header[0]&0x0f)*4], 0))
}

// adjust updates the checksum in field for a 16-bit word that changes from before to after (RFC 1624 3, equation 3).
func adjust(field []byte, before, after uint16) {
	sum := ^binary.BigEndian.Uint16(field)
	binary.BigEndian.PutUint16(field, ^Add16(Add16(sum, ^before), after))
}
