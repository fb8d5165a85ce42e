package userspace

import (
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// How long the packet thread remembers what concerns flows without an association.
const (
	waitFor    = 30 * time.Second       // packets of a flow that nobody answers for
	askAgain   = 5 * time.Minute        // after an Acquire that nobody answered; the engine's own limits are far below
	refusedFor = 500 * time.Millisecond // that a negotiation failed, before the next packet starts another
)

// waiting holds the first packets of flows until an SA, a fallback or a refusal answers for them.
type waiting struct {
	limits Limits
	flows  map[ike.Flow]*queue // the key has a zero Packet
	octets int
}

// queue is what waits for one flow.
type queue struct {
	flow     ike.Flow // with the packet that asked
	opened   time.Time
	acquired bool // the Acquire was delivered
	packets  [][]byte
	first    time.Time // when the first of packets came
	refused  time.Time // when the negotiation failed; then nothing waits
}

func newWaiting(limits Limits) waiting { return waiting{limits: limits, flows: map[ike.Flow]*queue{}} }

func flowKey(f ike.Flow) ike.Flow {
	f.Packet = ike.Flow{}.Packet
	return f
}

// get returns the queue of a flow, nil if there is none.
func (w *waiting) get(f ike.Flow) *queue { return w.flows[flowKey(f)] }

// open returns the queue of a flow, and makes it where there is none; nil when there are too many flows.
func (w *waiting) open(f ike.Flow, now time.Time) *queue {
	key := flowKey(f)
	if q, ok := w.flows[key]; ok {
		return q
	}
	if len(w.flows) >= w.limits.Flows && !w.evict() {
		return nil
	}
	q := &queue{flow: f, opened: now}
	w.flows[key] = q
	return q
}

// evict forgets the oldest flow of which nothing waits.
func (w *waiting) evict() bool {
	var oldest *queue
	for _, q := range w.flows {
		if len(q.packets) == 0 && (oldest == nil || q.opened.Before(oldest.opened)) {
			oldest = q
		}
	}
	if oldest != nil {
		delete(w.flows, flowKey(oldest.flow))
	}
	return oldest != nil
}

// put keeps a copy of a packet, false when there is no room: the first packets of a flow are worth more than the later.
func (w *waiting) put(q *queue, pkt []byte, now time.Time) bool {
	if len(q.packets) >= w.limits.FlowPackets || w.octets+len(pkt) > w.limits.Octets {
		return false
	}
	if len(q.packets) == 0 {
		q.first = now
	}
	q.packets = append(q.packets, append([]byte(nil), pkt...))
	w.octets += len(pkt)
	return true
}

// refuse drops what waits for a flow; for a moment no packet of it starts another negotiation.
func (w *waiting) refuse(f ike.Flow, now time.Time) (dropped int) {
	q := w.open(f, now)
	if q == nil {
		return 0
	}
	q.refused, q.acquired = now, false
	return len(w.empty(q))
}

// isRefused reports whether the moment after a refusal has not passed.
func (q *queue) isRefused(now time.Time) bool {
	return !q.refused.IsZero() && now.Sub(q.refused) < refusedFor
}

// expire drops what waited too long, and forgets flows that nobody answers for.
func (w *waiting) expire(now time.Time) (dropped int) {
	for key, q := range w.flows {
		if len(q.packets) > 0 && now.Sub(q.first) >= waitFor {
			dropped += len(w.empty(q))
		}
		over := now.Sub(q.opened) >= askAgain || !q.refused.IsZero() && !q.isRefused(now)
		if over && len(q.packets) == 0 {
			delete(w.flows, key)
		}
	}
	return dropped
}

// take removes a flow and returns its packets in the order in which they came.
func (w *waiting) take(q *queue) [][]byte {
	delete(w.flows, flowKey(q.flow))
	return w.empty(q)
}

func (w *waiting) empty(q *queue) [][]byte {
	packets := q.packets
	q.packets = nil
	for _, p := range packets {
		w.octets -= len(p)
	}
	return packets
}
