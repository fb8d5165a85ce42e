package guard

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
)

// Limits say how many machines one change may affect. A change is held when it affects more than Allowed.
type Limits struct {
	// Share is the part of the machines that a change may affect, 0 < Share <= 1.
	Share float64
	// Floor is the number that is always allowed, so that small trees can be worked with. At least 0.
	Floor int
	// Ceiling is the number that is never exceeded whatever the share; 0 means no ceiling. It wins over Floor.
	Ceiling int
	// Window is for how long an admitted change counts: different machines affected within it add up, so that many
	// small changes are not a way around the limit. 0 means that every change stands alone.
	Window time.Duration
}

// Default allows a tenth of the machines within ten minutes, and five in any case.
func Default() Limits { return Limits{Share: 0.1, Floor: 5, Window: 10 * time.Minute} }

// Validate returns an error that wraps ErrLimits when the limits make no sense.
func (l Limits) Validate() error {
	switch {
	case math.IsNaN(l.Share) || l.Share <= 0 || l.Share > 1:
		return fmt.Errorf("%w: share %v is not above 0 and at most 1 (0.1 is ten percent)", ErrLimits, l.Share)
	case l.Floor < 0:
		return fmt.Errorf("%w: floor %d is negative", ErrLimits, l.Floor)
	case l.Ceiling < 0:
		return fmt.Errorf("%w: ceiling %d is negative (0 means none)", ErrLimits, l.Ceiling)
	case l.Window < 0:
		return fmt.Errorf("%w: window %v is negative (0 means none)", ErrLimits, l.Window)
	}
	return nil
}

// Allowed returns how many of the given number of machines one change may affect.
func (l Limits) Allowed(machines int) int {
	n := max(int(l.Share*float64(machines)), l.Floor)
	if l.Ceiling > 0 {
		n = min(n, l.Ceiling)
	}
	return n
}

// An ID names a set of affected machines and what happens to each: the same set has the same ID, whatever harmless
// changes come with it.
type ID [16]byte

// String returns 32 hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText returns String.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseID(string(text))
	return err
}

// ParseID reads the 32 hex digits of String.
func ParseID(s string) (ID, error) {
	var id ID
	if b, err := hex.DecodeString(s); err == nil && len(b) == len(id) {
		return ID(b), nil
	}
	return id, fmt.Errorf("%q does not name a held directory change: 32 hex digits are expected", s)
}

// Affecting are the aspects of a change that count: what may cut a machine off, or gives it other policy or another
// identity.
const Affecting = directory.Moved | directory.DisabledNow | directory.EnabledNow | directory.Identified | directory.Regrouped

// A Held is a change that waits.
type Held struct {
	ID ID
	// Diff is everything that a release applies; Removed and Changed are the part that counts.
	Diff    directory.Diff
	Removed []directory.Machine
	Changed []directory.MachineChange
	// Reassigned is all of a change of Group Policy, of which Diff is empty.
	Reassigned []Reassigned
	// Allowed is how many affected machines would have passed, Recent how many others were affected by changes that were
	// admitted within the window.
	Allowed, Recent int
	// Exceeded are the containers whose own limits the change exceeds.
	Exceeded []Excess
	// Since is when this set was first seen, Latest when last.
	Since, Latest time.Time
	// Discarded is when an administrator said that it must not be applied, zero otherwise. It stays held as long as the
	// directory says so, but waits for nobody.
	Discarded time.Time
	next      *directory.Snapshot
}

// Affected returns how many machines the change takes away, alters or gives another policy.
func (h Held) Affected() int { return len(h.Removed) + len(h.Changed) + len(h.Reassigned) }

// tooMuch says that the change affects more machines than it may.
func (h Held) tooMuch() bool {
	return len(h.Exceeded) > 0 || h.Affected() > 0 && h.Affected()+h.Recent > h.Allowed
}

// Summary tells in a few words what a release applies.
func (h Held) Summary() string {
	if n := len(h.Reassigned); n > 0 {
		return fmt.Sprintf("another policy by Group Policy for %d machines", n)
	}
	return h.Diff.String()
}

// Next returns the directory as it would be after a release.
func (h Held) Next() *directory.Snapshot { return h.next }

