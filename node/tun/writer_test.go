package tun_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/tun"
	"github.com/bailiwick-net/bailiwick/node/tun/tuntest"
)

const allOffloads = tun.OffloadChecksum | tun.OffloadTSO4 | tun.OffloadTSO6 | tun.OffloadUSO

// flow makes packets of one flow.
type flow struct {
	v6, udp  bool
	port     uint16
	sequence uint32
}

// next returns the next packet with a payload of n octets. flags are those of TCP.
func (f *flow) next(n int, flags byte) []byte {
	ip := packet.IP{
		Source: netip.MustParseAddr("192.0.2.1"), Destination: netip.MustParseAddr("192.0.2.2"),
		Protocol: packet.ProtocolTCP, HopLimit: 64, DontFragment: true, PayloadLen: 20 + n,
	}
	if f.v6 {
		ip.Source, ip.Destination = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	}
	upper := make([]byte, 20)
	if f.udp {
		ip.Protocol, ip.PayloadLen = packet.ProtocolUDP, 8+n
		upper = upper[:8]
		binary.BigEndian.PutUint16(upper[4:], uint16(8+n))
		upper[7] = 1 // there is a checksum
	} else {
		binary.BigEndian.PutUint32(upper[4:], f.sequence)
		upper[12], upper[13] = 0x50, flags
	}
	binary.BigEndian.PutUint16(upper, f.port)
	binary.BigEndian.PutUint16(upper[2:], 443)
	pkt := append(ip.AppendHeader(nil), upper...)
	for i := range n {
		pkt = append(pkt, byte(f.sequence+uint32(i)))
	}
	f.sequence += uint32(n)
	info, err := packet.Parse(pkt)
	if err != nil || !packet.FixChecksum(pkt, info) {
		panic("the test makes a packet that does not parse")
	}
	return pkt
}

const (
	fin = 0x01
	psh = 0x08
	ack = 0x10
	cwr = 0x80
)

func newWriter(t interface {
	Fatal(...any)
	Cleanup(func())
}, offloads tun.Offload) (*tun.Writer, *tuntest.Peer) {
	q, peer, err := tuntest.New(offloads)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() })
	return tun.NewWriter(q), peer
}

// arrived reads n writes and splits them as the kernel would.
func arrived(t interface{ Fatalf(string, ...any) }, peer *tuntest.Peer, n int) [][]byte {
	var packets [][]byte
	for range n {
		h, pkt, err := peer.Written()
		if err != nil {
			t.Fatalf("%v", err)
		}
		var s tun.Splitter
		if err := s.Reset(h, pkt); err != nil {
			t.Fatalf("what was written cannot be split: %v", err)
		}
		for {
			segment, ok := s.Next()
			if !ok {
				break
			}
			packets = append(packets, slices.Clone(segment))
		}
	}
	return packets
}

// kept clears what coalescing does not keep of a packet with a right checksum: the IPv4 identification, and where in a
// super-packet it was that TCP pushed.
func kept(pkt []byte) []byte {
	if pkt[0]>>4 == 4 {
		pkt[4], pkt[5] = 0, 0
		packet.SetIPv4Checksum(pkt)
	}
	info, err := packet.Parse(pkt)
	if err == nil && info.Protocol == packet.ProtocolTCP {
		pkt[info.HeaderLen+13] &^= psh
		packet.FixChecksum(pkt, info)
	}
	return pkt
}

func TestWhatIsCoalescedSplitsBackInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, peer := newWriter(t, rapid.SampledFrom([]tun.Offload{
			allOffloads, allOffloads &^ tun.OffloadUSO, tun.OffloadChecksum, 0}).Draw(t, "offloads"))
		unknown := rapid.Bool().Draw(t, "checksum unknown")
		flows := make([]*flow, rapid.IntRange(1, 12).Draw(t, "flows"))
		for k := range flows {
			flows[k] = &flow{v6: k%2 == 1, udp: k%3 == 2, port: uint16(1000 + k)}
		}
		sent := map[uint16][][]byte{}
		for range rapid.IntRange(1, 60).Draw(t, "packets") {
			f := rapid.SampledFrom(flows).Draw(t, "flow")
			n := rapid.SampledFrom([]int{0, 1, 100, 100, 100, 100, 99}).Draw(t, "size")
			flags := rapid.SampledFrom([]byte{ack, ack, ack, ack | psh, ack | fin, ack | cwr}).Draw(t, "flags")
			if rapid.IntRange(0, 9).Draw(t, "lost") == 0 {
				f.sequence += 100
			}
			pkt := f.next(n, flags)
			sent[f.port] = append(sent[f.port], slices.Clone(pkt))
			if err := w.Add(pkt, unknown); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		got := map[uint16][][]byte{}
		for _, pkt := range arrived(t, peer, int(w.Stats().Writes)) {
			info, err := packet.Parse(pkt)
			if err != nil {
				t.Fatalf("%x: %v", pkt, err)
			}
			got[info.SourcePort] = append(got[info.SourcePort], pkt)
		}
		for port, want := range sent {
			if len(got[port]) != len(want) {
				t.Fatalf("flow %d: %d packets arrived, %d were sent", port, len(got[port]), len(want))
			}
			for k := range want {
				if !bytes.Equal(kept(got[port][k]), kept(want[k])) {
					t.Fatalf("flow %d, packet %d: got %x, want %x", port, k, got[port][k], want[k])
				}
			}
		}
		if s := w.Stats(); s.Failed != 0 {
			t.Fatalf("counters %+v", s)
		}
	})
}

