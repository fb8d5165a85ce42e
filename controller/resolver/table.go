package resolver

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/preshared"
	"github.com/bailiwick-net/bailiwick/policies/resolve"
)

// documentSet is the documents at one revision, decoded and valid.
type documentSet struct {
	revision int64
	parsed   policies.Documents
}

// Parse decodes and validates stored documents. Errors say which document they are about.
func Parse(docs store.Documents) (policies.Documents, error) {
	var all policies.Documents
	var errs []error
	for _, d := range docs.List {
		decoded, err := policies.Decode(d.String(), d.Content)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = all.Merge(decoded)
	}
	errs = append(errs, policies.Check(policies.Validate(all)))
	if err := errors.Join(errs...); err != nil {
		return policies.Documents{}, fmt.Errorf("policy documents at revision %d: %w", docs.Revision, err)
	}
	return all, nil
}

// slot holds the assignment of one machine. Between two tables only Resolver.advance replaces what is in it.
type slot = atomic.Pointer[Assignment]

// A Table is every machine's assignment for one state of directory and documents.
type Table struct {
	view     *mirror.View
	revision int64
	parsed   policies.Documents
	slots    map[directory.UUID]*slot
	bundles  map[compile.Digest]compile.Bundle
	digests  map[string]compile.Digest // by name of the policy
	problems []problem
	named    map[compile.Digest][]string // the groups that each bundle names
	members  map[string][]directory.UUID // of those groups
	secrets  map[compile.Digest][]preshared.Use
	plan     *resolve.Plan
	uses     map[use]int
	// failedTests are sentences; set before the table is published.
	failedTests []string
}

// problem is one reason why machines have no policy.
type problem struct {
	err      string
	machines int
}

// View returns the directory that the table is for.
func (t *Table) View() *mirror.View { return t.view }

// DocumentsRevision returns the revision of the documents that the table is for.
func (t *Table) DocumentsRevision() int64 { return t.revision }

// Documents returns the documents that the table is for; they must not be changed.
func (t *Table) Documents() policies.Documents { return t.parsed }

// Assignment returns that of a machine; its Standing is Unknown when there is none.
func (t *Table) Assignment(machine directory.UUID) Assignment {
	if slot, ok := t.slots[machine]; ok {
		return *slot.Load()
	}
	return Assignment{Machine: machine}
}

// All yields every assignment, in no order.
func (t *Table) All() iter.Seq[Assignment] {
	return func(yield func(Assignment) bool) {
		for _, slot := range t.slots {
			if !yield(*slot.Load()) {
				return
			}
		}
	}
}

// Members returns the machines in each group that a bundle names, directly or through other groups, in no order; a group
// that the directory does not have has none. They must not be changed.
func (t *Table) Members() map[string][]directory.UUID { return t.members }

// findMembers looks up who is in the groups that the bundles name. Machines that are gone are in none.
func (t *Table) findMembers(old *Table) {
	t.named, t.members = make(map[compile.Digest][]string, len(t.bundles)), map[string][]directory.UUID{}
	t.secrets = make(map[compile.Digest][]preshared.Use, len(t.bundles))
	for digest, b := range t.bundles {
		names, known := []string(nil), false
		if old != nil {
			names, known = old.named[digest]
			t.secrets[digest] = old.secrets[digest]
		}
		if !known {
			names, t.secrets[digest] = namedBy(b)
		}
		t.named[digest] = names
		for _, g := range names {
			t.members[g] = nil
		}
	}
	for name := range t.members {
		group, err := directory.ParseDN(name)
		if err != nil { // refused where documents are read
			continue
		}
		for _, m := range t.view.Snapshot.Members(group) {
			t.members[name] = append(t.members[name], m.UUID)
		}
	}
}

// namedBy lists the groups and the secrets that a bundle names. One that cannot be read names none here; the nodes refuse
// it.
func namedBy(b compile.Bundle) (groups []string, secrets []preshared.Use) {
	policy, err := compile.Open(b.Policy, b.Digest)
	if err != nil {
		return nil, nil
	}
	for _, r := range policy.Rules {
		groups = append(groups, r.PeerGroups...)
	}
	return groups, preshared.Uses(policy)
}

