package packet

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// Limits of a Reassembler.
const (
	// ReassemblyTimeout is how long the fragments of a packet are kept (RFC 1122 3.3.2, RFC 8200 4.5: 60 s at most).
	ReassemblyTimeout = 30 * time.Second
	maxReassembly     = 4 << 20 // octets of all fragments kept
	maxPackets        = 256     // in the making
	maxPieces         = 64      // of one packet
)

// Reassembler makes whole packets of fragments: transport mode protects whole packets only (RFC 4303 3.1.1), and only
// these have the ports that policies name. Its memory is bounded; the oldest packet goes first. One goroutine owns it.
type Reassembler struct {
	packets map[fragmentKey]*pieces
	octets  int
}

// fragmentKey is what the fragments of one packet share (RFC 791 3.2, RFC 8200 4.5).
type fragmentKey struct {
	source, destination netip.Addr
	protocol            uint8 // IPv4 only
	id                  uint32
}

// pieces is a packet in the making.
type pieces struct {
	since  time.Time
	header []byte // IP header of the first fragment, made ready for the whole packet; nil until it came
	list   []piece
	end    int // length of the reassembled part; -1 until the last fragment came
	have   int // octets in list
}

type piece struct {
	offset int
	octets []byte
}

// NewReassembler returns an empty Reassembler.
func NewReassembler() *Reassembler { return &Reassembler{packets: map[fragmentKey]*pieces{}} }

// Add takes one fragment, which it copies, and returns the whole packet when this was the last one missing. A fragment
// that overlaps another discards them all (RFC 5722 4, RFC 8200 4.5), as does one that makes the packet too long.
func (r *Reassembler) Add(now time.Time, pkt []byte, info Info) ([]byte, bool) {
	if !info.Fragment || info.Length > len(pkt) {
		return nil, false
	}
	key, header, body, more := fragmentParts(pkt[:info.Length], info)
	// Every fragment but the last is a multiple of 8 octets.
	if len(body) == 0 || more && len(body)%8 != 0 || info.FragmentOffset+len(body) > 0xffff {
		r.drop(key)
		return nil, false
	}
	r.Expire(now)
	p := r.packets[key]
	if p == nil {
		p = &pieces{since: now, end: -1}
		r.packets[key] = p
	}
	at, found := slices.BinarySearchFunc(p.list, info.FragmentOffset, func(a piece, offset int) int { return a.offset - offset })
	if found && slices.Equal(p.list[at].octets, body) {
		return nil, false // the same fragment again
	}
	end := info.FragmentOffset + len(body)
	switch {
	case found, at > 0 && p.list[at-1].offset+len(p.list[at-1].octets) > info.FragmentOffset,
		at < len(p.list) && end > p.list[at].offset, p.end >= 0 && (end > p.end || !more), len(p.list) == maxPieces,
		!more && len(p.list) > 0 && p.list[len(p.list)-1].offset+len(p.list[len(p.list)-1].octets) > end:
		r.drop(key)
		return nil, false
	}
	if !more {
		p.end = end
	}
	if info.FragmentOffset == 0 {
		p.header = slices.Clone(header)
	}
	p.list = slices.Insert(p.list, at, piece{info.FragmentOffset, slices.Clone(body)})
	p.have += len(body)
	r.octets += len(body)
	if p.header == nil || p.have != p.end {
		r.bound()
		return nil, false
	}
	whole := p.join()
	r.drop(key)
	return whole, whole != nil
}

// Expire forgets the packets whose fragments did not all come in time.
func (r *Reassembler) Expire(now time.Time) {
	for key, p := range r.packets {
		if now.Sub(p.since) >= ReassemblyTimeout {
			r.drop(key)
		}
	}
}

// Pending returns how many packets wait for fragments.
func (r *Reassembler) Pending() int { return len(r.packets) }

func (r *Reassembler) drop(key fragmentKey) {
	if p := r.packets[key]; p != nil {
		r.octets -= p.have
		delete(r.packets, key)
	}
}

// bound drops the oldest packets until the rest fits.
func (r *Reassembler) bound() {
	for r.octets > maxReassembly || len(r.packets) > maxPackets {
		var oldest fragmentKey
		var since time.Time
		for key, p := range r.packets {
			if since.IsZero() || p.since.Before(since) {
				oldest, since = key, p.since
			}
		}
		r.drop(oldest)
	}
}

// join puts header and pieces together; nil where the packet would be longer than IP allows.
func (p *pieces) join() []byte {
	length := len(p.header) + p.end
	whole := make([]byte, 0, length)
	whole = append(whole, p.header...)
	for _, piece := range p.list {
		whole = append(whole, piece.octets...)
	}
	if whole[0]>>4 == 4 {
		if length > 0xffff {
			return nil
		}
		binary.BigEndian.PutUint16(whole[2:], uint16(length))
		whole[6], whole[7] = 0, 0
		SetIPv4Checksum(whole)
		return whole
	}
	if length-IPv6HeaderLen > 0xffff {
		return nil
	}
	binary.BigEndian.PutUint16(whole[4:], uint16(length-IPv6HeaderLen))
	return whole
}

// fragmentParts takes a fragment that Parse accepted apart. header is the IP header; for IPv6 it has lost the fragment
// header, and names what followed that.
func fragmentParts(pkt []byte, info Info) (key fragmentKey, header, body []byte, more bool) {
	key = fragmentKey{source: info.Source, destination: info.Destination}
	if info.Version == 4 {
		key.protocol, key.id = pkt[9], uint32(binary.BigEndian.Uint16(pkt[4:]))
		return key, pkt[:info.HeaderLen], pkt[info.HeaderLen:], pkt[6]&0x20 != 0
	}
	field, at := 6, IPv6HeaderLen
	for pkt[field] != ProtocolFragment {
		field, at = at, at+int(pkt[at+1])*8+8
	}
	key.id = binary.BigEndian.Uint32(pkt[at+4:])
	header = slices.Clone(pkt[:at])
	header[field] = pkt[at]
	return key, header, pkt[at+8:], pkt[at+3]&1 != 0
}
