package esp

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Outbound seals. One goroutine owns it; Fork makes one for another goroutine on the same sequence numbers. Stats may
// be called by anyone.
type Outbound struct {
	spi      sa.SPI
	mode     sa.Mode
	encap    bool
	crypt    *transform
	sequence *sequence
	saved    [MaxTrailer]byte // what stood where the trailer was borrowed

	counts    OutboundStats
	published struct{ packets, octets, errors atomic.Uint64 }
}

// sequence hands out sequence numbers, each once, to every fork.
type sequence struct {
	last  atomic.Uint64
	limit uint64
}

// next returns the number after the last one, false when they are used up: an SA never cycles (RFC 4303 3.3.3).
func (s *sequence) next() (uint64, bool) {
	for {
		last := s.last.Load()
		if last >= s.limit {
			return 0, false
		}
		if s.last.CompareAndSwap(last, last+1) {
			return last + 1, true
		}
	}
}

// NewOutbound makes the outbound half of c, whose keys may be wiped afterwards. Its errors wrap ErrSuite or ErrKey.
func NewOutbound(c sa.Child) (*Outbound, error) {
	if err := checkEndpoints(c); err != nil {
		return nil, fmt.Errorf("make outbound SA %s: %w", c.Out.SPI, err)
	}
	crypt, err := newTransform(c.Suite, c.Out, true)
	if err != nil {
		return nil, fmt.Errorf("make outbound SA %s: %w", c.Out.SPI, err)
	}
	s := &sequence{limit: math.MaxUint32}
	if c.Suite.ESN {
		s.limit = math.MaxUint64
	}
	return &Outbound{spi: c.Out.SPI, mode: c.Mode, encap: c.Encap, crypt: crypt, sequence: s}, nil
}

// checkEndpoints refuses an SA whose mode or addresses do not make sense.
func checkEndpoints(c sa.Child) error {
	if c.Mode != sa.Transport && c.Mode != sa.Tunnel {
		return fmt.Errorf("mode %s: %w", c.Mode, ErrSuite)
	}
	local, remote := c.Local.Addr(), c.Remote.Addr()
	if !local.IsValid() || local.Is4() != remote.Is4() || local.Is4In6() || remote.Is4In6() || !remote.IsValid() {
		return fmt.Errorf("endpoints %s and %s are not of one family: %w", c.Local, c.Remote, ErrSuite)
	}
	return nil
}

// Fork returns an Outbound for another goroutine, with the same key and the same sequence numbers. The owner of o calls
// it.
func (o *Outbound) Fork() (*Outbound, error) {
	crypt, err := o.crypt.forkOutbound()
	if err != nil {
		return nil, fmt.Errorf("fork outbound SA %s: %w", o.spi, err)
	}
	return &Outbound{spi: o.spi, mode: o.mode, encap: o.encap, crypt: crypt, sequence: o.sequence}, nil
}

// SetEncap says whether the packets go in UDP from now on, which changes how long they may be. The owner calls it.
func (o *Outbound) SetEncap(encap bool) { o.encap = encap }

// Last is the sequence number used last, by all forks; 0 before the first.
func (o *Outbound) Last() uint64 { return o.sequence.last.Load() }

// SPI returns the SPI that Seal writes.
func (o *Outbound) SPI() sa.SPI { return o.spi }

// Seal appends the ESP packet that protects the IP packet pkt to dst. In transport mode it holds what follows the IP
// header (and after hop-by-hop and routing headers). The two must not overlap, spare capacity included: where pkt has
// MaxTrailer octets of it, these are borrowed for the trailer and put back, which spares a copy. With room for
// SealedLen in dst it does not allocate.
func (o *Outbound) Seal(dst, pkt []byte) ([]byte, error) {
	payload, next, err := o.payload(pkt)
	if err != nil {
		o.counts.Errors++
		return dst, err
	}
	return o.seal(dst, payload, next)
}

// SealIP appends to dst, in transport mode, the whole IP packet that Seal only gives the ESP part of: the header of pkt
// with its options or hop-by-hop and routing headers kept and protocol, length and checksum made to fit. With
// encapsulation the ports of UDP are those of source and destination.
func (o *Outbound) SealIP(dst, pkt []byte, source, destination uint16) ([]byte, error) {
	payload, next, err := o.payload(pkt)
	if err != nil || o.mode != sa.Transport {
		o.counts.Errors++
		return dst, ErrPacket
	}
	info, err := packet.Parse(pkt)
	if err != nil {
		o.counts.Errors++
		return dst, fmt.Errorf("seal packet: %w", err)
	}
	at := len(dst)
	esp := o.crypt.sealedLen(len(payload))
	protocol, udp := uint8(packet.ProtocolESP), 0
	if o.encap {
		protocol, udp = packet.ProtocolUDP, packet.UDPHeaderLen
	}
	length := info.TransportOffset + udp + esp
	if length > math.MaxUint16 {
		o.counts.Errors++
		return dst, fmt.Errorf("packet of %d octets once sealed: %w", length, ErrPacket)
	}
	dst = append(dst, pkt[:info.TransportOffset]...)
	if o.encap {
		n := uint16(udp + esp)
		dst = append(dst, byte(source>>8), byte(source), byte(destination>>8), byte(destination), byte(n>>8), byte(n), 0, 0)
	}
	sealed, err := o.seal(dst, payload, next)
	if err != nil {
		return dst[:at], err
	}
	whole := sealed[at:]
	packet.SetTransport(whole, info, protocol)
	if o.encap && info.Version == 6 { // RFC 8200 8.1; over IPv4 it is 0 (RFC 3948 2.1)
		if info, err = packet.Parse(whole); err != nil || !packet.FixChecksum(whole, info) {
			return dst[:at], ErrPacket
		}
	}
	return sealed, nil
}

