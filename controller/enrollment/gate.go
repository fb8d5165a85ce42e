package enrollment

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// ErrBusy is wrapped when more machines ask at once than can be answered soon.
var ErrBusy = errors.New("too many machines ask for certificates at once")

// The store writes one record of the journal after the other, so more at once make each slower and none faster. Whoever would
// wait longer than a few seconds is sent away at once: machines come back later, each at a time of its own, while requests that
// wait until their callers have given up cost as much as those that are answered. So the number that waits is that which is
// answered in a few seconds, and this at most.
const (
	maxIssuing  = 32
	maxWaiting  = 2048
	longestWait = 4 * time.Second
)

// A gate lets so many work at a time, and so many wait. It is safe for concurrent use.
type gate struct {
	working, waiting chan struct{}
	// usual is how long those who worked of late took, each weighing an eighth.
	usual atomic.Int64
}

func newGate(working, waiting int) *gate {
	return &gate{working: make(chan struct{}, working), waiting: make(chan struct{}, waiting)}
}

// enter waits for a place; leave gives it back. The error wraps ErrBusy where there is not even room to wait, and where the
// caller would have given up before the work is done: it would be done for nobody, and the caller come back for the same. Who
// gives up waiting, because ctx ends, costs nothing more.
func (g *gate) enter(ctx context.Context) (leave func(), err error) {
	select {
	case g.waiting <- struct{}{}:
	default:
		return nil, fmt.Errorf("%d wait already: %w", cap(g.waiting), ErrBusy)
	}
	defer func() { <-g.waiting }()
	if wait := time.Duration(g.usual.Load()) * time.Duration(len(g.waiting)-1) / time.Duration(cap(g.working)); wait > longestWait {
		return nil, fmt.Errorf("it would take %v: %w", wait.Round(time.Second), ErrBusy)
	}
	select {
	case g.working <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for other machines' certificates: %w", ctx.Err())
	}
	start := time.Now()
	usual := time.Duration(g.usual.Load())
	if deadline, ok := ctx.Deadline(); ok && deadline.Sub(start) < usual {
		// The next may try sooner: where all are sent away, nobody shows that it is faster again.
		g.usual.Store(int64(usual - usual/8))
		<-g.working
		return nil, fmt.Errorf("a certificate takes %v, and the caller waits for %v: %w", usual.Round(time.Millisecond), deadline.Sub(start).Round(time.Millisecond), ErrBusy)
	}
	return func() {
		g.took(time.Since(start))
		<-g.working
	}, nil
}

// took lets one who worked count. Of two at once one may be lost, which changes little.
func (g *gate) took(t time.Duration) {
	usual := g.usual.Load()
	g.usual.Store(usual + (int64(t)-usual)/8)
}