func TestBulkTCPIsOneWrite(t *testing.T) {
	for _, udp := range []bool{false, true} {
		w, peer := newWriter(t, allOffloads)
		a, b := &flow{port: 1, udp: udp}, &flow{port: 2, v6: true, udp: udp}
		for range 40 {
			for _, f := range []*flow{a, b} {
				if err := w.Add(f.next(1400, ack), false); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if got := w.Stats().Writes; got != 2 {
			t.Errorf("udp=%v: %d writes for two flows, want 2", udp, got)
		}
		h, pkt, err := peer.Written()
		if err != nil {
			t.Fatal(err)
		}
		if h.GSOSize != 1400 || h.Flags != tun.FlagNeedsChecksum || h.GSOType == tun.GSONone || len(pkt) < 40*1400 {
			t.Errorf("udp=%v: got header %+v and %d octets", udp, h, len(pkt))
		}
	}
}

func TestAPushEndsNoSuperPacketAndIsNotLost(t *testing.T) {
	w, peer := newWriter(t, allOffloads)
	f := &flow{port: 1}
	for k := range 4 {
		flags := byte(ack)
		if k == 1 {
			flags |= psh
		}
		if err := w.Add(f.next(100, flags), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := w.Stats().Writes; got != 1 {
		t.Fatalf("%d writes, want 1", got)
	}
	segments := arrived(t, peer, 1)
	for k, segment := range segments {
		if pushed := segment[packet.IPv4HeaderLen+13]&psh != 0; pushed != (k == 3) {
			t.Errorf("segment %d pushes: %v", k, pushed)
		}
	}
	if len(segments) != 4 {
		t.Errorf("%d segments, want 4", len(segments))
	}
}

func TestAWrongChecksumIsNeitherJoinedNorHidden(t *testing.T) {
	w, peer := newWriter(t, allOffloads)
	f := &flow{port: 1}
	for k := range 3 {
		pkt := f.next(100, ack)
		if k == 1 {
			pkt[len(pkt)-1] ^= 1
		}
		if err := w.Add(pkt, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	for k := range 3 {
		h, pkt, err := peer.Written()
		if err != nil {
			t.Fatal(err)
		}
		if k != 1 {
			continue
		}
		info, err := packet.Parse(pkt)
		if err != nil || h.Flags != 0 || packet.VerifyChecksum(pkt, info) {
			t.Errorf("the wrong packet was written with %+v, %v, and its checksum made right", h, err)
		}
	}
}

func TestUnknownChecksumsAreMadeRight(t *testing.T) {
	for _, udp := range []bool{false, true} {
		for _, payload := range []int{0, 100} {
			w, peer := newWriter(t, allOffloads)
			f := &flow{port: 1, udp: udp}
			pkt := f.next(payload, ack)
			at := 36
			if udp {
				at = 26
			}
			pkt[at] ^= 0x55
			if err := w.Add(pkt, true); err != nil {
				t.Fatal(err)
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			got := arrived(t, peer, 1)[0]
			info, err := packet.Parse(got)
			if err != nil || !packet.VerifyChecksum(got, info) {
				t.Errorf("udp=%v, %d octets: got %x, %v", udp, payload, got, err)
			}
		}
	}
}

func TestUDPWithoutChecksumStaysSo(t *testing.T) {
	w, peer := newWriter(t, allOffloads)
	pkt := (&flow{port: 1, udp: true}).next(10, 0)
	pkt[26], pkt[27] = 0, 0
	want := slices.Clone(pkt)
	if err := w.Add(pkt, true); err != nil {
		t.Fatal(err)
	}
	if h, got, err := peer.Written(); err != nil || h != (tun.Header{}) || !bytes.Equal(got, want) {
		t.Errorf("got %+v %x, %v, want %x", h, got, err, want)
	}
}

func TestWriterGoesOnAfterGarbage(t *testing.T) {
	w, peer := newWriter(t, allOffloads)
	for _, b := range [][]byte{nil, {0x45}, bytes.Repeat([]byte{0xff}, 60)} {
		if err := w.Add(b, false); err == nil {
			t.Errorf("%x was taken for an IP packet", b)
		}
	}
	pkt := (&flow{port: 1}).next(10, ack)
	if err := w.Add(pkt, false); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := arrived(t, peer, 1); len(got) != 1 || w.Stats() != (tun.WriterStats{Packets: 1, Writes: 1, Failed: 3}) {
		t.Errorf("got %d packets, counters %+v", len(got), w.Stats())
	}
}

func TestWriterDoesNotAllocate(t *testing.T) {
	q, peer, err := tuntest.New(allOffloads)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	w := tun.NewWriter(q)
	f := &flow{port: 1}
	packets := make([][]byte, 40)
	for k := range packets {
		packets[k] = f.next(1400, ack)
	}
	work := make([]byte, 1440)
	other := make([]byte, 1440)
	buf := make([]byte, tun.BufferSize)
	allocated := testing.AllocsPerRun(50, func() {
		copy(work, packets[0])
		copy(other, packets[1])
		if w.Add(work, false) != nil || w.Add(other, false) != nil || w.Flush() != nil {
			t.Fatal("write failed")
		}
		if err := peer.Discard(buf); err != nil {
			t.Fatal(err)
		}
	})
	if allocated != 0 {
		t.Errorf("%v allocations, want 0", allocated)
	}
}

// BenchmarkWriter coalesces 40 packets of one TCP flow, checksums verified, up to the system call and through a socket.
func BenchmarkWriter(b *testing.B) {
	q, peer, err := tuntest.New(allOffloads)
	if err != nil {
		b.Fatal(err)
	}
	defer peer.Close()
	w := tun.NewWriter(q)
	f := &flow{port: 1}
	var packets, work [40][]byte
	for k := range packets {
		packets[k] = f.next(1400, ack)
		work[k] = slices.Clone(packets[k])
	}
	buf := make([]byte, tun.BufferSize)
	b.SetBytes(40 * 1400)
	for b.Loop() {
		for k := range work {
			copy(work[k][:40], packets[k])
			if err := w.Add(work[k], false); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			b.Fatal(err)
		}
		if err := peer.Discard(buf); err != nil {
			b.Fatal(err)
		}
	}
}
