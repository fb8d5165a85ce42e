package resolver

import (
	"maps"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/resolve"
)

// use is what assignments have in common; a Table counts those of each.
type use struct {
	digest          compile.Digest
	policy, problem string
}

func (a Assignment) use() use { return use{a.Digest, a.Policy, a.Problem} }

// evaluateFrom is evaluate for another view alone: documents and the addresses of machines are those of the old table. It
// works out what the difference of the views touches, and returns those machines; everything else stays.
func evaluateFrom(view *mirror.View, old *Table, records map[directory.UUID]store.NodeRecord) (*Table, []directory.UUID) {
	b := &builder{
		table: &Table{
			view: view, revision: old.revision, parsed: old.parsed, plan: old.plan, slots: maps.Clone(old.slots),
			bundles: maps.Clone(old.bundles), digests: maps.Clone(old.digests), uses: maps.Clone(old.uses),
		},
		old: old, records: records, errors: map[string]string{},
	}
	b.outcome = func(u directory.UUID) (*resolve.Outcome, bool) {
		outcome, err := b.table.plan.Machine(view.Snapshot, u)
		return outcome, err == nil
	}
	machines, gone := directory.Touched(old.view.Snapshot, view.Snapshot)
	var touched []directory.UUID
	forget := func(u directory.UUID) {
		if s, ok := b.table.slots[u]; ok {
			was := s.Load().use()
			if b.table.uses[was]--; b.table.uses[was] == 0 {
				delete(b.table.uses, was)
			}
			delete(b.table.slots, u)
		}
		touched = append(touched, u)
	}
	for _, u := range gone {
		forget(u)
	}
	for u := range old.view.Vanished {
		forget(u)
	}
	for _, m := range machines {
		forget(m.UUID)
		b.machine(m)
	}
	for u, v := range view.Vanished {
		forget(u)
		b.vanished(u, v)
	}
	b.prune()
	b.finish()
	return b.table, touched
}

// prune drops the bundles and policies that no machine has any more.
func (b *builder) prune() {
	digests, names := map[compile.Digest]bool{}, map[string]bool{}
	for u := range b.table.uses {
		digests[u.digest] = true
		if u.problem == "" {
			names[u.policy] = true
		}
	}
	maps.DeleteFunc(b.table.bundles, func(d compile.Digest, _ compile.Bundle) bool { return !digests[d] })
	// A vanished machine may have a policy as it was before: its name is in use then, the bundle of today is not.
	maps.DeleteFunc(b.table.digests, func(name string, d compile.Digest) bool { return !names[name] || !digests[d] })
}

// changedAmong is changedFrom where only the given machines can differ.
func (t *Table) changedAmong(old *Table, machines []directory.UUID) []directory.UUID {
	var changed []directory.UUID
	seen := make(map[directory.UUID]bool, len(machines))
	for _, u := range machines {
		if seen[u] {
			continue
		}
		seen[u] = true
		_, had := old.slots[u]
		_, has := t.slots[u]
		before, now := old.Assignment(u), t.Assignment(u)
		if has && (before.Revision != now.Revision || before.Standing != now.Standing) || had && !has {
			changed = append(changed, u)
		}
	}
	return changed
}
