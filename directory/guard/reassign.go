package guard

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
)

// A Reassigned is a machine to which the Group Policy of its domain would give another policy, or the same one with
// another content, while the machine stays as it is.
type Reassigned struct {
	Machine directory.Machine
	// From and To name the policies.
	From, To string
	// Content names what To would say, so that another content is another change.
	Content string
}

func (r Reassigned) String() string {
	if r.From == r.To {
		return fmt.Sprintf("%s: policy %q says something else", r.Machine.Name, r.To)
	}
	return fmt.Sprintf("%s: policy %q instead of %q", r.Machine.Name, r.To, r.From)
}

// reassignment is what a Guard knows of the change of Group Policy that waits. There is at most one beside that of the
// directory; both count in one window and can use up what was announced.
type reassignment struct {
	held   *Held
	before *Mark // what another guard held, until Group Policy is read again
	// released is what may come: it is applied by whoever reads it again.
	released *ID
}

// Reassign decides on a change of Group Policy that was read, and is not applied yet: let it pass, or hold it, for the
// first time when fresh is set. Without any machine nothing is held any more.
func (g *Guard) Reassign(now time.Time, all []Reassigned) (h Held, pass, fresh bool) {
	if len(all) == 0 {
		g.policy = reassignment{}
		return Held{}, true, false
	}
	h = g.weighPolicy(now, all)
	if g.policy.released != nil && *g.policy.released == h.ID {
		return h, true, false
	}
	mark, same := g.MarkPolicy()
	same = same && mark.ID == h.ID
	g.policy = reassignment{}
	if !same && (!h.tooMuch() || g.raisedFor(now, h)) {
		return h, true, false
	}
	h.Since, h.Latest = now, now
	if same {
		h.Since, h.Discarded = mark.Since, mark.Discarded
	}
	g.policy.held = &h
	return h, false, !same
}

// Apply notes that a change of Group Policy that Reassign let pass is in force now; raised says that it used up what was
// announced.
func (g *Guard) Apply(now time.Time, h Held) (raised bool) {
	released := g.policy.released != nil && *g.policy.released == h.ID
	g.policy = reassignment{}
	if !released && !h.tooMuch() {
		for u, dn := range h.affectedNames() {
			g.recent[u] = moment{now, dn}
		}
		return false
	}
	if !released {
		g.raise = nil
	}
	clear(g.recent) // as after any release
	return !released
}

// HeldPolicy returns the change of Group Policy that waits.
func (g *Guard) HeldPolicy() (Held, bool) {
	if g.policy.held == nil {
		return Held{}, false
	}
	return *g.policy.held, true
}

// ReleasePolicy lets the change of Group Policy that waits pass when it is read again, exactly the one that the ID names;
// false when that is not held.
func (g *Guard) ReleasePolicy(id ID) bool {
	if g.policy.held == nil || g.policy.held.ID != id {
		return false
	}
	g.policy.released = &id
	return true
}

// DiscardPolicy notes that the change of Group Policy that waits must not be applied; false when that is not held.
func (g *Guard) DiscardPolicy(now time.Time, id ID) bool {
	if g.policy.held == nil || g.policy.held.ID != id {
		return false
	}
	g.policy.held.Discarded, g.policy.released = now, nil
	return true
}

// MarkPolicy is Mark for the change of Group Policy that waits.
func (g *Guard) MarkPolicy() (Mark, bool) { return markOf(g.policy.held, g.policy.before) }

// weighPolicy names a change of Group Policy and finds out what is allowed.
func (g *Guard) weighPolicy(now time.Time, all []Reassigned) Held {
	h := Held{Reassigned: slices.SortedFunc(slices.Values(all), func(a, b Reassigned) int {
		return bytes.Compare(a.Machine.UUID[:], b.Machine.UUID[:])
	})}
	if g.applied != nil {
		_, h.Diff.OldMachines, _ = g.applied.Len()
		h.Diff.NewMachines = h.Diff.OldMachines
		h.Exceeded = g.excesses(h, g.applied)
	}
	h.Allowed, h.Recent = g.limits.Allowed(h.Diff.OldMachines), g.others(now, h)
	sum := sha256.New()
	for _, r := range h.Reassigned {
		sum.Write(r.Machine.UUID[:])
		for _, text := range []string{"reassigned", r.From, r.To, r.Content} {
			fmt.Fprintf(sum, "%d:%s", len(text), text)
		}
	}
	h.ID = ID(sum.Sum(nil)[:len(h.ID)])
	return h
}
