package directory

import (
	"errors"
	"fmt"
	"slices"
)

// maxBuildErrors bounds what one failed Build reports: enough to see the pattern, not the whole tree.
const maxBuildErrors = 10

// An Edit collects changes of a Snapshot, to make another one of it that shares what stays: the cost is that of the
// changes, whatever the size of the directory. It is used by one goroutine; the Snapshot stays as it is.
type Edit struct {
	from     *Snapshot
	entries  map[UUID]Object // nil for those that go
	problems []Problem
}

// Edit starts an edit of the snapshot. Its base stays.
func (s *Snapshot) Edit() *Edit {
	return &Edit{from: s, entries: map[UUID]Object{}, problems: s.problems}
}

// Put adds an entry, or replaces the one with its UUID. As with a Builder, its slices must not be changed afterwards.
func (e *Edit) Put(o Object) {
	u, _ := o.Identity()
	e.entries[u] = Normalise(o)
}

// Remove takes the entry with the UUID away; there need not be one.
func (e *Edit) Remove(u UUID) { e.entries[u] = nil }

// SetProblems replaces the problems; the slice is sorted in place and must not be changed afterwards.
func (e *Edit) SetProblems(p []Problem) { e.problems = sortProblems(p) }

// Build returns what a Builder would make of all entries, or the same kind of error.
func (e *Edit) Build() (*Snapshot, error) {
	var c changes
	next := *e.from
	next.problems = e.problems
	for u, o := range e.entries {
		if m := e.from.machineOf(u); m != nil {
			if is, ok := o.(Machine); ok {
				if entry := newMachineEntry(is); entry.sameAs(m) {
					continue
				}
			}
			c.machines.gone = append(c.machines.gone, m)
		} else if g := e.from.groupOf(u); g != nil {
			if is, ok := o.(Group); ok && newGroupEntry(is).sum == g.sum {
				continue
			}
			c.groups.gone = append(c.groups.gone, g)
		} else if was := e.from.containerOf(u); was != nil {
			if is, ok := o.(Container); ok && is == *was {
				continue
			}
			c.containers.gone = append(c.containers.gone, was)
		}
		if o != nil {
			c.add(o)
		}
	}
	return c.apply(&next)
}

// Same says whether two objects are one entry in one state, for all that a Snapshot tells apart: an Edit that puts an object
// in place of the same one changes nothing. How the members of a group are written, and whether a list is empty or nil, is
// no difference. The lists are in the order of Normalise.
func Same(a, b Object) bool {
	switch a := a.(type) {
	case Container:
		b, ok := b.(Container)
		return ok && a == b
	case Machine:
		b, ok := b.(Machine)
		return ok && a.UUID == b.UUID && newMachineEntry(a).sameAs(newMachineEntry(b))
	case Group:
		b, ok := b.(Group)
		return ok && newGroupEntry(a).sum == newGroupEntry(b).sum
	}
	return a == nil && b == nil
}

// sameAs says whether two machines of one identity are the same in everything.
func (m *machineEntry) sameAs(o *machineEntry) bool {
	return m.DN == o.DN && m.Name == o.Name && m.DNSName == o.DNSName && m.Disabled == o.Disabled &&
		m.PrimaryGroup == o.PrimaryGroup && slices.Equal(m.Addresses, o.Addresses)
}

// apply makes the changes in a copy of a snapshot, which is of no use after an error.
func (c *changes) apply(s *Snapshot) (*Snapshot, error) {
	r := &report{}
	c.applyEntries(s, r)
	c.applyMemberships(s)
	c.compareKinds(s, r)
	if len(r.errs) == 0 {
		c.checkPlaces(s, r)
	}
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}
	s.digestContent()
	return s, nil
}

