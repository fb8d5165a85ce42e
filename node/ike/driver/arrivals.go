package driver

import "github.com/bailiwick-net/bailiwick/node/ike"

// arrivals takes datagrams from a Queue, a few at a time, so that nothing else waits for long.
type arrivals struct {
	queue Queue // nil: the transport delivers by its channel alone
	more  bool  // the last time did not take all
	now   chan struct{}
}

// atATime is how many datagrams are taken before anything else gets its turn.
const atATime = 16

func newArrivals(t Transport) *arrivals {
	a := &arrivals{now: make(chan struct{})}
	close(a.now)
	a.queue, _ = t.(Queue)
	return a
}

// ready has a value when take may find a datagram.
func (a *arrivals) ready() <-chan struct{} {
	switch {
	case a.queue == nil:
		return nil
	case a.more:
		return a.now
	}
	return a.queue.Arrivals()
}

func (a *arrivals) take(step func(ike.Datagram)) {
	a.more = true
	for range atATime {
		dg, ok := a.queue.Next()
		if !ok {
			a.more = false
			return
		}
		step(dg)
	}
}