// regrouped reports whether other machines are in the groups than before.
func (t *Table) regrouped(old *Table) bool {
	if old == nil {
		return len(t.members) > 0
	}
	return !maps.EqualFunc(t.members, old.members, slices.Equal[[]directory.UUID])
}

// Bundle returns a bundle that some machine has.
func (t *Table) Bundle(digest compile.Digest) (compile.Bundle, bool) {
	b, ok := t.bundles[digest]
	return b, ok
}

// Digest returns the digest of a policy's bundle; false for a policy that no machine has.
func (t *Table) Digest(policy string) (compile.Digest, bool) {
	d, ok := t.digests[policy]
	return d, ok
}

// changedFrom lists the machines whose node would notice a difference.
func (t *Table) changedFrom(old *Table) []directory.UUID {
	var changed []directory.UUID
	for u, slot := range t.slots {
		if old == nil {
			changed = append(changed, u)
			continue
		}
		before, now := old.Assignment(u), *slot.Load()
		if before.Revision != now.Revision || before.Standing != now.Standing {
			changed = append(changed, u)
		}
	}
	if old == nil {
		return changed
	}
	for u := range old.slots {
		if _, ok := t.slots[u]; !ok {
			changed = append(changed, u)
		}
	}
	return changed
}

// builder evaluates one table.
type builder struct {
	table   *Table
	old     *Table
	records map[directory.UUID]store.NodeRecord
	outcome func(directory.UUID) (*resolve.Outcome, bool)
	errors  map[string]string // of policies that do not compile, by name
}

// evaluate works out every assignment. It is a pure function of its arguments.
func evaluate(view *mirror.View, docs documentSet, where resolve.Locations, old *Table, records map[directory.UUID]store.NodeRecord) *Table {
	machines := len(view.Vanished)
	_, n, _ := view.Snapshot.Len()
	b := &builder{
		table: &Table{
			view: view, revision: docs.revision, parsed: docs.parsed, plan: resolve.Prepare(docs.parsed).At(where), slots: make(map[directory.UUID]*slot, n+machines),
			bundles: map[compile.Digest]compile.Bundle{}, digests: map[string]compile.Digest{}, uses: map[use]int{},
		},
		old: old, records: records, errors: map[string]string{},
	}
	outcomes := b.table.plan.All(view.Snapshot)
	b.outcome = outcomes.Of
	for m := range view.Snapshot.Machines() {
		b.machine(m)
	}
	for u, gone := range view.Vanished {
		b.vanished(u, gone)
	}
	b.finish()
	return b.table
}

func (b *builder) machine(m directory.Machine) {
	a := Assignment{Machine: m.UUID, Name: m.Name, Standing: Enabled}
	if m.Disabled {
		a.Standing = Disabled
	}
	if err := b.assign(&a); err != nil {
		a.Problem = err.Error()
		b.keep(&a)
	}
	b.put(a)
}

func (b *builder) vanished(u directory.UUID, gone mirror.Vanished) {
	a := Assignment{Machine: u, Name: gone.Machine.Name, Standing: Vanished}
	b.keep(&a)
	b.put(a)
}

// finish sums up.
func (b *builder) finish() {
	failed := map[string]int{}
	for u, machines := range b.table.uses {
		if u.problem != "" {
			failed[u.problem] += machines
		}
	}
	for text, machines := range failed {
		b.table.problems = append(b.table.problems, problem{text, machines})
	}
	b.table.findMembers(b.old)
}

// assign sets policy, container and digest, and the revision that follows from what was before.
func (b *builder) assign(a *Assignment) error {
	outcome, ok := b.outcome(a.Machine)
	switch {
	case !ok:
		return fmt.Errorf("machine %v: %w", a.Machine, resolve.ErrUnknownMachine)
	case outcome.Err != nil:
		return outcome.Err
	}
	bundle, err := b.bundle(outcome.Policy)
	if err != nil {
		return err
	}
	a.Digest, a.Policy, a.Revision = bundle.Digest, outcome.Policy, 1
	if winner, ok := outcome.Winner(); ok {
		a.Container = winner.Container.String()
	}
	if before, known := b.before(a.Machine); known {
		a.Revision = before.Revision
		if !before.same(*a) {
			a.Revision++
		}
	}
	return nil
}

