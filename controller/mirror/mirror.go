// Package mirror is the loop that keeps the controller's picture of the directory: it reads a source, asks the guard,
// and publishes what was admitted as an immutable View.
//
// Invariants: a View is complete and was admitted by the guard or released by an administrator; an error of the source,
// or a change that is held, leaves the last View in force; the last View survives a restart with what the guard
// knows, which compares with it and not with nothing; a machine that vanishes keeps its place among the vanished for a
// grace time.
//
// It leaves reading to the directory's sources, the decision to directory/guard, and what a machine's place means to
// the resolver.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/guard"
)

// DefaultGrace is how long a vanished machine keeps its policy.
const DefaultGrace = 7 * 24 * time.Hour

// ErrStopped is returned by requests to a mirror that does not run.
var ErrStopped = errors.New("the directory mirror is not running")

// Store keeps the accepted directory over a restart.
type Store interface {
	AcceptedDirectory(ctx context.Context) (store.AcceptedDirectory, error)
	SetAcceptedDirectory(ctx context.Context, a store.AcceptedDirectory) error
}

// Config is what a Mirror works with.
type Config struct {
	Source directory.Source
	Store  Store
	// Limits of the guard; the zero value means guard.Default. Containers have limits of their own.
	Limits     guard.Limits
	Containers []guard.ContainerLimits
	// Grace is how long a vanished machine keeps its policy; 0 means DefaultGrace.
	Grace time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	Log hclog.Logger
	// Changed is called after a new View is published, by the mirror's goroutine: it must not block.
	Changed func()
	// Tell is called with what happened, by the mirror's goroutine: it must not block.
	Tell func(Event)
}

// A Vanished machine is missing from the directory.
type Vanished struct {
	Machine directory.Machine
	Since   time.Time
	// Until is when it loses its policy.
	Until time.Time
}

// A View is the directory as it counts at present. It is immutable.
type View struct {
	Snapshot *directory.Snapshot
	// Vanished are the machines that are missing and within their grace time.
	Vanished map[directory.UUID]Vanished
	// Accepted is when the snapshot was admitted.
	Accepted time.Time
	// Restored says that the snapshot, or a part of it, is from before the start and was not confirmed by a read yet, or
	// that a source was never read: what is missing here may be there.
	Restored bool
}

// Machine looks a machine up, also among the vanished.
func (v *View) Machine(u directory.UUID) (m directory.Machine, vanished, ok bool) {
	if m, ok := v.Snapshot.Machine(u); ok {
		return m, false, true
	}
	gone, ok := v.Vanished[u]
	return gone.Machine, ok, ok
}

// Status describes the mirror for people.
type Status struct {
	Source directory.Status
	// View is what is in force, nil before the first.
	View *View
	// Held is the change that waits, nil when there is none.
	Held *guard.Held
	// HeldPolicy is the change of Group Policy that waits, nil when there is none.
	HeldPolicy *guard.Held
	// Raised is the change that an administrator announced, nil when there is none.
	Raised *guard.Raise
	// Unguarded are containers with limits that the directory does not have.
	Unguarded []directory.DN
	// Unstored is the error of the latest attempt to store what is in force, "" when it succeeded.
	Unstored string
	// Counts since the start.
	Counts Counts
}

// A Mirror runs once.
type Mirror struct {
	config Config
	view   atomic.Pointer[View]
	held   atomic.Pointer[guard.Held]

	heldPolicy atomic.Pointer[guard.Held]

	raised   atomic.Pointer[guard.Raise]
	missing  atomic.Pointer[[]directory.DN]
	counts   atomic.Pointer[Counts]
	unstored atomic.Pointer[string]
	requests chan request
	stopped  chan struct{}
	first    chan struct{} // closed with the first View
	stored   chan stored   // has room for the one that is being stored

	// Owned by the goroutine of Run.
	guard   *guard.Guard
	version uint64        // counts what changed of the View in force and of what the guard knows
	kept    uint64        // the version that is stored
	storing bool          // one is being stored
	allowed time.Duration // for the next attempt
	rested  time.Time     // before then, another one is not stored
	failing bool          // the last read failed
}

