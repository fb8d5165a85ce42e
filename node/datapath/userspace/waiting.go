package userspace

import (
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// How long the packet thread remembers what concerns flows without an association.
const (
	waitFor    = 30 * time.Second       // packets of a flow that nobody answers for
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
	acquired bool     // the Acquire was delivered
	packets  [][]byte
	expires  time.Time
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
	if len(w.flows) >= w.limits.Flows {
		return nil
	}
	q := &queue{flow: f, expires: now.Add(waitFor)}
	w.flows[key] = q
	return q
}

// put keeps a copy of a packet, false when there is no room: the first packets of a flow are worth more than the later.
func (w *waiting) put(q *queue, pkt []byte) bool {
	if len(q.packets) >= w.limits.FlowPackets || w.octets+len(pkt) > w.limits.Octets {
		return false
	}
	q.packets = append(q.packets, append([]byte(nil), pkt...))
	w.octets += len(pkt)
	return true
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
