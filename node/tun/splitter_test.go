package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/node/packet"
)

func TestHeaderRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Header{
			Flags: rapid.Uint8().Draw(t, "flags"), GSOType: rapid.Uint8().Draw(t, "type"), HdrLen: rapid.Uint16().Draw(t, "hdrlen"),
			GSOSize: rapid.Uint16().Draw(t, "size"), CsumStart: rapid.Uint16().Draw(t, "start"), CsumOffset: rapid.Uint16().Draw(t, "offset"),
		}
		b := want.Append(nil)
		if got, err := ParseHeader(b); err != nil || got != want || len(b) != HeaderLen {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
		for n := range b {
			if _, err := ParseHeader(b[:n]); !errors.Is(err, ErrTruncated) {
				t.Fatalf("%d octets: got %v, want %v", n, err, ErrTruncated)
			}
		}
	})
}

// superPacket is what the kernel hands out for one large send.
type superPacket struct {
	v6      bool
	udp     bool
	options int // octets of TCP options, a multiple of 4
	flags   byte
	size    int
	payload []byte
}

func (p superPacket) build() (Header, []byte) {
	ip := packet.IP{
		Source: netip.MustParseAddr("192.0.2.1"), Destination: netip.MustParseAddr("192.0.2.2"),
		Protocol: packet.ProtocolTCP, HopLimit: 64, DontFragment: true, ID: 0xfffe,
	}
	h := Header{Flags: FlagNeedsChecksum, GSOType: GSOTCPv4, GSOSize: uint16(p.size), CsumOffset: 16}
	if p.v6 {
		ip.Source, ip.Destination = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
		h.GSOType = GSOTCPv6
	}
	upper := make([]byte, 20+p.options)
	if p.udp {
		ip.Protocol, h.GSOType, h.CsumOffset = packet.ProtocolUDP, GSOUDP, 6
		upper = make([]byte, 8)
		binary.BigEndian.PutUint16(upper[4:], uint16(8+len(p.payload)))
	} else {
		binary.BigEndian.PutUint32(upper[4:], 0xfffffc00) // the sequence number wraps on the way
		upper[12], upper[13] = byte((20+p.options)/4<<4), p.flags
		for i := range p.options {
			upper[20+i] = 1
		}
	}
	binary.BigEndian.PutUint16(upper, 4000)
	binary.BigEndian.PutUint16(upper[2:], 443)
	ip.PayloadLen = len(upper) + len(p.payload)
	h.CsumStart = uint16(ip.HeaderLen())
	h.HdrLen = h.CsumStart + uint16(len(upper))
	return h, slices.Concat(ip.AppendHeader(nil), upper, p.payload)
}

func drawSuperPacket(t *rapid.T) superPacket {
	p := superPacket{
		v6: rapid.Bool().Draw(t, "v6"), udp: rapid.Bool().Draw(t, "udp"),
		options: 4 * rapid.IntRange(0, 10).Draw(t, "options"), size: rapid.IntRange(1, 1500).Draw(t, "size"),
		flags: tcpACK | rapid.SampledFrom([]byte{0, tcpPSH, tcpFIN | tcpPSH, tcpCWR, tcpECE | tcpCWR}).Draw(t, "flags"),
	}
	p.payload = make([]byte, rapid.IntRange(1, min(20*p.size, 60000)).Draw(t, "payload"))
	for i := range p.payload {
		p.payload[i] = byte(i*31 + i>>8)
	}
	return p
}

func TestSegmentsCarryThePayloadWithRightHeaders(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawSuperPacket(t)
		h, pkt := p.build()
		headers := int(h.HdrLen)
		original := slices.Clone(pkt)
		var s Splitter
		if err := s.Reset(h, pkt); err != nil {
			t.Fatal(err)
		}
		var payload []byte
		for k := 0; ; k++ {
			segment, ok := s.Next()
			if !ok {
				if k != s.Count() {
					t.Fatalf("got %d segments, Count says %d", k, s.Count())
				}
				break
			}
			info, err := packet.Parse(segment)
			if err != nil || info.Length != len(segment) || !packet.VerifyChecksum(segment, info) {
				t.Fatalf("segment %d is wrong: %+v, %v", k, info, err)
			}
			last := k == s.Count()-1
			if len(segment) > s.SegmentLen() || !last && len(segment) != s.SegmentLen() || s.SegmentLen() > headers+p.size {
				t.Fatalf("segment %d of %d octets, SegmentLen %d", k, len(segment), s.SegmentLen())
			}
			if !p.v6 {
				if id := binary.BigEndian.Uint16(segment[4:]); id != 0xfffe+uint16(k) || packet.Sum(segment[:20], 0) != 0xffff {
					t.Fatalf("segment %d: identification %#x or header checksum is wrong", k, id)
				}
			}
			if !p.udp {
				tcp := segment[info.HeaderLen:]
				if seq := binary.BigEndian.Uint32(tcp[4:]); seq != 0xfffffc00+uint32(k*p.size) {
					t.Fatalf("segment %d: sequence number %#x", k, seq)
				}
				want := p.flags
				if !last {
					want &^= tcpFIN | tcpPSH
				}
				if k > 0 {
					want &^= tcpCWR
				}
				if tcp[13] != want {
					t.Fatalf("segment %d of %d: flags %#x, want %#x", k, s.Count(), tcp[13], want)
				}
				if !bytes.Equal(tcp[20:headers-info.HeaderLen], original[info.HeaderLen+20:headers]) {
					t.Fatalf("segment %d: options changed", k)
				}
			}
			payload = append(payload, segment[headers:]...)
		}
		if !bytes.Equal(payload, p.payload) {
			t.Fatalf("payload of %d octets came out as %d others", len(p.payload), len(payload))
		}
	})
}