// applyEntries makes the tables of entries anew and finds what only one of each kind may have.
func (c *changes) applyEntries(s *Snapshot, r *report) {
	for _, e := range c.containers.fresh {
		r.identified(e.UUID, e.DN)
	}
	for _, e := range c.machines.fresh {
		r.identified(e.UUID, e.DN)
	}
	for _, e := range c.groups.fresh {
		r.identified(e.UUID, e.DN)
	}
	gone, fresh := c.containers.gone, c.containers.fresh
	s.containers.byLevel = containersByLevel.edit(s.containers.byLevel, gone, fresh, func(a, b *Container) { r.duplicate(sameDN, a.DN, b.DN) })
	s.containers.byPlace = containersByPlace.edit(s.containers.byPlace, gone, fresh, func(_, _ *Container) {})
	s.containers.byUUID = containersByUUID.edit(s.containers.byUUID, gone, fresh, func(a, b *Container) { r.sharedUUID(a.UUID, a.DN, b.DN) })

	{
		gone, fresh := c.machines.gone, c.machines.fresh
		s.machines.byUUID = machinesByUUID.edit(s.machines.byUUID, gone, fresh, func(a, b *machineEntry) { r.sharedUUID(a.UUID, a.DN, b.DN) })
		s.machines.byName = machinesByName.edit(s.machines.byName, gone, fresh, func(a, b *machineEntry) {
			r.add(&DuplicateError{What: "machine name", Value: b.Name, A: a.DN, B: b.DN})
		})
		// The DNS name stands in the machine's certificate: two bearers would be one identity.
		nameless := func(m *machineEntry) bool { return m.DNSName == "" }
		named, renamed := slices.DeleteFunc(slices.Clone(gone), nameless), slices.DeleteFunc(slices.Clone(fresh), nameless)
		s.machines.byDNSName = machinesByDNSName.edit(s.machines.byDNSName, named, renamed, func(a, b *machineEntry) {
			r.add(&DuplicateError{What: "DNS name", Value: b.DNSName, A: a.DN, B: b.DN})
		})
		// Last, so that the machines of one container stand together when their places are checked.
		s.machines.byPlace = machinesByPlace.edit(s.machines.byPlace, gone, fresh, func(a, b *machineEntry) { r.duplicate(sameDN, a.DN, b.DN) })
	}
	{
		gone, fresh := c.groups.gone, c.groups.fresh
		s.groups.byUUID = groupsByUUID.edit(s.groups.byUUID, gone, fresh, func(a, b *groupEntry) { r.sharedUUID(a.UUID, a.DN, b.DN) })
		s.groups.byDN = groupsByDN.edit(s.groups.byDN, gone, fresh, func(a, b *groupEntry) { r.duplicate(sameDN, a.DN, b.DN) })
		without := func(g *groupEntry) bool { return g.RID == 0 }
		gone, fresh = slices.DeleteFunc(slices.Clone(gone), without), slices.DeleteFunc(slices.Clone(fresh), without)
		s.groups.byRID = groupsByRID.edit(s.groups.byRID, gone, fresh, func(a, b *groupEntry) {
			r.add(&DuplicateError{What: "group RID", Value: fmt.Sprint(b.RID), A: a.DN, B: b.DN})
		})
	}
}

// applyMemberships makes the table of memberships anew: of a group that stays, only the difference counts.
func (c *changes) applyMemberships(s *Snapshot) {
	before := map[UUID]*groupEntry{}
	for _, g := range c.groups.gone {
		before[g.UUID] = g
	}
	var gone, fresh []membership
	for _, g := range c.groups.fresh {
		was := before[g.UUID]
		if was == nil || !was.DN.Equal(g.DN) {
			for _, m := range g.Members {
				fresh = append(fresh, membership{m.key, g.DN.key})
			}
			continue
		}
		delete(before, g.UUID)
		compareMembers(was.Members, g.Members, func(key string, now bool) {
			if now {
				fresh = append(fresh, membership{key, g.DN.key})
			} else {
				gone = append(gone, membership{key, g.DN.key})
			}
		})
	}
	for _, g := range before {
		for _, m := range g.Members {
			gone = append(gone, membership{m.key, g.DN.key})
		}
	}
	s.memberships = membershipsByMember.edit(s.memberships, gone, fresh, func(_, _ membership) {})
}

// compareMembers calls each for every member that only one of two sorted lists has.
func compareMembers(was, is []DN, each func(key string, now bool)) {
	for len(was)+len(is) > 0 {
		switch {
		case len(was) == 0 || len(is) > 0 && is[0].key < was[0].key:
			each(is[0].key, true)
			is = is[1:]
		case len(is) == 0 || was[0].key < is[0].key:
			each(was[0].key, false)
			was = was[1:]
		default:
			was, is = was[1:], is[1:]
		}
	}
}

