package directory

import (
	"fmt"
	"slices"
	"strings"
)

// Aspects are what changed about a machine that is in both snapshots.
type Aspects uint16

// The aspects of a change.
const (
	// Renamed: the DN differs, the containers that can link policy do not.
	Renamed Aspects = 1 << iota
	// Moved: another chain of containers that can link policy, or one of that chain was renamed or replaced.
	Moved
	// DisabledNow and EnabledNow: the account's state changed.
	DisabledNow
	EnabledNow
	// Identified: the short or the DNS name differs, which the machine's certificate carries.
	Identified
	// Addressed: the addresses differ.
	Addressed
	// Regrouped: the groups that it belongs to, directly or not, differ.
	Regrouped
)

var aspectNames = []struct {
	bit  Aspects
	name string
}{
	{Renamed, "renamed"}, {Moved, "moved"}, {DisabledNow, "disabled"}, {EnabledNow, "enabled"},
	{Identified, "other host name"}, {Addressed, "other addresses"}, {Regrouped, "other groups"},
}

func (a Aspects) String() string {
	var names []string
	for _, n := range aspectNames {
		if a&n.bit != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, ", ")
}

// Has says whether any of the given aspects is set.
func (a Aspects) Has(given Aspects) bool { return a&given != 0 }

// A MachineChange is one machine before and after.
type MachineChange struct {
	Old, New Machine
	Aspects  Aspects
	// Joined and Left are the groups gained and lost; set with Regrouped.
	Joined, Left []DN
}

func (c MachineChange) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", c.New.Name, c.Aspects)
	if c.Aspects.Has(Renamed | Moved) {
		fmt.Fprintf(&b, ", from %s to %s", c.Old.DN, c.New.DN)
	}
	if c.Aspects.Has(Identified) {
		fmt.Fprintf(&b, ", was %s (%s), is %s (%s)", c.Old.Name, c.Old.DNSName, c.New.Name, c.New.DNSName)
	}
	for _, g := range c.Joined {
		fmt.Fprintf(&b, ", joined %s", g)
	}
	for _, g := range c.Left {
		fmt.Fprintf(&b, ", left %s", g)
	}
	return b.String()
}

// A ContainerChange is one container whose DN changed.
type ContainerChange struct{ Old, New Container }

// A Diff is what turns one snapshot into another. Machines are ordered by name, containers from the base downwards.
type Diff struct {
	From, To Digest
	// OldMachines and NewMachines count the machines of either side.
	OldMachines, NewMachines int

	Added   []Machine
	Removed []Machine
	Changed []MachineChange

	ContainersAdded   []Container
	ContainersRemoved []Container
	ContainersRenamed []ContainerChange

	// GroupsChanged says that some group differs, even when no machine's membership does.
	GroupsChanged bool
}

// Empty says that nothing changed.
func (d Diff) Empty() bool { return d.From == d.To }

// Counts sums a Diff up. One machine counts once under every aspect that it has.
type Counts struct {
	Added, Removed, Moved, Renamed, Disabled, Enabled, Identified, Addressed, Regrouped int
	ContainersAdded, ContainersRemoved, ContainersRenamed                               int
}

// Counts counts.
func (d Diff) Counts() Counts {
	c := Counts{
		Added: len(d.Added), Removed: len(d.Removed),
		ContainersAdded: len(d.ContainersAdded), ContainersRemoved: len(d.ContainersRemoved), ContainersRenamed: len(d.ContainersRenamed),
	}
	for _, m := range d.Changed {
		for _, count := range [...]struct {
			bit Aspects
			n   *int
		}{
			{Moved, &c.Moved}, {Renamed, &c.Renamed}, {DisabledNow, &c.Disabled}, {EnabledNow, &c.Enabled},
			{Identified, &c.Identified}, {Addressed, &c.Addressed}, {Regrouped, &c.Regrouped},
		} {
			if m.Aspects.Has(count.bit) {
				*count.n++
			}
		}
	}
	return c
}

