package userspace

import (
	"github.com/bailiwick-net/bailiwick/node/transport"
	"github.com/bailiwick-net/bailiwick/node/tun"
)

// Bounds of the outbox, in octets.
const (
	outboxSize = 4 * tun.MaxPacket
	// sealOverhead is more than any suite adds to a packet.
	sealOverhead = 128
)

// outbox collects sealed packets, one behind the other, that can go to the kernel in one call: those of one SA and one
// traffic class that are equally long, the last one excepted. It is empty between two rounds of the packet thread, so
// that no command ever meets a packet that was sealed before it and is not sent yet.
type outbox struct {
	buffer  []byte
	start   int // of the packets that wait, in buffer
	packets int
	segment int // length of each but the last
	closed  bool
	a       *association
	class   uint8
}

func newOutbox() outbox { return outbox{buffer: make([]byte, 0, outboxSize)} }

// seal puts one packet into the outbox, and sends what it does not go with.
func (l *loop) seal(a *association, pkt []byte, class uint8) error {
	o := &l.outbox
	if cap(o.buffer)-len(o.buffer) < len(pkt)+sealOverhead {
		l.sendOutbox()
		o.buffer, o.start = o.buffer[:0], 0
	}
	at := len(o.buffer)
	sealed, err := a.out.Seal(o.buffer, pkt)
	if err != nil {
		return err
	}
	size := len(sealed) - at
	if o.packets > 0 && (o.closed || size > o.segment || o.a != a || o.class != class) {
		l.sendOutbox()
	}
	if o.packets == 0 {
		o.start, o.a, o.class, o.segment = at, a, class, size
	}
	o.buffer = sealed
	o.packets++
	o.closed = size < o.segment || o.packets == transport.MaxSendSegments || len(sealed)-o.start+o.segment > transport.MaxSendOctets
	a.outPackets++
	a.outOctets += uint64(size)
	return nil
}

// sendOutbox sends what waits, and leaves the buffer as it is.
func (l *loop) sendOutbox() {
	o := &l.outbox
	if o.packets == 0 {
		return
	}
	a := o.a
	l.message = transport.Message{
		Local: a.child.Local, Remote: a.remote, Encap: a.child.Encap, TrafficClass: o.class,
		Payload: o.buffer[o.start:], SegmentLen: o.segment,
	}
	l.counters[counterSends]++
	send := l.sockets.SendESP
	if o.segment > a.whole {
		send = func(m *transport.Message) error { return l.sendCut(a, m) }
	}
	if err := send(&l.message); err != nil {
		l.counters[counterSendFailed] += uint64(o.packets)
		a.discarded += uint64(o.packets)
		l.warn("cannot send ESP", err)
	}
	o.packets, o.closed, o.a = 0, false, nil
}

// flush sends what waits, and empties the outbox.
func (l *loop) flush() {
	l.sendOutbox()
	l.outbox.buffer, l.outbox.start = l.outbox.buffer[:0], 0
}