func TestPartialChecksumIsCompleted(t *testing.T) {
	for _, udp := range []bool{false, true} {
		h, pkt := superPacket{udp: udp, payload: []byte("odd")}.build()
		h.GSOType, h.GSOSize = GSONone, 0
		info, err := packet.Parse(pkt)
		if err != nil {
			t.Fatal(err)
		}
		field := pkt[int(h.CsumStart)+int(h.CsumOffset):]
		binary.BigEndian.PutUint16(field, packet.PseudoHeaderSum(info.Source, info.Destination, info.Protocol, len(pkt)-20))
		var s Splitter
		if err := s.Reset(h, pkt); err != nil {
			t.Fatal(err)
		}
		segment, ok := s.Next()
		if !ok || s.Count() != 1 || !packet.VerifyChecksum(segment, info) {
			t.Errorf("udp=%v: got %x, %v", udp, segment, ok)
		}
		if _, ok := s.Next(); ok {
			t.Errorf("udp=%v: a second segment", udp)
		}
	}
}

func TestSplitterRefuses(t *testing.T) {
	base := superPacket{flags: tcpACK, size: 10, payload: make([]byte, 100)}
	for name, change := range map[string]func(*Header, *[]byte){
		"segments of no octets":      func(h *Header, _ *[]byte) { h.GSOSize = 0 },
		"UDP fragmentation offload":  func(h *Header, _ *[]byte) { h.GSOType = 3 },
		"IPv6 type on IPv4":          func(h *Header, _ *[]byte) { h.GSOType = GSOTCPv6 },
		"UDP type on TCP":            func(h *Header, _ *[]byte) { h.GSOType = GSOUDP },
		"a TCP header of 16 octets":  func(_ *Header, p *[]byte) { (*p)[32] = 0x40 },
		"a TCP header of 60 in 20":   func(_ *Header, p *[]byte) { *p = (*p)[:45]; binary.BigEndian.PutUint16((*p)[2:], 45); (*p)[32] = 0xf0 },
		"no TCP header":              func(_ *Header, p *[]byte) { *p = (*p)[:30]; binary.BigEndian.PutUint16((*p)[2:], 30) },
		"a fragment":                 func(_ *Header, p *[]byte) { (*p)[6] = 0x20 },
		"a cut packet":               func(_ *Header, p *[]byte) { *p = (*p)[:50] },
		"nothing":                    func(_ *Header, p *[]byte) { *p = nil },
		"checksum beyond the packet": func(h *Header, _ *[]byte) { h.GSOType, h.CsumStart = GSONone, 123 },
	} {
		h, pkt := base.build()
		change(&h, &pkt)
		var s Splitter
		if err := s.Reset(h, pkt); !errors.Is(err, ErrSegmentation) {
			t.Errorf("%s: got %v, want %v", name, err, ErrSegmentation)
		}
		if segment, ok := s.Next(); ok || s.Count() != 0 {
			t.Errorf("%s: gave %x", name, segment)
		}
	}
}

func TestSplitterDoesNotAllocate(t *testing.T) {
	h, pkt := superPacket{flags: tcpACK, size: 1400, payload: make([]byte, 60000)}.build()
	var s Splitter
	allocated := testing.AllocsPerRun(100, func() {
		if err := s.Reset(h, pkt); err != nil {
			t.Fatal(err)
		}
		for ok := true; ok; {
			_, ok = s.Next()
		}
		// The headers of the first segment are what Reset reads again.
		binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
	})
	if allocated != 0 {
		t.Errorf("%v allocations, want 0", allocated)
	}
}

// FuzzSplitGSO splits any octets under any header: every segment must lie in the buffer and none exceed the size asked.
func FuzzSplitGSO(f *testing.F) {
	for _, p := range []superPacket{
		{flags: tcpACK | tcpPSH, size: 100, payload: make([]byte, 1000)},
		{v6: true, flags: tcpACK, options: 12, size: 7, payload: make([]byte, 50)},
		{udp: true, size: 64, payload: make([]byte, 640)},
		{v6: true, udp: true, size: 64, payload: make([]byte, 65)},
	} {
		h, pkt := p.build()
		f.Add(h.Append(nil), pkt)
		h.GSOType = GSONone
		f.Add(h.Append(nil), pkt)
	}
	f.Fuzz(func(t *testing.T, header, pkt []byte) {
		h, err := ParseHeader(header)
		if err != nil || len(pkt) > MaxPacket {
			return
		}
		var s Splitter
		if s.Reset(h, bytes.Clone(pkt)) != nil {
			return
		}
		count := 0
		for {
			segment, ok := s.Next()
			if !ok {
				break
			}
			count++
			if h.GSOType == GSONone {
				continue
			}
			info, err := packet.Parse(segment)
			if err != nil || info.Length != len(segment) || !packet.VerifyChecksum(segment, info) {
				t.Fatalf("segment %x: %+v, %v", segment, info, err)
			}
			if len(segment) > s.length+int(h.GSOSize) {
				t.Fatalf("segment of %d octets, asked for %d after %d of headers", len(segment), h.GSOSize, s.length)
			}
		}
		if count != s.Count() {
			t.Fatalf("%d segments, Count says %d", count, s.Count())
		}
	})
}

func BenchmarkSplitter(b *testing.B) {
	h, pkt := superPacket{flags: tcpACK, size: 1400, payload: make([]byte, 56000)}.build()
	headers := slices.Clone(pkt[:40])
	var s Splitter
	b.SetBytes(int64(len(pkt)))
	for b.Loop() {
		copy(pkt, headers)
		if err := s.Reset(h, pkt); err != nil {
			b.Fatal(err)
		}
		for ok := true; ok; {
			_, ok = s.Next()
		}
	}
}
