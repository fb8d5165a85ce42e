package directory

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Builder collects the entries of one complete read. The zero Builder is not ready: use NewBuilder. It is used by one
// goroutine and once.
type Builder struct {
	base     DN
	content  changes
	problems []Problem
}

// NewBuilder starts a snapshot of the tree below base. An empty base means the one entry that all others are below.
func NewBuilder(base DN) *Builder { return &Builder{base: base} }

// Add takes an entry over; its slices must not be changed afterwards. They are brought into order in place: an object that
// is added to several Builders has to be Normalised before.
func (b *Builder) Add(o Object) { b.content.add(o) }

// AddProblem records something that was read and could not be used.
func (b *Builder) AddProblem(p ...Problem) { b.problems = append(b.problems, p...) }

// Len returns the number of entries so far.
func (b *Builder) Len() int {
	return len(b.content.containers.fresh) + len(b.content.machines.fresh) + len(b.content.groups.fresh)
}

// Build checks that the entries are one tree without duplicates and returns it. The error joins at most ten
// *DuplicateError and *OrphanError. A tree without any entry is no tree: it is refused.
func (b *Builder) Build() (*Snapshot, error) {
	containers := b.content.containers.fresh
	if len(containers) == 0 {
		return nil, fmt.Errorf("%w: no container was read, not even the base %q", ErrInconsistent, b.base)
	}
	base := b.base
	if base.IsZero() {
		base = slices.MinFunc(containers, containersByLevel.compare).DN
	}
	return b.content.apply(&Snapshot{base: base, problems: sortProblems(b.problems)})
}

func sortProblems(p []Problem) []Problem {
	slices.SortFunc(p, func(x, y Problem) int {
		return cmp.Or(cmp.Compare(x.DN, y.DN), cmp.Compare(x.Attribute, y.Attribute), cmp.Compare(x.Reason, y.Reason))
	})
	return p
}

// changes are entries that go and entries that come.
type changes struct {
	containers struct{ gone, fresh []*Container }
	machines   struct{ gone, fresh []*machineEntry }
	groups     struct{ gone, fresh []*groupEntry }
}

// add brings an entry into the form that it has in a Snapshot.
func (c *changes) add(o Object) {
	switch e := o.(type) {
	case Container:
		c.containers.fresh = append(c.containers.fresh, &e)
	case Machine:
		c.machines.fresh = append(c.machines.fresh, newMachineEntry(e))
	case Group:
		e.normalise()
		c.groups.fresh = append(c.groups.fresh, newGroupEntry(e))
	}
}

func newMachineEntry(m Machine) *machineEntry {
	m.DNSName = strings.TrimSuffix(fold(m.DNSName), ".")
	m.normalise()
	folded := m.Name
	if f := fold(m.Name); f != m.Name {
		folded = f
	}
	return &machineEntry{m, folded}
}
