package xfrm

import (
	"time"

	"github.com/bailiwick-net/bailiwick/node/datapath/userspace"
	"github.com/bailiwick-net/bailiwick/node/ike"
)

// waiting knows the first packets of flows that the kernel holds until an SA, a fallback or a refusal answers for them.
type waiting struct {
	limits userspace.Limits
	flows  map[ike.Flow]*waitingFlow // the key has a zero Packet
	octets int
}

// waitingFlow is what waits for one flow.
type waitingFlow struct {
	flow     ike.Flow // with the packet that asked
	opened   time.Time
	acquired bool // the Acquire was delivered
	packets  []heldPacket
	first    time.Time // when the first of packets came
	refused  time.Time // when the negotiation failed; then nothing waits
}

func newWaiting(limits userspace.Limits) waiting {
	return waiting{limits: limits, flows: map[ike.Flow]*waitingFlow{}}
}

// open returns a flow, and makes it where there is none; nil when there are too many.
func (w *waiting) open(f ike.Flow, now time.Time) *waitingFlow {
	key := flowKey(f)
	if q, ok := w.flows[key]; ok {
		return q
	}
	if len(w.flows) >= w.limits.Flows && !w.evict() {
		return nil
	}
	q := &waitingFlow{flow: f, opened: now}
	w.flows[key] = q
	return q
}

// evict forgets the oldest flow of which nothing waits.
func (w *waiting) evict() bool {
	var oldest *waitingFlow
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

// put notes a packet, false when there is no room: the first packets of a flow are worth more than the later.
func (w *waiting) put(q *waitingFlow, p heldPacket, now time.Time) bool {
	if len(q.packets) >= w.limits.FlowPackets || w.octets+len(p.octets) > w.limits.Octets {
		return false
	}
	if len(q.packets) == 0 {
		q.first = now
	}
	q.packets = append(q.packets, p)
	w.octets += len(p.octets)
	return true
}

// refuse returns what waits for a flow, to be dropped; for a moment no packet of it starts another negotiation.
func (w *waiting) refuse(f ike.Flow, now time.Time) []heldPacket {
	q := w.open(f, now)
	if q == nil {
		return nil
	}
	q.refused, q.acquired = now, false
	return w.empty(q)
}

// isRefused reports whether the moment after a refusal has not passed.
func (q *waitingFlow) isRefused(now time.Time) bool {
	return !q.refused.IsZero() && now.Sub(q.refused) < refusedFor
}

// expire returns what waited too long, to be dropped, and forgets flows that nobody answers for.
func (w *waiting) expire(now time.Time) (dropped []heldPacket) {
	for key, q := range w.flows {
		if len(q.packets) > 0 && now.Sub(q.first) >= waitFor {
			dropped = append(dropped, w.empty(q)...)
		}
		over := now.Sub(q.opened) >= askAgain || !q.refused.IsZero() && !q.isRefused(now)
		if over && len(q.packets) == 0 {
			delete(w.flows, key)
		}
	}
	return dropped
}

// take removes a flow and returns its packets in the order in which they came.
func (w *waiting) take(q *waitingFlow) []heldPacket {
	delete(w.flows, flowKey(q.flow))
	return w.empty(q)
}

func (w *waiting) empty(q *waitingFlow) []heldPacket {
	packets := q.packets
	q.packets = nil
	for _, p := range packets {
		w.octets -= len(p.octets)
	}
	return packets
}