// compareKinds finds entries of different kinds with one UUID or one name. Of two kinds, the smaller list is looked up.
func (c *changes) compareKinds(s *Snapshot, r *report) {
	containers, _, groups := s.Len()
	few := len(c.machines.fresh) <= containers+groups
	if few {
		for _, m := range c.machines.fresh {
			r.kinds(m.UUID, m.DN, s.containerOf(m.UUID), s.containerAt(m.DN.key), nil, nil, s.groupOf(m.UUID), s.groupAt(m.DN.key))
		}
	}
	check := func(u UUID, dn DN, container bool) {
		if container {
			r.kinds(u, dn, nil, nil, s.machineOf(u), s.machineAt(dn.key), s.groupOf(u), s.groupAt(dn.key))
		} else {
			r.kinds(u, dn, s.containerOf(u), s.containerAt(dn.key), s.machineOf(u), s.machineAt(dn.key), nil, nil)
		}
	}
	if few {
		for _, e := range c.containers.fresh {
			check(e.UUID, e.DN, true)
		}
		for _, e := range c.groups.fresh {
			check(e.UUID, e.DN, false)
		}
		return
	}
	for e := range s.containers.byUUID.all() {
		check(e.UUID, e.DN, true)
	}
	for e := range s.groups.byUUID.all() {
		check(e.UUID, e.DN, false)
	}
}

// checkPlaces finds entries that are in no container.
func (c *changes) checkPlaces(s *Snapshot, r *report) {
	if s.containerAt(s.base.key) == nil {
		r.add(fmt.Errorf("%w: the base %q is not a container that was read", ErrInconsistent, s.base))
		return
	}
	var last string // the container of the entry before
	check := func(dn DN) {
		up, _ := splitPlace(dn.key)
		switch {
		case dn.Equal(s.base), up != "" && up == last:
		case dn.IsDescendantOf(s.base) && s.containerAt(up) != nil:
			last = up
		default:
			r.add(&OrphanError{DN: dn, Parent: dn.Parent(), Base: s.base})
		}
	}
	for _, e := range c.containers.fresh {
		check(e.DN)
	}
	for _, e := range c.machines.fresh {
		check(e.DN)
	}
	for _, e := range c.groups.fresh {
		check(e.DN)
	}
	left := map[string]bool{} // containers that are no more
	for _, e := range c.containers.gone {
		if s.containerAt(e.DN.key) != nil {
			continue
		}
		left[e.DN.key] = true
		for m := range s.machinesIn(e.DN.key) {
			check(m.DN)
		}
		for below := range s.containersIn(e.DN.key) {
			check(below.DN)
		}
	}
	if len(left) == 0 {
		return
	}
	for g := range s.groups.byDN.all() {
		if up, _ := splitPlace(g.DN.key); left[up] {
			check(g.DN)
		}
	}
}

// report collects what is wrong with a set of entries, once each.
type report struct{ errs []error }

const sameDN = "distinguished name"

func (r *report) add(err error) {
	if len(r.errs) >= maxBuildErrors {
		return
	}
	text := err.Error()
	if !slices.ContainsFunc(r.errs, func(have error) bool { return have.Error() == text }) {
		r.errs = append(r.errs, err)
	}
}

func (r *report) identified(u UUID, dn DN) {
	if u.IsZero() {
		r.add(fmt.Errorf("%w: entry %q has no UUID", ErrInconsistent, dn))
	}
}

func (r *report) sharedUUID(u UUID, a, b DN) {
	r.add(&DuplicateError{What: "UUID", Value: u.String(), A: a, B: b})
}

func (r *report) duplicate(what string, a, b DN) {
	r.add(&DuplicateError{What: what, Value: b.String(), A: a, B: b})
}

// kinds reports the entries of other kinds that have an entry's UUID or its name.
func (r *report) kinds(u UUID, dn DN, cu, cd *Container, mu, md *machineEntry, gu, gd *groupEntry) {
	// The same pair may be met from both sides.
	ordered := func(a, b DN) (DN, DN) {
		if a.Compare(b) > 0 || a.Equal(b) && a.text > b.text {
			return b, a
		}
		return a, b
	}
	shared := func(other DN) {
		a, b := ordered(other, dn)
		r.sharedUUID(u, a, b)
	}
	named := func(other DN) {
		a, b := ordered(other, dn)
		r.duplicate(sameDN, a, b)
	}
	if cu != nil {
		shared(cu.DN)
	}
	if mu != nil {
		shared(mu.DN)
	}
	if gu != nil {
		shared(gu.DN)
	}
	if cd != nil {
		named(cd.DN)
	}
	if md != nil {
		named(md.DN)
	}
	if gd != nil {
		named(gd.DN)
	}
}
