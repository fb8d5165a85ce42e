package esp

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Inbound opens. One goroutine at a time may call Open and Publish; anyone may call Stats.
type Inbound struct {
	spi    sa.SPI
	mode   sa.Mode
	encap  bool
	crypt  *transform
	window window
	header []byte // of rebuilt packets in transport mode, with length 0
	spill  *Spill

	counts    InboundStats
	published struct{ packets, octets, replayed, integrity, malformed, dummies, highest atomic.Uint64 }
}

// NewInbound makes the inbound half of c. A ReplayWindow of 0 is DefaultReplayWindow; there is no way to do without.
// The keys of c may be wiped afterwards. Its errors wrap ErrSuite or ErrKey.
func NewInbound(c sa.Child) (*Inbound, error) {
	size := c.ReplayWindow
	if size == 0 {
		size = DefaultReplayWindow
	}
	if size < MinReplayWindow || size > MaxReplayWindow {
		return nil, fmt.Errorf("make inbound SA %s: replay window of %d packets, want %d to %d: %w",
			c.In.SPI, size, MinReplayWindow, MaxReplayWindow, ErrSuite)
	}
	if err := checkEndpoints(c); err != nil {
		return nil, fmt.Errorf("make inbound SA %s: %w", c.In.SPI, err)
	}
	crypt, err := newTransform(c.Suite, c.In, false)
	if err != nil {
		return nil, fmt.Errorf("make inbound SA %s: %w", c.In.SPI, err)
	}
	i := &Inbound{spi: c.In.SPI, mode: c.Mode, encap: c.Encap, crypt: crypt, window: newWindow(size), spill: &Spill{}}
	if c.Mode == sa.Transport {
		i.header = packet.IP{
			Source: c.Remote.Addr(), Destination: c.Local.Addr(), HopLimit: 64, DontFragment: true,
		}.AppendHeader(nil)
	}
	return i, nil
}

// SPI returns the SPI that Open accepts.
func (i *Inbound) SPI() sa.SPI { return i.spi }

// Open opens the ESP packet buf[start:end] in place. In transport mode it may overwrite Headroom octets before start:
// they are room the caller left, or the ICV and trailer of the ESP packet opened before from the same buffer. After an
// error the octets of the packet are undefined.
//
// The order is that of RFC 4303 3.4: SPI, sequence number against the window, ICV, window, padding, next header. The
// selectors of the SA are left to the caller.
func (i *Inbound) Open(buf []byte, start, end int) (Opened, error) {
	if start < 0 || end > len(buf) || end-start < i.crypt.sealedLen(0) {
		i.counts.Malformed++
		return Opened{}, ErrShort
	}
	esp := buf[start:end:end]
	if (len(esp)-headerLen-i.crypt.ivLen-i.crypt.icvLen)%i.crypt.padBlock != 0 {
		i.counts.Malformed++
		return Opened{}, ErrShort
	}
	if sa.SPI(binary.BigEndian.Uint32(esp)) != i.spi {
		return Opened{}, ErrSPI
	}
	low := binary.BigEndian.Uint32(esp[4:])
	seq, ok := uint64(low), true
	if i.crypt.esn {
		seq, ok = i.window.reconstruct(low)
	}
	if !ok || !i.window.fresh(seq) {
		i.counts.Replayed++
		return Opened{}, ErrReplay
	}
	plain, ok := i.crypt.open(esp, seq)
	if !ok {
		i.counts.IntegrityFailed++
		return Opened{}, ErrIntegrity
	}
	i.window.accept(seq)

	payload, next, err := trim(plain)
	if err != nil {
		i.counts.Malformed++
		return Opened{}, err
	}
	if next == packet.ProtocolNoNext { // RFC 4303 2.6
		i.counts.Dummies++
		return Opened{}, ErrDummy
	}
	opened := Opened{Sequence: seq}
	if i.mode == sa.Tunnel {
		opened.Packet, err = inner(payload, next)
	} else {
		opened.ChecksumUnknown = i.encap
		opened.Packet, err = i.rebuild(buf, start, len(payload), next)
	}
	if err != nil {
		i.counts.Malformed++
		return Opened{}, err
	}
	i.counts.Packets++
	i.counts.Octets += uint64(end - start)
	return opened, nil
}

