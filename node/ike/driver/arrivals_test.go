package driver

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
)

// queued is an end of a cable that lets the loop take datagrams itself, and lets the engine see them first.
type queued struct {
	*end
	arrivals chan struct{}
	mu       struct {
		sync.Mutex
		waiting []ike.Datagram
		judge   func(ike.Datagram, []byte) (engine.Class, []byte)
		seen    []engine.Class
	}
}

func newQueued(e *end) *queued {
	q := &queued{end: e, arrivals: make(chan struct{}, 1)}
	go func() {
		for d := range e.datagrams {
			q.mu.Lock()
			class, _ := q.mu.judge(d, nil)
			q.mu.seen = append(q.mu.seen, class)
			q.mu.waiting = append(q.mu.waiting, d)
			q.mu.Unlock()
			select {
			case q.arrivals <- struct{}{}:
			default:
			}
		}
	}()
	return q
}

func (q *queued) Datagrams() <-chan ike.Datagram { return nil }

func (q *queued) Arrivals() <-chan struct{} { return q.arrivals }

func (q *queued) Next() (ike.Datagram, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.mu.waiting) == 0 {
		return ike.Datagram{}, false
	}
	d := q.mu.waiting[0]
	q.mu.waiting = q.mu.waiting[1:]
	return d, true
}

func (q *queued) Screen(judge func(ike.Datagram, []byte) (engine.Class, []byte)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.judge = judge
}

func TestArrivalsAreTakenInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{ends: make(map[netip.Addr]*end)}
		q := newQueued(c.plug(netip.MustParseAddr("192.0.2.1")))
		a := newArrivals(q)
		q.Screen(func(ike.Datagram, []byte) (engine.Class, []byte) { return engine.ClassStranger, nil })
		const n = 2*atATime + 3
		for range n {
			q.datagrams <- ike.Datagram{}
		}
		synctest.Wait()
		taken, turns := 0, 0
		for taken < n {
			<-a.ready()
			a.take(func(ike.Datagram) { taken++ })
			turns++
		}
		if turns != 3 || a.more {
			t.Errorf("%d datagrams were taken in %d turns, more: %v; want 3 turns", taken, turns, a.more)
		}
		select {
		case <-a.ready():
			a.take(func(ike.Datagram) { t.Error("there was one more") })
		default:
		}
		close(q.datagrams)
	})
}
