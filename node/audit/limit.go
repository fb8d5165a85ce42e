package audit

import (
	"cmp"
	"slices"
	"time"
)

// The rate of lines. Each kind has its own, so that a flood of one hides no other.
const (
	burst  = 50
	perSec = 10
	// limitGroups bounds how many counts are kept apart at a time; what does not fit shares one.
	limitGroups = 64
)

// limiter decides which events get a line of their own, and counts the others. Counts are kept by kind, reason and fault.
type limiter struct {
	allowance map[Kind]*allowance
	groups    map[group]*Event
}

// allowance is how many lines a kind may have now.
type allowance struct {
	lines float64
	at    time.Time
}

// group is what events have in common that are counted together.
type group struct {
	kind          Kind
	reason, fault string
}

func newLimiter() *limiter {
	return &limiter{allowance: make(map[Kind]*allowance), groups: make(map[group]*Event)}
}

// allow reports whether the event gets a line of its own.
func (l *limiter) allow(e Event) bool {
	a := l.allowance[e.ID]
	if a == nil {
		a = &allowance{lines: burst, at: e.Time}
		l.allowance[e.ID] = a
	}
	if passed := e.Time.Sub(a.at); passed > 0 {
		a.lines = min(burst, a.lines+perSec*passed.Seconds())
		a.at = e.Time
	}
	if a.lines < 1 {
		return false
	}
	a.lines--
	return true
}

// count adds an event to a later line.
func (l *limiter) count(e Event) {
	key := group{e.ID, e.Reason, e.Fault}
	if l.groups[key] == nil && len(l.groups) >= limitGroups {
		key = group{kind: e.ID}
	}
	g := l.groups[key]
	if g == nil {
		d := newEvent(e.Time, e.ID)
		d.Count, d.Since, d.Reason, d.Fault = 0, e.Time, key.reason, key.fault
		g = &d
		l.groups[key] = g
	}
	g.Count += e.Count
	g.Time = e.Time
}

// take returns the lines for what was counted, and begins anew.
func (l *limiter) take() []Event {
	if len(l.groups) == 0 {
		return nil
	}
	var events []Event
	for _, g := range l.groups {
		events = append(events, *g)
	}
	clear(l.groups)
	slices.SortFunc(events, func(a, b Event) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Fault, b.Fault))
	})
	return events
}
