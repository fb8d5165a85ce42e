package userspace

import (
	"sync"
	"time"

	"github.com/bailiwick-net/bailiwick/node/datapath/nftable"
	"github.com/bailiwick-net/bailiwick/node/datapath/waiting"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// world is what the packet threads have in common. A thread moves packets that were decided about while it holds mu for
// reading, so all of them do so at once; what changes a decision needs the world alone. Commands have it alone, and so
// does a thread that meets a packet nothing was decided about.
type world struct {
	mu    sync.RWMutex
	loops []*loop // the threads, by queue; never changes

	events  chan ike.Event
	gone    chan struct{} // tells that somebody deleted the TUN
	table   *nftable.Table
	routing *routing

	ready    bool    // a policy was set; before that nothing passes
	set      spd.Set // in force
	prepared *spd.Set
	sadb     sadb
	waiting  *waiting.Room[[]byte]
	soft     map[softKey]time.Time
	secured  map[softKey]bool // flows of rules with spd.FallbackDiscover that were protected once
	sources  map[string]flowSource
	pieces   *packet.Reassembler // of outbound packets; nil before the first piece
}

// enter begins the part of a round in which others may be at work as well.
func (l *loop) enter() { l.mu.RLock() }

// leave ends it.
func (l *loop) leave() {
	l.letGo()
	l.mu.RUnlock()
}

// alone gives the thread, which has entered, the world for itself, until share. What it knew of SAs and policy may have
// changed when it returns, and once more when share does: an SA that was removed meanwhile is dead. Calls nest.
func (l *loop) alone() {
	if l.depth++; l.depth > 1 {
		return
	}
	l.leave()
	l.mu.Lock()
}

// share ends what alone began.
func (l *loop) share() {
	if l.depth--; l.depth > 0 {
		return
	}
	l.letGo()
	l.mu.Unlock()
	l.enter()
}

// command runs a command: it has the world alone, and no thread holds a packet that is sealed and not sent, or opened and
// not delivered.
func (l *loop) command(c command) error {
	l.enter()
	l.alone()
	defer l.leave()
	defer l.share()
	l.now = time.Now()
	for _, other := range l.loops {
		other.flush()
		other.deliverOpened()
	}
	return c.run(l)
}

// take takes the inbound half of an SA, which is one thread's at a time, until letGo or take of another one.
func (l *loop) take(a *association) {
	if l.held == a {
		return
	}
	l.letGo()
	a.opening.Lock()
	a.in.SetSpill(&l.spill)
	l.held = a
}

// letGo ends take.
func (l *loop) letGo() {
	if l.held != nil {
		l.held.opening.Unlock()
		l.held = nil
	}
}

// forget empties the caches of decisions of every thread. It is called whenever a decision may come out differently, by
// whoever has the world alone.
func (l *loop) forget() {
	for _, other := range l.loops {
		clear(other.cache)
		clear(other.checked)
		other.last = last{}
	}
}
