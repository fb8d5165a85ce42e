// Package waiting remembers the first packets of flows until an SA, a fallback or a refusal answers for them, and that
// somebody was asked.
//
// Its invariant: flows, packets and octets stay within bounds whatever comes, the first packets of a flow are worth more
// than the later, and they leave in the order in which they came. It leaves to the backends what a packet is, octets or
// something that the kernel keeps, and what becomes of it.
package waiting

import (
	"iter"
	"maps"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// How long is remembered what concerns flows without an association.
const (
	waitFor    = 30 * time.Second       // packets of a flow that nobody answers for
	askAgain   = 5 * time.Minute        // after an Acquire that nobody answered; the engine's own limits are far below
	refusedFor = 500 * time.Millisecond // that a negotiation failed, before the next packet starts another
)

// Limits bound what packets without an association may cost. Zero means the default.
type Limits struct {
	FlowPackets int // packets that wait for one flow; 64
	Flows       int // flows that wait; 4096
	Octets      int // that wait in all; 16 MiB
}

// WithDefaults fills in what is zero.
func (l Limits) WithDefaults() Limits {
	if l.FlowPackets == 0 {
		l.FlowPackets = 64
	}
	if l.Flows == 0 {
		l.Flows = 4096
	}
	if l.Octets == 0 {
		l.Octets = 16 << 20
	}
	return l
}

// Room is where packets wait. It is not safe for concurrent use.
type Room[P any] struct {
	limits Limits
	size   func(P) int
	keep   func(P) P
	flows  map[ike.Flow]*Flow[P] // by Key
	octets int
}

// Flow is a flow with what waits for it.
type Flow[P any] struct {
	ike.Flow      // with the packet that asked
	Acquired bool // the Acquire was delivered
	opened   time.Time
	packets  []P
	first    time.Time // when the first of packets came
	refused  time.Time // when the negotiation failed; then nothing waits
}

// New makes an empty room. size gives the octets of a packet, keep what is to be remembered of one that finds room.
func New[P any](limits Limits, size func(P) int, keep func(P) P) *Room[P] {
	return &Room[P]{limits: limits.WithDefaults(), size: size, keep: keep, flows: map[ike.Flow]*Flow[P]{}}
}

// Key names a flow whatever its packets are.
func Key(f ike.Flow) ike.Flow {
	f.Packet = spd.Packet{}
	return f
}

// Get returns a flow, nil where there is none.
func (r *Room[P]) Get(f ike.Flow) *Flow[P] { return r.flows[Key(f)] }

// Open returns a flow, and makes it where there is none; nil when there are too many.
func (r *Room[P]) Open(f ike.Flow, now time.Time) *Flow[P] {
	key := Key(f)
	if q, ok := r.flows[key]; ok {
		return q
	}
	if len(r.flows) >= r.limits.Flows && !r.evict() {
		return nil
	}
	q := &Flow[P]{Flow: f, opened: now}
	r.flows[key] = q
	return q
}

// evict forgets the oldest flow of which nothing waits.
func (r *Room[P]) evict() bool {
	var oldest *Flow[P]
	for _, q := range r.flows {
		if len(q.packets) == 0 && (oldest == nil || q.opened.Before(oldest.opened)) {
			oldest = q
		}
	}
	if oldest != nil {
		delete(r.flows, Key(oldest.Flow))
	}
	return oldest != nil
}

// Put has a packet wait, false when there is no room.
func (r *Room[P]) Put(q *Flow[P], packet P, now time.Time) bool {
	size := r.size(packet)
	if len(q.packets) >= r.limits.FlowPackets || r.octets+size > r.limits.Octets {
		return false
	}
	if len(q.packets) == 0 {
		q.first = now
	}
	q.packets = append(q.packets, r.keep(packet))
	r.octets += size
	return true
}

// Refuse returns what waits for a flow, to be dropped; for a moment no packet of it starts another negotiation.
func (r *Room[P]) Refuse(f ike.Flow, now time.Time) (dropped []P) {
	q := r.Open(f, now)
	if q == nil {
		return nil
	}
	q.refused, q.Acquired = now, false
	return r.empty(q)
}

// IsRefused reports whether the moment after a refusal has not passed.
func (q *Flow[P]) IsRefused(now time.Time) bool {
	return !q.refused.IsZero() && now.Sub(q.refused) < refusedFor
}

// Forgive ends a refusal.
func (q *Flow[P]) Forgive() { q.refused = time.Time{} }

// IsEmpty reports whether nothing waits.
func (q *Flow[P]) IsEmpty() bool { return len(q.packets) == 0 }

// Expire returns what waited too long, to be dropped, and forgets flows that nobody answers for.
func (r *Room[P]) Expire(now time.Time) (dropped []P) {
	for key, q := range r.flows {
		if len(q.packets) > 0 && now.Sub(q.first) >= waitFor {
			dropped = append(dropped, r.empty(q)...)
		}
		over := now.Sub(q.opened) >= askAgain || !q.refused.IsZero() && !q.IsRefused(now)
		if over && len(q.packets) == 0 {
			delete(r.flows, key)
		}
	}
	return dropped
}

// Take removes a flow and returns its packets in the order in which they came.
func (r *Room[P]) Take(q *Flow[P]) []P {
	delete(r.flows, Key(q.Flow))
	return r.empty(q)
}

func (r *Room[P]) empty(q *Flow[P]) []P {
	packets := q.packets
	q.packets = nil
	for _, p := range packets {
		r.octets -= r.size(p)
	}
	return packets
}

// Flows are all of them, in no order.
func (r *Room[P]) Flows() iter.Seq[*Flow[P]] { return maps.Values(r.flows) }

// Count returns how many flows there are, and how many packets wait.
func (r *Room[P]) Count() (flows, packets int) {
	for _, q := range r.flows {
		packets += len(q.packets)
	}
	return len(r.flows), packets
}
