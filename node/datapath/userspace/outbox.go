package userspace

import (
	"time"

	"github.com/bailiwick-net/bailiwick/node/esp"
	"github.com/bailiwick-net/bailiwick/node/transport"
	"github.com/bailiwick-net/bailiwick/node/tun"
)

// Bounds of the outbox, in octets.
const (
	outboxSize = 4 * tun.MaxPacket
	// sealOverhead is more than any suite adds to a packet.
	sealOverhead = 128
)

// patience is how long the rest of a super-packet waits for the next one. A super-packet of 64 KiB is longer once it is
// sealed than one send call takes, and the few packets that are left would cost as much as a full call, here and at the
// peer.
const patience = 40 * time.Microsecond

// sender gives sealed packets to the kernel.
type sender interface {
	SendESP(m *transport.Message) error
}

// outbox collects sealed packets, one behind the other, that can go to the kernel in one call: those of one SA and with
// one outer header that are equally long, the last one excepted. It is empty whenever a command runs, so that no command
// meets a packet that was sealed before it and is not sent yet.
type outbox struct {
	sender  sender
	buffer  []byte
	start   int // of the packets that wait, in buffer
	packets int
	segment int // length of each but the last
	closed  bool
	rest    bool // the packets before those that wait filled a call
	a       *association
	outer   outer
	since   time.Time // when the thread last had nothing to add
	message transport.Message
}

func newOutbox(s sender) outbox { return outbox{sender: s, buffer: make([]byte, 0, outboxSize)} }

// seal puts one packet into the outbox, and sends what it does not go with. It returns the length of the ESP packet.
func (l *loop) seal(a *association, out *esp.Outbound, pkt []byte, header outer) (int, error) {
	o := &l.outbox
	if cap(o.buffer)-len(o.buffer) < len(pkt)+sealOverhead {
		l.sendOutbox()
		o.buffer, o.start = o.buffer[:0], 0
	}
	at := len(o.buffer)
	sealed, err := out.Seal(o.buffer, pkt)
	if err != nil {
		return 0, err
	}
	size := len(sealed) - at
	full := false
	if o.packets > 0 && (o.closed || size > o.segment || o.a != a || o.outer != header) {
		full = o.closed && size == o.segment && o.a == a
		l.sendOutbox()
	}
	if o.packets == 0 {
		o.start, o.a, o.outer, o.segment, o.rest = at, a, header, size, full
	}
	o.buffer = sealed
	o.packets++
	o.closed = size < o.segment || o.packets == transport.MaxSendSegments || len(sealed)-o.start+o.segment > transport.MaxSendOctets
	return size, nil
}

// sendOutbox sends what waits, and leaves the buffer as it is.
func (l *loop) sendOutbox() {
	o := &l.outbox
	if o.packets == 0 {
		return
	}
	a := o.a
	o.message = transport.Message{
		Local: a.child.Local, Remote: a.remote, Encap: a.child.Encap, TrafficClass: o.outer.class, HopLimit: o.outer.hops,
		Payload: o.buffer[o.start:], SegmentLen: o.segment,
	}
	l.counters[counterSends]++
	var err error
	if o.segment > a.whole {
		err = l.sendCut(a, &o.message)
	} else {
		err = o.sender.SendESP(&o.message)
	}
	if err != nil {
		l.counters[counterSendFailed] += uint64(o.packets)
		a.discarded.Add(uint64(o.packets))
		l.warn("cannot send ESP", err)
	}
	o.packets, o.closed, o.a = 0, false, nil
}

// flush sends what waits, and empties the outbox.
func (l *loop) flush() {
	l.sendOutbox()
	l.outbox.buffer, l.outbox.start = l.outbox.buffer[:0], 0
}

// settle ends a look at the TUN: what waits goes now, but for the rest of a super-packet that more may follow.
func (l *loop) settle() {
	o := &l.outbox
	if o.packets == 0 || !o.rest || o.closed {
		l.flush()
		return
	}
	o.since = l.now
	if o.start > cap(o.buffer)/2 {
		n := copy(o.buffer[:cap(o.buffer)], o.buffer[o.start:])
		o.buffer, o.start = o.buffer[:n], 0
	}
}

// expired reports whether something has waited long enough for more.
func (o *outbox) expired(now time.Time) bool { return o.packets > 0 && now.Sub(o.since) >= patience }