// payload returns what of pkt goes into ESP, and its protocol.
func (o *Outbound) payload(pkt []byte) ([]byte, uint8, error) {
	length, ok := ipLength(pkt)
	if !ok {
		return nil, 0, ErrPacket
	}
	pkt = pkt[:length]
	v4 := pkt[0]>>4 == 4
	if o.mode == sa.Tunnel {
		if v4 {
			return pkt, packet.ProtocolIPv4, nil
		}
		return pkt, packet.ProtocolIPv6, nil
	}
	// RFC 4303 3.1.1: transport mode is for whole packets only.
	if v4 {
		header := int(pkt[0]&0x0f) * 4
		if header < packet.IPv4HeaderLen || header > length || binary.BigEndian.Uint16(pkt[6:])&0x3fff != 0 {
			return nil, 0, ErrPacket
		}
		return pkt[header:], pkt[9], nil
	}
	switch next := pkt[6]; next {
	case packet.ProtocolTCP, packet.ProtocolUDP, packet.ProtocolICMPv6:
		return pkt[packet.IPv6HeaderLen:], next, nil
	}
	info, err := packet.Parse(pkt)
	if err != nil || info.Fragment {
		return nil, 0, ErrPacket
	}
	return pkt[info.TransportOffset:], info.NextHeader, nil
}

func (o *Outbound) seal(dst, payload []byte, next uint8) ([]byte, error) {
	seq, ok := o.sequence.next()
	if !ok {
		o.counts.Errors++
		return dst, ErrExhausted
	}
	padding := o.crypt.padding(len(payload))
	trailer := padding + trailerLen
	size := o.crypt.sealedLen(len(payload))
	at := len(dst)
	dst = slices.Grow(dst, size)[:at+size]
	esp := dst[at:]
	binary.BigEndian.PutUint32(esp, uint32(o.spi))
	binary.BigEndian.PutUint32(esp[4:], uint32(seq))

	if cap(payload)-len(payload) >= trailer {
		plain := payload[:len(payload)+trailer]
		saved := o.saved[:copy(o.saved[:], plain[len(payload):])]
		putTrailer(plain[len(payload):], next)
		o.crypt.seal(esp, plain, seq)
		copy(plain[len(payload):], saved)
	} else {
		body := headerLen + o.crypt.ivLen
		plain := esp[body : body+len(payload)+trailer]
		copy(plain, payload)
		putTrailer(plain[len(payload):], next)
		o.crypt.seal(esp, plain, seq)
	}
	o.counts.Packets++
	o.counts.Octets += uint64(size)
	return dst, nil
}

// putTrailer writes padding 1, 2, 3, ..., its length and the next header (RFC 4303 2.4).
func putTrailer(b []byte, next uint8) {
	n := len(b) - trailerLen
	for i := range n {
		b[i] = byte(i + 1)
	}
	b[n], b[n+1] = byte(n), next
}

// SealedLen returns the length of the ESP packet for an IP packet of n octets whose headers before ESP take
// transportOffset octets (only used in transport mode).
func (o *Outbound) SealedLen(n, transportOffset int) int {
	if o.mode == sa.Transport {
		n -= transportOffset
	}
	return o.crypt.sealedLen(n)
}

// MaxPacket returns the longest IP packet, without options, whose sealed form fits a path MTU; 0 where none does. ipv6
// is the family of the outer header.
func (o *Outbound) MaxPacket(pathMTU int, ipv6 bool) int {
	header := packet.IPv4HeaderLen
	if ipv6 {
		header = packet.IPv6HeaderLen
	}
	room := pathMTU - header - headerLen - o.crypt.ivLen - o.crypt.icvLen
	if o.encap {
		room -= packet.UDPHeaderLen
	}
	room -= room % o.crypt.padBlock
	room -= trailerLen
	if o.mode == sa.Transport {
		room += header
	}
	return min(max(room, 0), math.MaxUint16)
}

// Publish makes the counters visible to Stats; the owner calls it after each batch.
func (o *Outbound) Publish() {
	o.published.packets.Store(o.counts.Packets)
	o.published.octets.Store(o.counts.Octets)
	o.published.errors.Store(o.counts.Errors)
}

// Stats returns the counters as last published.
func (o *Outbound) Stats() OutboundStats {
	return OutboundStats{
		Packets: o.published.packets.Load(), Octets: o.published.octets.Load(), Errors: o.published.errors.Load(),
		Sequence: o.sequence.last.Load(),
	}
}

// ipLength returns the length an IP packet gives itself, false where it is no IP packet or reaches beyond the slice.
func ipLength(b []byte) (int, bool) {
	if len(b) < packet.IPv4HeaderLen {
		return 0, false
	}
	var length int
	switch b[0] >> 4 {
	case 4:
		length = int(binary.BigEndian.Uint16(b[2:]))
		if length < packet.IPv4HeaderLen {
			return 0, false
		}
	case 6:
		if len(b) < packet.IPv6HeaderLen {
			return 0, false
		}
		length = packet.IPv6HeaderLen + int(binary.BigEndian.Uint16(b[4:]))
	default:
		return 0, false
	}
	return length, length <= len(b)
}
