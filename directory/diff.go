package directory

import (
	"fmt"
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