// String sums the difference up in one line: "2 machines added, 1 moved".
func (d Diff) String() string {
	if d.Empty() {
		return "no change"
	}
	c := d.Counts()
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{
		{c.Added, "added"}, {c.Removed, "removed"}, {c.Moved, "moved"}, {c.Renamed, "renamed"}, {c.Disabled, "disabled"},
		{c.Enabled, "enabled"}, {c.Identified, "with another host name"}, {c.Addressed, "with other addresses"},
		{c.Regrouped, "in other groups"}, {c.ContainersAdded, "containers added"}, {c.ContainersRemoved, "containers removed"},
		{c.ContainersRenamed, "containers renamed or moved"},
	} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	machines := fmt.Sprintf("machines (%d before, %d after): ", d.OldMachines, d.NewMachines)
	if len(parts) == 0 {
		if d.GroupsChanged {
			return machines + "none changed, groups differ"
		}
		return machines + "none changed, spelling differs"
	}
	return machines + strings.Join(parts, ", ")
}

// NewDiff compares two snapshots; a nil old one is an empty directory.
func NewDiff(old, next *Snapshot) Diff {
	d := Diff{To: next.digest, NewMachines: len(next.machines)}
	if old == nil {
		d.Added = slices.Clone(next.machines)
		d.ContainersAdded = slices.Clone(next.containers)
		d.GroupsChanged = len(next.groups) > 0
		return d
	}
	d.From, d.OldMachines = old.digest, len(old.machines)
	if d.Empty() {
		return d
	}
	d.GroupsChanged = old.groupsDigest != next.groupsDigest
	for i := range next.machines {
		m := &next.machines[i]
		r := old.byUUID[m.UUID]
		if r.kind != refMachine {
			d.Added = append(d.Added, *m)
			continue
		}
		if c := compareMachine(old, next, r.index, int32(i), d.GroupsChanged); c.Aspects != 0 {
			d.Changed = append(d.Changed, c)
		}
	}
	for _, m := range old.machines {
		if next.byUUID[m.UUID].kind != refMachine {
			d.Removed = append(d.Removed, m)
		}
	}
	for _, c := range next.containers {
		was, ok := old.Container(c.UUID)
		switch {
		case !ok:
			d.ContainersAdded = append(d.ContainersAdded, c)
		case !was.DN.Equal(c.DN):
			d.ContainersRenamed = append(d.ContainersRenamed, ContainerChange{was, c})
		}
	}
	for _, c := range old.containers {
		if _, ok := next.Container(c.UUID); !ok {
			d.ContainersRemoved = append(d.ContainersRemoved, c)
		}
	}
	return d
}

func compareMachine(old, next *Snapshot, i, j int32, groupsChanged bool) MachineChange {
	a, b := &old.machines[i], &next.machines[j]
	var c MachineChange
	renamed := a.DN.key != b.DN.key
	switch {
	case old.scopes[old.machineIn[i]] != next.scopes[next.machineIn[j]]:
		c.Aspects |= Moved
	case renamed:
		c.Aspects |= Renamed
	}
	switch {
	case b.Disabled && !a.Disabled:
		c.Aspects |= DisabledNow
	case a.Disabled && !b.Disabled:
		c.Aspects |= EnabledNow
	}
	if a.DNSName != b.DNSName || !strings.EqualFold(a.Name, b.Name) {
		c.Aspects |= Identified
	}
	if !slices.Equal(a.Addresses, b.Addresses) {
		c.Aspects |= Addressed
	}
	// Groups name their members by DN: with the same groups, the same DN and primary group, membership is the same.
	if groupsChanged || renamed || a.PrimaryGroup != b.PrimaryGroup {
		c.Joined, c.Left = compareGroups(old, next, a.DN, b.DN)
		if len(c.Joined)+len(c.Left) > 0 {
			c.Aspects |= Regrouped
		}
	}
	if c.Aspects != 0 {
		c.Old, c.New = *a, *b
	}
	return c
}

// compareGroups compares by the groups' identity: a renamed group is the same group.
func compareGroups(old, next *Snapshot, was, is DN) (joined, left []DN) {
	before, after := old.memberOfIndexes(was.key), next.memberOfIndexes(is.key)
	if len(before) == 0 && len(after) == 0 {
		return nil, nil
	}
	had := make(map[UUID]bool, len(before))
	for _, g := range before {
		had[old.groups[g].UUID] = true
	}
	for _, g := range after {
		u := next.groups[g].UUID
		if !had[u] {
			joined = append(joined, next.groups[g].DN)
		}
		delete(had, u)
	}
	for _, g := range before {
		if had[old.groups[g].UUID] {
			left = append(left, old.groups[g].DN)
		}
	}
	return joined, left
}
