package engine

import (
	"iter"

	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
)

// SAs are the IKE SAs in the order of their making, those included that are closed and only repeat their last answer.
// They belong to the engine: callers read, and keep nothing beyond the next Step. Snapshot makes copies; this does not.
func (e *Engine) SAs() iter.Seq[*ikev2.SA] {
	return func(yield func(*ikev2.SA) bool) {
		for l := e.table.order.first; l != nil; l = l.next {
			if !yield(l.of.sa) {
				return
			}
		}
	}
}

// Queued is the number of flows that wait for an association.
func (e *Engine) Queued() int { return len(e.flows.byKey) }

// Retiring is the number of IKE SAs that this side is about to close because others take their place.
func (e *Engine) Retiring() int {
	count := 0
	for _, a := range e.retiring.heap {
		if !a.of.passive {
			count++
		}
	}
	return count
}
