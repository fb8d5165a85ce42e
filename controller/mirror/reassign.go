package mirror

import (
	"context"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/directory/guard"
)

// AllHeld lists what waits: changes of the directory and of Group Policy.
func (s Status) AllHeld() []guard.Held {
	var out []guard.Held
	for _, held := range []*guard.Held{s.Held, s.HeldPolicy} {
		if held != nil {
			out = append(out, *held)
		}
	}
	return out
}

// Waits says that something is held that no administrator has decided on.
func (s Status) Waits() bool {
	return slices.ContainsFunc(s.AllHeld(), func(h guard.Held) bool { return h.Discarded.IsZero() })
}

// Reassign asks the guard whether a change of Group Policy that was read may be applied. Without any machine it is told
// that Group Policy says what is in force. The errors are ErrStopped and that of ctx.
func (m *Mirror) Reassign(ctx context.Context, all []guard.Reassigned) (held guard.Held, pass bool, err error) {
	a := m.answer(ctx, request{with: func(_ context.Context, now time.Time) answer {
		mark, waited := m.guard.MarkPolicy()
		held, pass, fresh := m.guard.Reassign(now, all)
		m.showPolicy()
		switch {
		case fresh:
			m.version++
			m.config.Log.Warn("change of Group Policy is held, the documents of before stay in force", "id", held.ID, "reason", held.Reason())
			m.count(func(c *Counts) { c.Held++ })
			m.tell(Event{Kind: HeldBack, ID: held.ID, Text: held.Reason()})
		case pass && waited && mark.ID != held.ID:
			m.version++
			m.tell(Event{Kind: LetGo, ID: mark.ID, Text: "Group Policy no longer says so"})
		}
		return answer{held: held, pass: pass}
	}})
	return a.held, a.pass, a.err
}

// Apply notes that a change of Group Policy that Reassign let pass was applied. Errors are those of Reassign.
func (m *Mirror) Apply(ctx context.Context, h guard.Held) error {
	return m.answer(ctx, request{with: func(_ context.Context, now time.Time) answer {
		if m.guard.Apply(now, h) {
			m.raised.Store(nil)
			m.tell(Event{Kind: Passed, Text: "as announced: " + h.Summary()})
		}
		m.version++
		m.showPolicy()
		return answer{}
	}}).err
}

// decidePolicy releases or discards the change of Group Policy with the ID; false when that is not held.
func (m *Mirror) decidePolicy(ctx context.Context, now time.Time, r request) (answer, bool) {
	held, ok := m.guard.HeldPolicy()
	if !ok || held.ID != r.id {
		return answer{}, false
	}
	e := Event{Kind: Released, By: r.by, ID: r.id, Text: held.Summary()}
	if r.discard {
		e.Kind, e.Text = Discarded, held.Reason()
		m.guard.DiscardPolicy(now, r.id)
	} else {
		m.guard.ReleasePolicy(r.id)
	}
	m.showPolicy()
	m.keep(ctx)
	m.tell(e)
	return answer{held: held}, true
}

// showPolicy publishes what is held of Group Policy.
func (m *Mirror) showPolicy() {
	if held, ok := m.guard.HeldPolicy(); ok {
		m.heldPolicy.Store(&held)
	} else {
		m.heldPolicy.Store(nil)
	}
}