// request is one of: release of id, discard of id, consider, raise, or what with does.
type request struct {
	with     func(ctx context.Context, now time.Time) answer
	id       guard.ID
	by       string // the administrator
	discard  bool
	consider *directory.Snapshot
	raise    *guard.Raise
	answer   chan answer
}

type answer struct {
	held guard.Held
	pass bool
	err  error
}

// New restores what was accepted before. An accepted directory that cannot be read is an error: to go on without it
// would be to take any state of the directory for the first one.
func New(ctx context.Context, c Config) (*Mirror, error) {
	if c.Limits == (guard.Limits{}) {
		c.Limits = guard.Default()
	}
	if c.Grace == 0 {
		c.Grace = DefaultGrace
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	if c.Changed == nil {
		c.Changed = func() {}
	}
	if c.Tell == nil {
		c.Tell = func(Event) {}
	}
	m := &Mirror{config: c, requests: make(chan request), stopped: make(chan struct{}), first: make(chan struct{}), stored: make(chan stored, 1), allowed: storeTimeout}
	accepted, err := c.Store.AcceptedDirectory(ctx)
	switch {
	case errors.Is(err, store.ErrNotFound):
		m.guard, err = guard.New(c.Limits, nil, c.Containers...)
		return m, err
	case err != nil:
		return nil, err
	}
	view, err := restore(accepted, c.Grace)
	if err != nil {
		return nil, fmt.Errorf("restoring the directory accepted at %s: %w", accepted.Accepted.Format(time.RFC3339), err)
	}
	if view.Snapshot.Digest() != accepted.Digest {
		c.Log.Warn("restored directory has another digest", "stored", accepted.Digest.Short(), "restored", view.Snapshot.Digest().Short())
	}
	if m.guard, err = guard.New(c.Limits, view.Snapshot, c.Containers...); err != nil {
		return nil, err
	}
	if err := m.recall(accepted.Guard); err != nil {
		return nil, err
	}
	m.view.Store(view)
	close(m.first)
	return m, nil
}

// View returns the directory in force, nil before the first read.
func (m *Mirror) View() *View { return m.view.Load() }

// First is closed when there is a View.
func (m *Mirror) First() <-chan struct{} { return m.first }

// Status describes the mirror.
func (m *Mirror) Status() Status {
	s := Status{Source: m.config.Source.Status(), View: m.view.Load(), Held: m.held.Load(), HeldPolicy: m.heldPolicy.Load()}
	if r := m.raised.Load(); r != nil && m.config.Now().Before(r.Until) {
		s.Raised = r
	}
	if missing := m.missing.Load(); missing != nil {
		s.Unguarded = *missing
	}
	if err := m.unstored.Load(); err != nil {
		s.Unstored = *err
	}
	if c := m.counts.Load(); c != nil {
		s.Counts = *c
	}
	return s
}

// Release applies the held change with the id, for an administrator, and returns it; one of Group Policy may pass when that
// is read again. Errors wrap guard.ErrNothingHeld, guard.ErrOtherHeld or ErrStopped.
func (m *Mirror) Release(ctx context.Context, id guard.ID, by string) (guard.Held, error) {
	a := m.answer(ctx, request{id: id, by: by})
	return a.held, a.err
}

// Discard marks the held change with the id as not to be applied. Errors are those of Release.
func (m *Mirror) Discard(ctx context.Context, id guard.ID, by string) error {
	return m.answer(ctx, request{id: id, by: by, discard: true}).err
}

// Raise announces one change that the guard is to let pass. Errors wrap guard.ErrLimits or ErrStopped.
func (m *Mirror) Raise(ctx context.Context, r guard.Raise, by string) error {
	return m.answer(ctx, request{raise: &r, by: by}).err
}

// Consider tells what the guard would do with a directory that nobody has read: let it pass, or hold it. Nothing is
// decided. The errors are ErrStopped and that of ctx.
func (m *Mirror) Consider(ctx context.Context, next *directory.Snapshot) (held guard.Held, pass bool, err error) {
	a := m.answer(ctx, request{consider: next})
	return a.held, a.pass, a.err
}

func (m *Mirror) answer(ctx context.Context, r request) answer {
	r.answer = make(chan answer, 1)
	select {
	case m.requests <- r:
	case <-m.stopped:
		return answer{err: ErrStopped}
	case <-ctx.Done():
		return answer{err: ctx.Err()}
	}
	return <-r.answer
}

// read is one result of the source.
type read struct {
	snapshot *directory.Snapshot
	err      error
}

// Run reads until ctx ends; it closes the source. Its goroutine is the only writer of the View and owns the guard; a
// second one waits for the source.
func (m *Mirror) Run(ctx context.Context) error {
	defer close(m.stopped)
	ctx, cancel := context.WithCancel(ctx)
	reads := make(chan read)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.readAll(ctx, reads)
	}()
	defer func() {
		cancel()
		if err := m.config.Source.Close(); err != nil {
			m.config.Log.Warn("cannot close the directory source", "error", err)
		}
		<-done
	}()
	persist := time.NewTicker(persistDelay)
	defer persist.Stop()
	if v := m.view.Load(); v != nil {
		m.config.Changed()
	}
	for {
		select {
		case r := <-reads:
			m.take(r)
		case r := <-m.requests:
			m.serve(ctx, r)
		case <-persist.C:
			m.expire()
			m.persistAside(ctx)
		case w := <-m.stored:
			m.noteStored(w)
		case <-ctx.Done():
			last, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			m.persist(last)
			stop()
			if m.dirty() {
				m.config.Log.Error("what is in force was not stored: the next start goes on from what was stored before")
			}
			return nil
		}
	}
}

