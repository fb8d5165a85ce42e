package userspace

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/datapath/datapathtest"
	"github.com/bailiwick-net/bailiwick/node/esp"
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/transport"
	"github.com/bailiwick-net/bailiwick/node/tun"
)

// sent is what reached the kernel: the sequence numbers of the packets of each call.
type sent struct {
	t     *testing.T
	calls [][]uint32
}

func (s *sent) SendESP(m *transport.Message) error {
	var numbers []uint32
	if len(m.Payload) > transport.MaxSendOctets || m.SegmentLen == 0 {
		s.t.Errorf("%d octets in segments of %d", len(m.Payload), m.SegmentLen)
	}
	for segment := range slices.Chunk(m.Payload, m.SegmentLen) {
		numbers = append(numbers, binary.BigEndian.Uint32(segment[4:]))
	}
	s.calls = append(s.calls, numbers)
	return nil
}

// outboxBench is a packet thread with nothing but an outbox and an SA.
type outboxBench struct {
	loop
	sent *sent
	a    *association
}

func newOutboxBench(t *testing.T) *outboxBench {
	t.Helper()
	local, remote := netip.MustParseAddrPort("192.0.2.1:4500"), netip.MustParseAddrPort("192.0.2.2:4500")
	child := sa.Child{
		Mode: sa.Tunnel, Encap: true, Suite: datapathtest.GCM128, Local: local, Remote: remote,
		In: sa.Keys{SPI: 1001, Encryption: sa.NewSecret(make([]byte, 20))}, Out: sa.Keys{SPI: 1002, Encryption: sa.NewSecret(bytes.Repeat([]byte{1}, 20))},
	}
	out, err := esp.NewOutbound(child)
	if err != nil {
		t.Fatal(err)
	}
	s := &sent{t: t}
	b := &outboxBench{sent: s, a: &association{child: child, out: out, remote: remote, limit: 1400, whole: 1500}}
	b.loop = loop{world: &world{}, logger: hclog.NewNullLogger(), outbox: newOutbox(s), requests: make(chan request, 1), writer: tun.NewWriter(nil), now: time.Unix(1e9, 0)}
	b.loops = []*loop{&b.loop}
	return b
}

// superPacket seals n packets of the same length, as protect does with one TUN read.
func (b *outboxBench) superPacket(t *testing.T, n int) {
	t.Helper()
	const length = 1400
	pkt := packet.IP{
		Source: netip.MustParseAddr("192.0.2.1"), Destination: netip.MustParseAddr("192.0.2.2"), Protocol: packet.ProtocolTCP,
		HopLimit: 64, PayloadLen: length - packet.IPv4HeaderLen,
	}.AppendHeader(make([]byte, 0, length))
	for range n {
		if _, err := b.seal(b.a, b.a.out, pkt[:length], outer{}); err != nil {
			t.Fatal(err)
		}
	}
}

// A super-packet of 47 packets is more than a call takes. What is left of it goes with the next one, so that a stream
// needs no more calls than its octets do.
func TestTheRestOfASuperPacketGoesWithTheNext(t *testing.T) {
	b := newOutboxBench(t)
	const supers, packets = 40, 47
	for range supers {
		b.superPacket(t, packets)
		b.settle()
		b.now = b.now.Add(patience / 2)
		if b.outbox.expired(b.now) {
			t.Fatal("the rest is given up while the stream goes on")
		}
	}
	b.flush()
	var all []uint32
	longest := 0
	for _, call := range b.sent.calls {
		all, longest = append(all, call...), max(longest, len(call))
	}
	for i, number := range all {
		if number != uint32(i+1) {
			t.Fatalf("packet %d has the sequence number %d", i, number)
		}
	}
	if len(all) != supers*packets {
		t.Errorf("%d packets were sent of %d", len(all), supers*packets)
	}
	if want := (supers*packets + longest - 1) / longest; len(b.sent.calls) != want {
		t.Errorf("%d calls of up to %d packets, want %d", len(b.sent.calls), longest, want)
	}
}

func TestNothingElseWaits(t *testing.T) {
	b := newOutboxBench(t)
	b.superPacket(t, 3)
	b.settle()
	if len(b.sent.calls) != 1 {
		t.Errorf("after a few packets: %d calls, want 1", len(b.sent.calls))
	}
	b.superPacket(t, 47)
	b.settle()
	if len(b.sent.calls) != 2 || b.outbox.packets == 0 {
		t.Fatalf("after a super-packet: %d calls and %d packets that wait, want 2 and some", len(b.sent.calls), b.outbox.packets)
	}
	if !b.outbox.expired(b.now.Add(patience)) {
		t.Error("the rest waits longer than it may")
	}
	// A command, which may take the SA away, finds nothing sealed and not sent.
	left := -1
	b.requests <- request{command: probe(func(l *loop) { left = l.outbox.packets }), answer: make(chan error, 1)}
	b.commands()
	if left != 0 || len(b.sent.calls) != 3 {
		t.Errorf("a command met %d packets in the outbox, after %d calls", left, len(b.sent.calls))
	}
}

// probe is a command that looks at the thread.
type probe func(*loop)

func (p probe) run(l *loop) error { p(l); return nil }