// trim takes trailer and padding off, which must be 1, 2, 3, ... (RFC 4303 2.4).
func trim(plain []byte) ([]byte, uint8, error) {
	last := len(plain) - trailerLen
	n, next := int(plain[last]), plain[last+1]
	if n > last {
		return nil, 0, ErrPadding
	}
	wrong := byte(0)
	for k, octet := range plain[last-n : last] {
		wrong |= octet ^ byte(k+1)
	}
	if wrong != 0 {
		return nil, 0, ErrPadding
	}
	return plain[:last-n], next, nil
}

// inner returns the inner packet of tunnel mode, without the traffic flow confidentiality padding after it
// (RFC 4303 2.7).
func inner(payload []byte, next uint8) ([]byte, error) {
	if next != packet.ProtocolIPv4 && next != packet.ProtocolIPv6 {
		return nil, ErrNextHeader
	}
	length, ok := ipLength(payload)
	if !ok || (next == packet.ProtocolIPv4) != (payload[0]>>4 == 4) {
		return nil, ErrInner
	}
	return payload[:length], nil
}

// rebuild puts an IP header before the n octets of payload in buf, which follow the ESP header and IV at start. The
// header goes over these two and into the headroom; where that is not enough, as for an IPv6 header with an AEAD, the
// packet moves to memory of i.
func (i *Inbound) rebuild(buf []byte, start, n int, next uint8) ([]byte, error) {
	body := start + headerLen + i.crypt.ivLen
	length := len(i.header) + n
	var pkt []byte
	if at := body - len(i.header); at >= max(0, start-Headroom) {
		pkt = buf[at : at+length]
	} else {
		pkt = i.spill.take(length)
		copy(pkt[len(i.header):], buf[body:body+n])
	}
	copy(pkt, i.header)
	if pkt[0]>>4 == 4 {
		if length > 0xffff {
			return nil, ErrInner
		}
		binary.BigEndian.PutUint16(pkt[2:], uint16(length))
		pkt[9] = next
		packet.SetIPv4Checksum(pkt)
		return pkt, nil
	}
	if n > 0xffff {
		return nil, ErrInner
	}
	binary.BigEndian.PutUint16(pkt[4:], uint16(n))
	pkt[6] = next
	return pkt, nil
}

// Recycle is that of the Spill. The owner calls it after each batch. Without it nothing breaks, but memory is allocated
// ever again.
func (i *Inbound) Recycle() { i.spill.Recycle() }

// SetSpill gives i memory that it shares with others of the same owner, instead of its own.
func (i *Inbound) SetSpill(s *Spill) { i.spill = s }

// Sizes of a Spill in octets.
const (
	firstSpill = 1 << 17
	lastSpill  = 1 << 21 // more than one receive call of the datapath brings
)

// Spill is memory for packets that Open has to move, used again and again. One goroutine owns it. The zero value is ready.
type Spill struct {
	octets []byte
	used   int
}

// Recycle lets the memory be used again: no packet that Open returned so far may be in use.
func (s *Spill) Recycle() { s.used = 0 }

// take returns n octets. What does not fit gets memory twice as long; packets keep the old one alive.
func (s *Spill) take(n int) []byte {
	if s.used+n > len(s.octets) {
		s.octets, s.used = make([]byte, max(firstSpill, min(2*len(s.octets), lastSpill), n)), 0
	}
	b := s.octets[s.used : s.used+n : s.used+n]
	s.used += n
	return b
}

// Publish makes the counters visible to Stats; the owner calls it after each batch.
func (i *Inbound) Publish() {
	i.published.packets.Store(i.counts.Packets)
	i.published.octets.Store(i.counts.Octets)
	i.published.replayed.Store(i.counts.Replayed)
	i.published.integrity.Store(i.counts.IntegrityFailed)
	i.published.malformed.Store(i.counts.Malformed)
	i.published.dummies.Store(i.counts.Dummies)
	i.published.highest.Store(i.window.highest)
}

// Stats returns the counters as last published.
func (i *Inbound) Stats() InboundStats {
	return InboundStats{
		Packets: i.published.packets.Load(), Octets: i.published.octets.Load(), Replayed: i.published.replayed.Load(),
		IntegrityFailed: i.published.integrity.Load(), Malformed: i.published.malformed.Load(),
		Dummies: i.published.dummies.Load(), Highest: i.published.highest.Load(),
	}
}

// SetEncap says whether the packets come in UDP from now on. The owner calls it.
func (i *Inbound) SetEncap(encap bool) { i.encap = encap }

// Highest is the highest sequence number of an authentic packet so far, 0 before the first. The owner calls it.
func (i *Inbound) Highest() uint64 { return i.window.highest }