func (m *Mirror) readAll(ctx context.Context, reads chan<- read) {
	for ctx.Err() == nil {
		snapshot, err := m.config.Source.Next(ctx)
		select {
		case reads <- read{snapshot, err}:
		case <-ctx.Done():
		}
	}
}

func (m *Mirror) take(r read) {
	if r.err != nil {
		if !m.failing {
			m.config.Log.Error("cannot read the directory, the last state stays in force", "source", m.config.Source.Status().Location, "error", r.err)
		} else {
			m.config.Log.Debug("still cannot read the directory", "error", r.err)
		}
		m.count(func(c *Counts) { c.Failures++ })
		if !m.failing {
			m.tell(Event{Kind: Failed, Text: r.err.Error()})
		}
		m.failing = true
		return
	}
	m.count(func(c *Counts) { c.Reads++ })
	if m.failing {
		m.tell(Event{Kind: Recovered, Text: "the directory is readable again"})
		m.config.Log.Info("directory is readable again", "source", m.config.Source.Status().Location)
	}
	m.failing = false
	mark, waited := m.guard.Mark()
	switch d := m.guard.Offer(m.config.Now(), r.snapshot).(type) {
	case guard.Unchanged:
		if waited {
			m.version++
			m.letGo(mark.ID)
		}
		if v := m.view.Load(); v.Restored {
			confirmed := *v
			// The snapshot that was read also has the problems, which are not stored.
			confirmed.Restored, confirmed.Snapshot = false, r.snapshot
			m.publish(&confirmed)
		}
	case guard.Admitted:
		if waited {
			m.letGo(mark.ID)
		}
		m.admit(d)
	case guard.Stopped:
		m.held.Store(&d.Held)
		if d.Fresh {
			m.version++
			m.config.Log.Warn("directory change is held, the last state stays in force", "id", d.Held.ID, "reason", d.Held.Reason(), "change", d.Held.Diff.String())
			m.count(func(c *Counts) { c.Held++ })
			m.tell(Event{Kind: HeldBack, ID: d.Held.ID, Text: d.Held.Reason()})
		}
	}
}

