package resolver

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/compile"
)

// DefaultDelay is how long a change waits for company.
const DefaultDelay = 50 * time.Millisecond

// retryDelay is how long after a failed read of the documents they are read again.
const retryDelay = time.Second

// ErrNotReady is returned while there is no table yet.
var ErrNotReady = errors.New("no assignments have been worked out yet")

// Documents is the store of policy documents.
type Documents interface {
	Documents(ctx context.Context) (store.Documents, error)
	WatchDocuments(ctx context.Context) <-chan struct{}
}

// Config is what a Resolver works with.
type Config struct {
	// View returns the directory in force, nil before the first.
	View func() *mirror.View
	// ViewChanged hints that it is another one.
	ViewChanged <-chan struct{}
	Documents   Documents
	// Records tell what each node had in force before the start.
	Records []store.NodeRecord
	// Delay is DefaultDelay when 0.
	Delay time.Duration
	Log   hclog.Logger
}

// A Resolver runs once.
type Resolver struct {
	config Config
	table  atomic.Pointer[Table]
	first  chan struct{} // closed with the first table
	adopt  chan adoption
	// relocate has those who wait until a machine's new place counts.
	relocate  chan chan struct{}
	locations locations
	ended     chan struct{}
	notify    func(machines []directory.UUID)
	// published is closed and replaced with every new table.
	published atomic.Pointer[chan struct{}]

	// Owned by the goroutine of Run.
	documents *documentSet
	refused   int64 // the last revision of documents that do not validate
	records   map[directory.UUID]store.NodeRecord
}

type adoption struct {
	machine  directory.UUID
	revision uint64
	digest   []byte
	done     chan struct{}
}

