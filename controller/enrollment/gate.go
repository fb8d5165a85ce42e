package enrollment

import (
	"context"
	"errors"
	"fmt"
)

// ErrBusy is wrapped when more machines ask at once than can be answered soon.
var ErrBusy = errors.New("too many machines ask for certificates at once")

// The store writes one record of the journal after the other, so more at once make each slower and none faster. Whoever would
// wait longer than a few seconds is sent away at once: machines come back later, each at a time of its own, while requests that
// wait until their callers have given up cost as much as those that are answered.
const (
	maxIssuing = 32
	maxWaiting = 256
)

// A gate lets so many work at a time, and so many wait. It is safe for concurrent use.
type gate struct {
	working, waiting chan struct{}
}

func newGate(working, waiting int) *gate {
	return &gate{working: make(chan struct{}, working), waiting: make(chan struct{}, waiting)}
}

// enter waits for a place; leave gives it back. The error wraps ErrBusy where there is not even room to wait. Who gives up
// waiting, because ctx ends, costs nothing more.
func (g *gate) enter(ctx context.Context) (leave func(), err error) {
	select {
	case g.waiting <- struct{}{}:
	default:
		return nil, fmt.Errorf("%d wait already: %w", cap(g.waiting), ErrBusy)
	}
	defer func() { <-g.waiting }()
	select {
	case g.working <- struct{}{}:
		return func() { <-g.working }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for other machines' certificates: %w", ctx.Err())
	}
}
