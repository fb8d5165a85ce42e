package guard

import (
	"fmt"
	"time"
)

// MaxRaise is for how long the limits can be raised.
const MaxRaise = 24 * time.Hour

// A Raise lets one change pass that the limits would hold: an administrator announces what is about to happen. It is used
// up by the first such change, ends by itself, and never lets a change pass that leaves no machine.
type Raise struct {
	// Machines is how many that change may affect.
	Machines int `json:"machines"`
	// Until is when the announcement ends.
	Until time.Time `json:"until"`
}

// Raise announces one change, in place of any announced before. The error wraps ErrLimits; nothing changes then.
func (g *Guard) Raise(now time.Time, r Raise) error {
	switch {
	case r.Machines < 1:
		return fmt.Errorf("%w: a change of %d machines needs no raise", ErrLimits, r.Machines)
	case !r.Until.After(now):
		return fmt.Errorf("%w: a raise until %s is over", ErrLimits, r.Until.Format(time.RFC3339))
	case r.Until.Sub(now) > MaxRaise:
		return fmt.Errorf("%w: a raise for %v, longer than %v: raise the limits when the change is near", ErrLimits, r.Until.Sub(now), MaxRaise)
	}
	g.raise = &r
	return nil
}

// Raised returns what is announced.
func (g *Guard) Raised(now time.Time) (Raise, bool) {
	if g.raise == nil || !now.Before(g.raise.Until) {
		return Raise{}, false
	}
	return *g.raise, true
}

// raisedFor says whether the announced change is large enough for h.
func (g *Guard) raisedFor(now time.Time, h Held) bool {
	r, ok := g.Raised(now)
	return ok && h.Affected() <= r.Machines
}