// Reason says in one sentence why the change is held.
func (h Held) Reason() string {
	if h.Diff.NewMachines == 0 && len(h.Reassigned) == 0 {
		return fmt.Sprintf("the directory holds no machine any more (%d before)", h.Diff.OldMachines)
	}
	var reasons []string
	if h.Affected()+h.Recent > h.Allowed || len(h.Exceeded) == 0 {
		how := fmt.Sprintf("%d removed, %d altered", len(h.Removed), len(h.Changed))
		if len(h.Reassigned) > 0 {
			how = "another policy by Group Policy"
		}
		reasons = append(reasons, fmt.Sprintf("%d of %d machines are affected (%s)%s; %d are allowed at once",
			h.Affected(), h.Diff.OldMachines, how, others(h.Recent), h.Allowed))
	}
	for _, e := range h.Exceeded {
		reasons = append(reasons, e.String())
	}
	return strings.Join(reasons, "; ")
}

// A Decision is what became of an offered snapshot: Unchanged, Admitted or Stopped.
type Decision interface{ decision() }

// Unchanged means that the snapshot is the applied one.
type Unchanged struct{}

// Admitted means that the snapshot is now the applied one.
type Admitted struct {
	Snapshot *directory.Snapshot
	Diff     directory.Diff
	// Released is the change that an administrator let pass, the zero ID when none had to.
	Released ID
	// Raised says that the change passed because an administrator had announced it.
	Raised bool
}

// Stopped means that nothing changed and the applied snapshot stays.
type Stopped struct {
	Held Held
	// Fresh is set when this set is held for the first time: time to tell somebody.
	Fresh bool
}

func (Unchanged) decision() {}
func (Admitted) decision()  {}
func (Stopped) decision()   {}

// A Guard holds the applied snapshot and at most one held change of it; beside that one of Group Policy, see Reassign.
//
//	            Offer: allowed                     Offer: too much
//	(idle) ------------------------> (idle)  (idle) --------------> (held)
//	(held) -- Offer: allowed or applied again, or Release --------> (idle)
//	(held) -- Offer: too much, the same set or another -----------> (held)
//	(idle) -- Offer: too much, but announced by Raise -> (idle), the Raise used up
//	(held) -- Discard ---------------------------------> (held, discarded)
type Guard struct {
	limits     Limits
	containers []ContainerLimits
	applied    *directory.Snapshot
	held       *Held
	before     *Mark // what another guard held, until the directory is read again
	policy     reassignment
	raise      *Raise
	recent     map[directory.UUID]moment // machines affected by admitted changes
}

// New returns a guard. The applied snapshot is the last one that was in force, nil when there was none ever.
func New(limits Limits, applied *directory.Snapshot, containers ...ContainerLimits) (*Guard, error) {
	if err := limits.Validate(); err != nil {
		return nil, err
	}
	if err := ValidateContainers(containers); err != nil {
		return nil, err
	}
	return &Guard{limits: limits, containers: containers, applied: applied, recent: map[directory.UUID]moment{}}, nil
}

// Applied returns the snapshot in force, nil before the first.
func (g *Guard) Applied() *directory.Snapshot { return g.applied }

// Held returns the change that waits.
func (g *Guard) Held() (Held, bool) {
	if g.held == nil {
		return Held{}, false
	}
	return *g.held, true
}

// Offer decides on a snapshot that was read. The first one passes unless it holds no machine.
func (g *Guard) Offer(now time.Time, next *directory.Snapshot) Decision {
	if g.applied != nil && g.applied.Digest() == next.Digest() {
		// The directory went back to what is applied: whatever was held no longer exists.
		g.held, g.before = nil, nil
		return Unchanged{}
	}
	h, pass, raised := g.judge(now, next)
	// What is held stays held, though the window moves on: only the directory or an administrator changes that.
	mark, same := g.Mark()
	same = same && mark.ID == h.ID
	g.before = nil
	if pass && !same {
		g.applied, g.held = next, nil
		if raised {
			g.raise = nil
			clear(g.recent) // as after a release
			return Admitted{Snapshot: next, Diff: h.Diff, Raised: true}
		}
		for u, dn := range h.affectedNames() {
			g.recent[u] = moment{now, dn}
		}
		return Admitted{Snapshot: next, Diff: h.Diff}
	}
	h.Since, h.Latest, h.next = now, now, next
	if same {
		h.Since, h.Discarded = mark.Since, mark.Discarded
	}
	g.held = &h
	return Stopped{Held: h, Fresh: !same}
}