// before is the assignment in the old table or, where there is none, what the node acknowledged last before the start.
// Its revision is not 0.
func (b *builder) before(u directory.UUID) (Assignment, bool) {
	if b.old != nil {
		if slot, ok := b.old.slots[u]; ok && slot.Load().Revision != 0 {
			return *slot.Load(), true
		}
	}
	record, ok := b.records[u]
	if !ok || record.Revision == 0 {
		return Assignment{}, false
	}
	a := Assignment{Machine: u, Revision: record.Revision, Policy: record.Policy, Container: record.Container}
	if digest, err := compile.ParseDigest(record.Digest); err == nil {
		a.Digest = digest
	}
	return a, true
}

// keep carries the assignment before over, with its bundle. After a restart the bundle is made from the policy that the
// node acknowledged; when that no longer gives the same bundle there is nothing to send, and the node keeps what it has.
func (b *builder) keep(a *Assignment) {
	before, known := b.before(a.Machine)
	if !known {
		return
	}
	if b.old != nil {
		if bundle, ok := b.old.bundles[before.Digest]; ok {
			b.table.bundles[bundle.Digest] = bundle
			a.Revision, a.Digest, a.Policy, a.Container = before.Revision, before.Digest, before.Policy, before.Container
			return
		}
	}
	if bundle, err := b.bundle(before.Policy); err == nil && bundle.Digest == before.Digest {
		a.Revision, a.Digest, a.Policy, a.Container = before.Revision, before.Digest, before.Policy, before.Container
	}
}

// bundle compiles a policy once.
func (b *builder) bundle(policy string) (compile.Bundle, error) {
	if digest, ok := b.table.digests[policy]; ok {
		return b.table.bundles[digest], nil
	}
	if text, ok := b.errors[policy]; ok {
		return compile.Bundle{}, errors.New(text)
	}
	bundle, err := compile.Compile(b.table.parsed, policy)
	if err != nil {
		b.errors[policy] = err.Error()
		return compile.Bundle{}, err
	}
	// The old table has the same bytes, perhaps shared with sends under way.
	if b.old != nil {
		if same, ok := b.old.bundles[bundle.Digest]; ok {
			bundle = same
		}
	}
	b.table.digests[policy], b.table.bundles[bundle.Digest] = bundle.Digest, bundle
	return bundle, nil
}

// put reuses the slot of an assignment that stayed the same.
func (b *builder) put(a Assignment) {
	b.table.uses[a.use()]++
	if b.old != nil {
		if s, ok := b.old.slots[a.Machine]; ok && *s.Load() == a {
			b.table.slots[a.Machine] = s
			return
		}
	}
	s := new(slot)
	s.Store(&a)
	b.table.slots[a.Machine] = s
}

// Preview evaluates other documents over the directory in force, and lists the machines whose policy would change.
// Nothing is published. The documents must have been validated.
func (r *Resolver) Preview(docs policies.Documents) ([]directory.UUID, error) {
	present := r.table.Load()
	if present == nil {
		return nil, ErrNotReady
	}
	return r.instead(present, docs).changedFrom(present), nil
}

// instead is the table that other documents would make.
func (r *Resolver) instead(present *Table, docs policies.Documents) *Table {
	return evaluate(present.view, documentSet{present.revision, docs}, r.locations.of, present, nil)
}

// A Reassignment is a machine to which other documents give another policy, or one of the same name with another content.
type Reassignment struct {
	Machine       directory.Machine
	Before, After Assignment
}

// Reassigned is Preview without the machines that keep their policy, if by another link.
func (r *Resolver) Reassigned(docs policies.Documents) ([]Reassignment, error) {
	present := r.table.Load()
	if present == nil {
		return nil, ErrNotReady
	}
	next := r.instead(present, docs)
	var out []Reassignment
	for _, u := range next.changedFrom(present) {
		before, after := present.Assignment(u), next.Assignment(u)
		if machine, _, ok := present.view.Machine(u); ok && (before.Policy != after.Policy || before.Digest != after.Digest) {
			out = append(out, Reassignment{machine, before, after})
		}
	}
	return out, nil
}

// Explain tells which link won for a machine that the directory holds, and why every other one did not.
func (t *Table) Explain(machine directory.UUID) (*resolve.Outcome, error) {
	return t.plan.Machine(t.view.Snapshot, machine)
}