// New makes a Resolver.
func New(c Config) *Resolver {
	if c.Delay == 0 {
		c.Delay = DefaultDelay
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	r := &Resolver{
		config: c, first: make(chan struct{}), adopt: make(chan adoption), relocate: make(chan chan struct{}), ended: make(chan struct{}),
		records: make(map[directory.UUID]store.NodeRecord, len(c.Records)),
	}
	published := make(chan struct{})
	r.published.Store(&published)
	for _, record := range c.Records {
		r.records[record.Machine] = record
		if record.Address.IsValid() {
			r.locations.set(record.Machine, record.Address)
		}
	}
	return r
}

// First is closed when there is a Table.
func (r *Resolver) First() <-chan struct{} { return r.first }

// Table returns the present assignments, nil before the first.
func (r *Resolver) Table() *Table { return r.table.Load() }

// Assignment returns the assignment of a machine; its Standing is Unknown when the directory does not hold it.
func (r *Resolver) Assignment(machine directory.UUID) Assignment {
	t := r.table.Load()
	if t == nil {
		return Assignment{Machine: machine}
	}
	return t.Assignment(machine)
}

// Disabled returns the machines whose account is disabled in the directory, in no order.
func (r *Resolver) Disabled() []directory.UUID {
	t := r.table.Load()
	if t == nil {
		return nil
	}
	var out []directory.UUID
	for a := range t.All() {
		if a.Standing == Disabled {
			out = append(out, a.Machine)
		}
	}
	return out
}

// Members returns the machines in each group that a present bundle names; see Table.Members.
func (r *Resolver) Members() map[string][]directory.UUID {
	t := r.table.Load()
	if t == nil {
		return nil
	}
	return t.Members()
}

// Bundle returns the bundle of a present assignment.
func (r *Resolver) Bundle(digest compile.Digest) (compile.Bundle, bool) {
	t := r.table.Load()
	if t == nil {
		return compile.Bundle{}, false
	}
	return t.Bundle(digest)
}

// Adopt tells what a node has in force. Where that is newer than what is remembered here (the state was restored from
// an old copy), the revisions go on from there. It returns the assignment.
func (r *Resolver) Adopt(ctx context.Context, machine directory.UUID, revision uint64, digest []byte) (Assignment, error) {
	a := r.Assignment(machine)
	if !a.outrun(revision, digest) {
		return a, nil
	}
	request := adoption{machine, revision, digest, make(chan struct{})}
	select {
	case r.adopt <- request:
		<-request.done
		return r.Assignment(machine), nil
	case <-r.ended:
		return Assignment{}, ErrNotReady
	case <-ctx.Done():
		return Assignment{}, ctx.Err()
	}
}

// Wait waits for a table of at least the given revision of the documents.
func (r *Resolver) Wait(ctx context.Context, revision int64) error {
	for {
		published := *r.published.Load()
		if t := r.table.Load(); t != nil && t.revision >= revision {
			return nil
		}
		select {
		case <-published:
		case <-r.ended:
			return ErrNotReady
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// outrun says whether a node is ahead of its assignment.
func (a Assignment) outrun(revision uint64, digest []byte) bool {
	return a.Revision != 0 && (revision > a.Revision || revision == a.Revision && !bytes.Equal(digest, a.Digest[:]))
}

// Run works until ctx ends. Its goroutine is the only writer of the table. notify is called with the machines whose
// assignment or standing changed, and with none when only members of groups did, after the table that says so is published; it must not block.
func (r *Resolver) Run(ctx context.Context, notify func(machines []directory.UUID)) error {
	defer close(r.ended)
	r.notify = notify
	hints := r.config.Documents.WatchDocuments(ctx)
	due := time.NewTimer(r.config.Delay)
	due.Stop()
	defer due.Stop()
	pending, reread, moved := false, false, []chan struct{}(nil)
	soon := func() {
		if !pending {
			pending = true
			due.Reset(r.config.Delay)
		}
	}
	for {
		select {
		case _, ok := <-hints:
			if !ok {
				return nil
			}
			reread = true
			soon()
		case <-r.config.ViewChanged:
			soon()
		case a := <-r.adopt:
			r.advance(a)
		case done := <-r.relocate:
			moved = append(moved, done)
			soon()
		case <-due.C:
			pending = false
			if reread && !r.read(ctx) {
				pending = true
				due.Reset(retryDelay)
				break
			}
			reread = false
			r.resolve(len(moved) > 0)
			for _, done := range moved {
				close(done)
			}
			moved = nil
		case <-ctx.Done():
			return nil
		}
	}
}

// read reads the documents if they changed; it reports whether it could.
func (r *Resolver) read(ctx context.Context) bool {
	docs, err := r.config.Documents.Documents(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.config.Log.Error("cannot read the policy documents, the last state stays in force", "error", err)
		}
		return false
	}
	if r.documents != nil && docs.Revision == r.documents.revision {
		return true
	}
	set, err := Parse(docs)
	if err != nil {
		// Whoever wrote past the admin API gets no policy into force that does not validate.
		if docs.Revision != r.refused {
			r.config.Log.Error("stored policy documents are refused, the last state stays in force", "revision", docs.Revision, "error", err)
		}
		r.refused = docs.Revision
		return r.documents != nil
	}
	r.documents = &documentSet{revision: docs.Revision, parsed: set}
	return true
}

// resolve publishes a new table if the directory, the documents or the places of machines changed, and announces the
// difference.
func (r *Resolver) resolve(moved bool) {
	view, old := r.config.View(), r.table.Load()
	if view == nil || r.documents == nil {
		return
	}
	if old != nil && !moved && old.view == view && old.revision == r.documents.revision {
		return
	}
	var next *Table
	var touched []directory.UUID
	alone := old != nil && !moved && old.revision == r.documents.revision // the directory alone is another
	if alone {
		next, touched = evaluateFrom(view, old, r.records)
	} else {
		next = evaluate(view, *r.documents, r.locations.of, old, r.records)
	}
	r.runTests(next, old)
	r.table.Store(next)
	if old == nil {
		close(r.first)
	}
	published := make(chan struct{})
	close(*r.published.Swap(&published))
	var changed []directory.UUID
	if alone {
		changed = next.changedAmong(old, touched)
	} else {
		changed = next.changedFrom(old)
	}
	for _, problem := range next.problems {
		r.config.Log.Error("no policy can be worked out for machines, they keep what they have", "machines", problem.machines, "error", problem.err)
	}
	r.config.Log.Debug("assignments worked out", "documents", next.revision, "directory", view.Snapshot.Digest().Short(), "machines", len(next.slots), "changed", len(changed))
	if len(changed) > 0 || next.regrouped(old) {
		r.notify(changed)
	}
}

// advance moves the revision of one machine past what its node has.
func (r *Resolver) advance(a adoption) {
	defer close(a.done)
	t := r.table.Load()
	if t == nil {
		return
	}
	slot, ok := t.slots[a.machine]
	if !ok {
		return
	}
	present := *slot.Load()
	if !present.outrun(a.revision, a.digest) {
		return
	}
	present.Revision = a.revision
	if !bytes.Equal(a.digest, present.Digest[:]) {
		present.Revision++
	}
	slot.Store(&present)
	r.config.Log.Warn("node is ahead of the controller's records, revisions go on from there", "machine", present.Name, "revision", present.Revision)
}