// judge weighs a snapshot against the limits; raised says that it passes only because it was announced.
func (g *Guard) judge(now time.Time, next *directory.Snapshot) (h Held, pass, raised bool) {
	h = weigh(directory.NewDiff(g.applied, next))
	h.Allowed = g.limits.Allowed(h.Diff.OldMachines)
	h.Recent = g.others(now, h)
	h.Exceeded = g.excesses(h, next)
	tooMuch := h.tooMuch()
	emptied := h.Diff.NewMachines == 0 && (g.applied == nil || h.Diff.OldMachines > 0)
	raised = tooMuch && !emptied && g.raisedFor(now, h)
	return h, !emptied && (!tooMuch || raised), raised
}

// Consider tells what Offer would do with a snapshot that nobody has read yet: let it pass, or hold it for the reason
// that Held gives. Nothing is decided.
func (g *Guard) Consider(now time.Time, next *directory.Snapshot) (h Held, pass bool) {
	if g.applied != nil && g.applied.Digest() == next.Digest() {
		return Held{}, true
	}
	h, pass, _ = g.judge(now, next)
	mark, waits := g.Mark()
	pass = pass && (!waits || mark.ID != h.ID)
	h.Since, h.Latest, h.next = now, now, next
	return h, pass
}

// others forgets what has left the window and counts the machines in it that h does not affect as well.
func (g *Guard) others(now time.Time, h Held) int {
	for u, r := range g.recent {
		if now.Sub(r.at) >= g.limits.Window {
			delete(g.recent, u)
		}
	}
	n := len(g.recent)
	for u := range h.affectedNames() {
		if _, ok := g.recent[u]; ok {
			n--
		}
	}
	return n
}

// Release applies the held change, exactly the one that the ID names. The errors are ErrNothingHeld and ErrOtherHeld;
// nothing changes then.
func (g *Guard) Release(id ID) (Admitted, error) {
	if err := g.check(id); err != nil {
		return Admitted{}, fmt.Errorf("release directory change %s: %w", id, err)
	}
	a := Admitted{Snapshot: g.held.next, Diff: g.held.Diff, Released: id}
	g.applied, g.held = g.held.next, nil
	clear(g.recent) // the administrator has seen where the directory stands: counting starts anew
	return a, nil
}

// Discard notes that the held change must not be applied: it stays stopped, and Release may still change that. The
// errors are those of Release.
func (g *Guard) Discard(now time.Time, id ID) error {
	if err := g.check(id); err != nil {
		return fmt.Errorf("discard directory change %s: %w", id, err)
	}
	g.held.Discarded = now
	return nil
}

func (g *Guard) check(id ID) error {
	switch {
	case g.held == nil:
		return ErrNothingHeld
	case g.held.ID != id:
		return fmt.Errorf("%w, %s: look at it before you release it", ErrOtherHeld, g.held.ID)
	}
	return nil
}

// weigh picks what counts out of a diff and names it.
func weigh(d directory.Diff) Held {
	h := Held{Diff: d, Removed: d.Removed}
	for _, c := range d.Changed {
		if c.Aspects.Has(Affecting) {
			h.Changed = append(h.Changed, c)
		}
	}
	sum := sha256.New()
	text := func(s string) { fmt.Fprintf(sum, "%d:%s", len(s), s) }
	sum.Write(d.From[:])
	if d.NewMachines == 0 {
		text("empty")
	}
	for _, m := range h.Removed {
		text("removed")
		sum.Write(m.UUID[:])
	}
	for _, c := range h.Changed {
		text("changed")
		sum.Write(c.New.UUID[:])
		text((c.Aspects & Affecting).String())
		text(c.New.DN.Key())
		text(c.New.Name)
		text(c.New.DNSName)
		for _, dn := range c.Joined {
			text("+" + dn.Key())
		}
		for _, dn := range c.Left {
			text("-" + dn.Key())
		}
	}
	h.ID = ID(sum.Sum(nil)[:len(h.ID)])
	return h
}