func (m *Mirror) admit(a guard.Admitted) {
	m.held.Store(nil)
	now := m.config.Now()
	if a.Raised {
		m.raised.Store(nil)
		m.tell(Event{Kind: Passed, Text: "as announced: " + a.Diff.String()})
	}
	m.count(func(c *Counts) { c.Changes++; c.Vanished += uint64(len(a.Diff.Removed)) })
	next := &View{Snapshot: a.Snapshot, Accepted: now, Vanished: map[directory.UUID]Vanished{}}
	if old := m.view.Load(); old != nil {
		for u, v := range old.Vanished {
			if _, back := a.Snapshot.Machine(u); !back {
				next.Vanished[u] = v
			}
		}
	}
	for _, machine := range a.Diff.Removed {
		next.Vanished[machine.UUID] = Vanished{Machine: machine, Since: now, Until: now.Add(m.config.Grace)}
		m.config.Log.Warn("machine vanished from the directory, it keeps its policy for now", "machine", machine.Name, "until", now.Add(m.config.Grace).Format(time.RFC3339))
	}
	if n := len(a.Diff.Removed); n > 0 {
		m.tell(Event{Kind: MachinesVanished, Text: fmt.Sprintf("%d machines, first %s; they keep their policy until %s", n, a.Diff.Removed[0].DN, now.Add(m.config.Grace).Format(time.RFC3339))})
	}
	m.config.Log.Info("directory changed", "change", a.Diff.String(), "digest", a.Snapshot.Digest().Short())
	m.version++
	m.publish(next)
}

func (m *Mirror) publish(v *View) {
	if missing := m.guard.Missing(); len(missing) > 0 {
		m.missing.Store(&missing)
	} else {
		m.missing.Store(nil)
	}
	if m.view.Swap(v) == nil {
		close(m.first)
	}
	m.config.Changed()
}

// expire drops the vanished whose grace time ended.
func (m *Mirror) expire() {
	v, now := m.view.Load(), m.config.Now()
	if v == nil {
		return
	}
	over := 0
	for _, gone := range v.Vanished {
		if !now.Before(gone.Until) {
			over++
		}
	}
	if over == 0 {
		return
	}
	next := *v
	next.Vanished = make(map[directory.UUID]Vanished, len(v.Vanished)-over)
	for u, gone := range v.Vanished {
		if now.Before(gone.Until) {
			next.Vanished[u] = gone
		} else {
			m.config.Log.Warn("vanished machine loses its policy, its grace time is over", "machine", gone.Machine.Name, "since", gone.Since.Format(time.RFC3339))
		}
	}
	m.count(func(c *Counts) { c.Expired += uint64(over) })
	m.tell(Event{Kind: GraceOver, Text: fmt.Sprintf("%d vanished machines lost their policy", over)})
	m.version++
	m.publish(&next)
}

func (m *Mirror) serve(ctx context.Context, r request) { r.answer <- m.decide(ctx, m.config.Now(), r) }

func (m *Mirror) decide(ctx context.Context, now time.Time, r request) answer {
	switch {
	case r.with != nil:
		return r.with(ctx, now)
	case r.consider != nil:
		held, pass := m.guard.Consider(now, r.consider)
		return answer{held: held, pass: pass}
	case r.raise != nil:
		err := m.guard.Raise(now, *r.raise)
		if err == nil {
			m.raised.Store(r.raise)
			m.keep(ctx)
			m.tell(Event{Kind: LimitsRaised, By: r.by, Text: fmt.Sprintf("one change of up to %d machines may pass until %s", r.raise.Machines, r.raise.Until.Format(time.RFC3339))})
		}
		return answer{err: err}
	}
	if a, ok := m.decidePolicy(ctx, now, r); ok {
		return a
	}
	held, _ := m.guard.Held()
	if r.discard {
		if err := m.guard.Discard(now, r.id); err != nil {
			return answer{err: err}
		}
		held.Discarded = now
		m.held.Store(&held)
		m.keep(ctx)
		m.tell(Event{Kind: Discarded, By: r.by, ID: r.id, Text: held.Reason()})
		return answer{held: held}
	}
	admitted, err := m.guard.Release(r.id)
	if err != nil {
		return answer{err: err}
	}
	m.config.Log.Warn("held directory change was released", "id", r.id, "change", held.Summary())
	m.tell(Event{Kind: Released, By: r.by, ID: r.id, Text: held.Summary()})
	m.admit(admitted)
	m.persist(ctx)
	return answer{held: held}
}

// Close closes the source of a mirror that is not run.
func (m *Mirror) Close() error { return m.config.Source.Close() }
