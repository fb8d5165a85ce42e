package directory

import (
	"crypto/sha256"
	"slices"
)

// NewDiff compares two snapshots; a nil old one is an empty directory. What they share costs nothing: the difference
// between a snapshot and an Edit of it is found in the time that the edit took.
func NewDiff(old, next *Snapshot) Diff {
	d := Diff{To: next.digest, NewMachines: next.machines.byUUID.len}
	if old == nil {
		d.Added = slices.Collect(next.Machines())
		d.ContainersAdded = slices.Collect(next.Containers())
		d.GroupsChanged = next.groups.byUUID.len > 0
		return d
	}
	d.From, d.OldMachines = old.digest, old.machines.byUUID.len
	if d.Empty() {
		return d
	}
	d.GroupsChanged = old.groupsDigest != next.groupsDigest
	c := &comparison{
		old: old, next: next, candidates: map[UUID]bool{}, regrouped: map[UUID]bool{},
		scopesBefore: map[string]scope{}, scopesNow: map[string]scope{},
	}
	c.machines(&d)
	c.containers(&d)
	if d.GroupsChanged {
		c.groups()
	}
	c.changed(&d)
	return d
}

// comparison is a comparison in progress.
type comparison struct {
	old, next *Snapshot
	// candidates are machines of both sides about which something may differ, regrouped those whose groups may.
	candidates, regrouped   map[UUID]bool
	scopesBefore, scopesNow map[string]scope // by the key of a container
}

func (c *comparison) machines(d *Diff) {
	var added, removed []*machineEntry
	machinesByUUID.difference(c.old.machines.byUUID, c.next.machines.byUUID, func(was, is *machineEntry) {
		switch {
		case was == nil:
			added = append(added, is)
		case is == nil:
			removed = append(removed, was)
		case !is.sameAs(was):
			c.candidates[is.UUID] = true
		}
	})
	d.Added, d.Removed = sortedMachines(added), sortedMachines(removed)
}

func sortedMachines(entries []*machineEntry) []Machine {
	machinesByName.sort(entries)
	var out []Machine
	for _, m := range entries {
		out = append(out, m.Machine)
	}
	return out
}

func (c *comparison) containers(d *Diff) {
	var added, removed []*Container
	var renamed []ContainerChange
	containersByUUID.difference(c.old.containers.byUUID, c.next.containers.byUUID, func(was, is *Container) {
		switch {
		case was == nil:
			added = append(added, is)
		case is == nil:
			removed = append(removed, was)
			return
		case !was.DN.Equal(is.DN):
			renamed = append(renamed, ContainerChange{*was, *is})
		}
		// Another container of the same name, or of another kind, is another scope for what stayed in it.
		if before := c.old.containerAt(is.DN.key); before != nil && (before.UUID != is.UUID || before.Kind != is.Kind) {
			for o := range c.next.Below(is.DN) {
				if m, ok := o.(Machine); ok {
					c.candidates[m.UUID] = true
				}
			}
		}
	})
	containersByLevel.sort(added)
	containersByLevel.sort(removed)
	slices.SortFunc(renamed, func(a, b ContainerChange) int { return compareContainers(a.New, b.New) })
	for _, e := range added {
		d.ContainersAdded = append(d.ContainersAdded, *e)
	}
	for _, e := range removed {
		d.ContainersRemoved = append(d.ContainersRemoved, *e)
	}
	d.ContainersRenamed = renamed
}

// groups finds whose groups may differ: what is, directly or not, in what a group gained or lost, and in groups that came,
// went, or go by another name.
func (c *comparison) groups() {
	down := newDescent(c.old, c.next)
	whole := func(g *groupEntry) {
		if g != nil {
			down.walk(g.DN.key)
			if g.RID != 0 {
				down.rids[g.RID] = true
			}
		}
	}
	groupsByUUID.difference(c.old.groups.byUUID, c.next.groups.byUUID, func(was, is *groupEntry) {
		if was == nil || is == nil || !was.DN.Equal(is.DN) || was.RID != is.RID {
			whole(was)
			whole(is)
			return
		}
		compareMembers(was.Members, is.Members, func(key string, _ bool) { down.walk(key) })
	})
	down.primaries()
	for m := range down.machines {
		c.candidates[m.UUID], c.regrouped[m.UUID] = true, true
	}
}

