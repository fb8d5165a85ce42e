package packet

import "encoding/binary"

// fragmentHeaderLen is the length of the IPv6 fragment header (RFC 8200 4.5).
const fragmentHeaderLen = 8

// FragmentIPv6 cuts a whole IPv6 packet without extension headers into fragments of at most mtu octets (RFC 8200 4.5),
// and calls each with one after the other; it stops at the first error. A fragment is valid until the next call. The error
// is ErrMalformed where the packet cannot be cut.
func FragmentIPv6(pkt []byte, mtu int, id uint32, each func([]byte) error) error {
	info, err := Parse(pkt)
	if err != nil {
		return err
	}
	// Every fragment but the last is a multiple of 8 octets.
	room := (mtu - IPv6HeaderLen - fragmentHeaderLen) &^ 7
	if info.Version != 6 || info.TransportOffset != IPv6HeaderLen || room <= 0 {
		return ErrMalformed
	}
	body := pkt[IPv6HeaderLen:info.Length]
	fragment := make([]byte, IPv6HeaderLen+fragmentHeaderLen, mtu)
	copy(fragment, pkt[:IPv6HeaderLen])
	fragment[6], fragment[IPv6HeaderLen] = ProtocolFragment, pkt[6]
	binary.BigEndian.PutUint32(fragment[IPv6HeaderLen+4:], id)
	for at := 0; at < len(body); at += room {
		n := min(room, len(body)-at)
		field := uint16(at)
		if at+n < len(body) {
			field |= 1 // more follow
		}
		binary.BigEndian.PutUint16(fragment[4:], uint16(fragmentHeaderLen+n))
		binary.BigEndian.PutUint16(fragment[IPv6HeaderLen+2:], field)
		if err := each(append(fragment, body[at:at+n]...)); err != nil {
			return err
		}
	}
	return nil
}
