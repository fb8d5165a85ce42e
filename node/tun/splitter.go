package tun

import (
	"encoding/binary"
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/packet"
)

// maxHeaders bounds the headers of a super-packet: IPv6 with some extension headers and TCP with all its options.
const maxHeaders = 256

// TCP flags.
const (
	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpPSH = 0x08
	tcpACK = 0x10
	tcpURG = 0x20
	tcpECE = 0x40
	tcpCWR = 0x80
)

// Splitter turns what Read gave into packets for the wire. One goroutine owns it; it does not allocate.
//
// It works inside the read buffer: the headers of segment k are written over the end of the payload of segment k-1,
// which by then has been sealed.
type Splitter struct {
	pkt      []byte // the super-packet, cut to its length, with the capacity of its buffer
	info     packet.Info
	headers  [maxHeaders]byte
	length   int // of the headers; 0 when there is one segment only
	size     int // payload of each segment but the last
	count    int
	next     int
	id       uint16
	sequence uint32
	flags    byte
}

// Reset starts on pkt. A packet without segmentation is one segment; a partial checksum is completed. The error wraps
// ErrSegmentation; Next then gives nothing.
func (s *Splitter) Reset(h Header, pkt []byte) error {
	s.count, s.next, s.length = 0, 0, 0
	if h.GSOType == GSONone {
		if h.Flags&FlagNeedsChecksum != 0 {
			if err := packet.CompleteChecksum(pkt, int(h.CsumStart), int(h.CsumOffset)); err != nil {
				return fmt.Errorf("checksum at %d+%d of %d octets: %w", h.CsumStart, h.CsumOffset, len(pkt), ErrSegmentation)
			}
		}
		s.pkt, s.count, s.size = pkt, 1, len(pkt)
		return nil
	}
	info, err := packet.Parse(pkt)
	if err != nil {
		return fmt.Errorf("super-packet: %w: %w", ErrSegmentation, err)
	}
	pkt = pkt[:info.Length]
	upper := pkt[info.HeaderLen:]
	headers := info.HeaderLen
	kind := h.GSOType &^ gsoECN
	switch {
	case info.Fragment:
		return fmt.Errorf("super-packet is a fragment: %w", ErrSegmentation)
	case info.Protocol == packet.ProtocolTCP && len(upper) >= packet.TCPHeaderLen &&
		(kind == GSOTCPv4 && info.Version == 4 || kind == GSOTCPv6 && info.Version == 6):
		// hdr_len is only a hint (virtio 1.2, 5.1.6.2): the data offset counts.
		headers += int(upper[12]>>4) * 4
		if headers < info.HeaderLen+packet.TCPHeaderLen {
			return fmt.Errorf("TCP data offset %d: %w", upper[12]>>4, ErrSegmentation)
		}
		s.sequence, s.flags = binary.BigEndian.Uint32(upper[4:]), upper[13]
	case info.Protocol == packet.ProtocolUDP && kind == GSOUDP:
		headers += packet.UDPHeaderLen
	default:
		return fmt.Errorf("type %#x of protocol %d: %w", h.GSOType, info.Protocol, ErrSegmentation)
	}
	if h.GSOSize == 0 || headers > len(pkt) || headers > maxHeaders {
		return fmt.Errorf("segments of %d octets, headers of %d, packet of %d: %w", h.GSOSize, headers, len(pkt), ErrSegmentation)
	}
	copy(s.headers[:], pkt[:headers])
	s.pkt, s.info, s.length, s.size = pkt, info, headers, int(h.GSOSize)
	s.count = max(1, (len(pkt)-headers+s.size-1)/s.size)
	if info.Version == 4 {
		s.id = binary.BigEndian.Uint16(pkt[4:])
	}
	return nil
}

// Count returns how many segments there are in all.
func (s *Splitter) Count() int { return s.count }

// SegmentLen returns the length of every segment but the last, which may be shorter.
func (s *Splitter) SegmentLen() int { return min(s.length+s.size, len(s.pkt)) }

// Next returns the next segment, a whole IP packet inside the buffer of Reset; it is valid until the next call.
// Its spare capacity belongs to the segments that follow: a borrower puts back what it changes before Next.
func (s *Splitter) Next() ([]byte, bool) {
	if s.next >= s.count {
		return nil, false
	}
	k := s.next
	s.next++
	if s.length == 0 {
		return s.pkt, true
	}
	start := k * s.size
	end := min(start+s.size, len(s.pkt)-s.length)
	segment := s.pkt[start : s.length+end]
	copy(segment, s.headers[:s.length])
	if s.info.Version == 4 {
		binary.BigEndian.PutUint16(segment[2:], uint16(len(segment)))
		binary.BigEndian.PutUint16(segment[4:], s.id+uint16(k))
		packet.SetIPv4Checksum(segment)
	} else {
		binary.BigEndian.PutUint16(segment[4:], uint16(len(segment)-packet.IPv6HeaderLen))
	}
	upper := segment[s.info.HeaderLen:]
	field := upper[6:8]
	if s.info.Protocol == packet.ProtocolTCP {
		binary.BigEndian.PutUint32(upper[4:], s.sequence+uint32(start))
		upper[13] = s.flags
		if k < s.count-1 {
			upper[13] &^= tcpFIN | tcpPSH
		}
		if k > 0 {
			upper[13] &^= tcpCWR // RFC 3168 6.1.2: once per window reduction
		}
		field = upper[16:18]
	} else {
		binary.BigEndian.PutUint16(upper[4:], uint16(len(upper)))
	}
	field[0], field[1] = 0, 0
	sum := ^packet.Sum(upper, packet.PseudoHeaderSum(s.info.Source, s.info.Destination, s.info.Protocol, len(upper)))
	if sum == 0 && s.info.Protocol == packet.ProtocolUDP {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(field, sum)
	return segment, true
}