// changed compares the candidates.
func (c *comparison) changed(d *Diff) {
	var both []*machineEntry
	for u := range c.candidates {
		if m := c.next.machineOf(u); m != nil {
			both = append(both, m)
		}
	}
	machinesByName.sort(both)
	for _, m := range both {
		was := c.old.machineOf(m.UUID)
		if was == nil {
			continue
		}
		if change := c.machine(was, m); change.Aspects != 0 {
			d.Changed = append(d.Changed, change)
		}
	}
}

func (c *comparison) machine(a, b *machineEntry) MachineChange {
	var change MachineChange
	renamed := a.DN.key != b.DN.key
	switch {
	case c.old.scopeOf(c.scopesBefore, a.DN) != c.next.scopeOf(c.scopesNow, b.DN):
		change.Aspects |= Moved
	case renamed:
		change.Aspects |= Renamed
	}
	switch {
	case b.Disabled && !a.Disabled:
		change.Aspects |= DisabledNow
	case a.Disabled && !b.Disabled:
		change.Aspects |= EnabledNow
	}
	if a.DNSName != b.DNSName || a.folded != b.folded {
		change.Aspects |= Identified
	}
	if !slices.Equal(a.Addresses, b.Addresses) {
		change.Aspects |= Addressed
	}
	// Groups name their members by DN: with the same groups, the same DN and primary group, membership is the same.
	if c.regrouped[b.UUID] || renamed || a.PrimaryGroup != b.PrimaryGroup {
		change.Joined, change.Left = c.memberships(a.DN, b.DN)
		if len(change.Joined)+len(change.Left) > 0 {
			change.Aspects |= Regrouped
		}
	}
	if change.Aspects != 0 {
		change.Old, change.New = a.Machine, b.Machine
	}
	return change
}

// memberships compares by the groups' identity: a renamed group is the same group.
func (c *comparison) memberships(was, is DN) (joined, left []DN) {
	before, after := c.old.memberOf(was.key), c.next.memberOf(is.key)
	if len(before) == 0 && len(after) == 0 {
		return nil, nil
	}
	had := make(map[UUID]bool, len(before))
	for _, g := range before {
		had[g.UUID] = true
	}
	for _, g := range after {
		if !had[g.UUID] {
			joined = append(joined, g.DN)
		}
		delete(had, g.UUID)
	}
	for _, g := range before {
		if had[g.UUID] {
			left = append(left, g.DN)
		}
	}
	return joined, left
}

// A scope names the chain of containers that can link policy to what is below them, by identity and by name: links may
// be kept by either, so that a change of one is a change.
type scope [16]byte

// scopeOf returns the scope of an entry, and keeps those of the containers above it in known.
func (s *Snapshot) scopeOf(known map[string]scope, dn DN) scope {
	if dn.Equal(s.base) {
		return scope{}
	}
	parent := dn.Parent()
	up := parent.key
	if at, ok := known[up]; ok || parent.IsZero() {
		return at
	}
	at := s.scopeOf(known, parent)
	if c := s.containerAt(up); c != nil && c.LinksPolicy() {
		h := sha256.New()
		h.Write(at[:])
		h.Write(c.UUID[:])
		h.Write([]byte(c.DN.key))
		at = scope(h.Sum(nil)[:16])
	}
	known[up] = at
	return at
}

// Touched returns the machines of next about which anything that a machine's policy follows from may differ from old: the
// machine itself, the containers above it, or the groups that it is in. gone are those that only old has. What both
// snapshots share costs nothing.
func Touched(old, next *Snapshot) (touched []Machine, gone []UUID) {
	c := &comparison{old: old, next: next, candidates: map[UUID]bool{}, regrouped: map[UUID]bool{}}
	machinesByUUID.difference(old.machines.byUUID, next.machines.byUUID, func(was, is *machineEntry) {
		switch {
		case is == nil:
			gone = append(gone, was.UUID)
		case was == nil || !is.sameAs(was): // a union makes every entry anew
			c.candidates[is.UUID] = true
		}
	})
	containersByUUID.difference(old.containers.byUUID, next.containers.byUUID, func(was, is *Container) {
		if is == nil || was != nil && *was == *is {
			return // what was in a container that is gone has gone, or is elsewhere
		}
		for o := range next.Below(is.DN) {
			if m, ok := o.(Machine); ok {
				c.candidates[m.UUID] = true
			}
		}
	})
	if old.groupsDigest != next.groupsDigest {
		c.groups()
	}
	for u := range c.candidates {
		if m := next.machineOf(u); m != nil {
			touched = append(touched, m.Machine)
		}
	}
	return touched, gone
}
