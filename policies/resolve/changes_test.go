package resolve

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
)

// TestResolveFollowsChanges plays the life of a fleet: machines and containers are moved and renamed, groups lose and gain
// members, inheritance is blocked, links are enforced, disabled and put into another order, and policies get other names.
// After every step each machine has what the naive model says.
func TestResolveFollowsChanges(t *testing.T) {
	steps := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		s, d, where := drawWorld(t)
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			step := rapid.SampledFrom([]string{
				"move a machine", "move a container", "rename a machine", "rename a container", "block", "enforce", "disable", "order", "rename a policy", "member",
			}).Draw(t, "step")
			before := s.Digest()
			if !change(t, step, &s, &d) {
				continue
			}
			steps[step]++
			if moved := step == "move a machine" || step == "move a container"; moved && s.Digest() == before {
				t.Fatalf("%s: the directory is the same as before", step)
			}
			agrees(t, s, d, where)
		}
	})
	if t.Logf("%v", steps); len(steps) < 8 {
		t.Errorf("only %v was played", steps)
	}
}

// change makes one step, and reports whether there was anything to make it with.
func change(t *rapid.T, step string, s **directory.Snapshot, d *policies.Documents) bool {
	containers, machines := slices.Collect((*s).Containers()), slices.Collect((*s).Machines())
	switch step {
	case "move a machine", "move a container":
		dn := rapid.SampledFrom(machines).Draw(t, "machine").DN
		if step == "move a container" {
			dn = rapid.SampledFrom(containers).Draw(t, "container").DN
		}
		next, err := (*s).Move(dn, rapid.SampledFrom(containers).Draw(t, "to").DN)
		if err == nil { // into itself, or to where it is
			*s = next
		}
		return err == nil
	case "rename a machine":
		m := rapid.SampledFrom(machines).Draw(t, "machine")
		return rename(t, s, m.DN, "CN")
	case "rename a container":
		c := rapid.SampledFrom(containers).Draw(t, "container")
		return !c.DN.Equal((*s).Base()) && rename(t, s, c.DN, rapid.SampledFrom([]string{"OU", "CN"}).Draw(t, "type"))
	case "member":
		groups := slices.Collect((*s).Groups())
		if len(groups) == 0 {
			return false
		}
		g, m := rapid.SampledFrom(groups).Draw(t, "group"), rapid.SampledFrom(machines).Draw(t, "member").DN
		before := len(g.Members)
		g.Members = slices.DeleteFunc(slices.Clone(g.Members), m.Equal)
		if len(g.Members) == before {
			g.Members = append(g.Members, m)
		}
		edit := (*s).Edit()
		edit.Put(g)
		next, err := edit.Build()
		if err != nil {
			t.Fatal(err)
		}
		*s = next
		return true
	case "block":
		c := rapid.SampledFrom(containers).Draw(t, "container").DN
		blocks := func(o policies.Container) bool { return o.DN.Equal(c) }
		had := slices.ContainsFunc(d.Containers, blocks)
		d.Containers = slices.DeleteFunc(slices.Clone(d.Containers), blocks)
		if !had {
			d.Containers = append(d.Containers, policies.Container{DN: c, BlockInheritance: true})
		}
		return true
	}
	if len(d.Links) == 0 {
		return false
	}
	d.Links = slices.Clone(d.Links)
	l := &d.Links[rapid.IntRange(0, len(d.Links)-1).Draw(t, "link")]
	switch step {
	case "enforce":
		l.Enforced = !l.Enforced
	case "disable":
		l.Disabled = !l.Disabled
	case "order":
		for i := range d.Links { // the other way round
			if d.Links[i].Container.Equal(l.Container) {
				d.Links[i].Order = 10 - d.Links[i].Order
			}
		}
	case "rename a policy":
		from, to := l.Policy, fmt.Sprintf("renamed %d", rapid.IntRange(0, 1<<30).Draw(t, "name"))
		d.Policies = slices.Clone(d.Policies)
		for i := range d.Policies {
			if d.Policies[i].Name == from {
				d.Policies[i].Name = to
			}
		}
		l.Policy = to
	}
	return true
}

// rename gives an entry another name, and all that is below it with it. Links, and members of groups, stay with the old one.
func rename(t *rapid.T, s **directory.Snapshot, dn directory.DN, typ string) bool {
	next, err := dn.Parent().Child(typ, fmt.Sprintf("n%d", rapid.IntRange(0, 1<<30).Draw(t, "name")))
	if err != nil {
		t.Fatal(err)
	}
	edit := (*s).Edit()
	put := func(o directory.Object) {
		u, at := o.Identity()
		if at, err = at.Replant(dn, next); err != nil {
			t.Fatal(err)
		}
		switch o := o.(type) {
		case directory.Machine:
			o.DN = at
			edit.Put(o)
		case directory.Container:
			o.DN, o.Kind = at, directory.KindOf(at)
			edit.Put(o)
		case directory.Group:
			o.DN = at
			edit.Put(o)
		default:
			t.Fatalf("entry %s is a %T", u, o)
		}
	}
	entry, _ := (*s).ObjectByDN(dn)
	put(entry)
	for o := range (*s).Below(dn) {
		put(o)
	}
	changed, err := edit.Build()
	if err != nil {
		return false
	}
	*s = changed
	return true
}

// BenchmarkMove is the move of one machine of 100,000 to another container: the directory as it is then, and the policy that
// the machine has there. Groups follow the names of their members, so large ones cost more than the rest.
func BenchmarkMove(b *testing.B) {
	s, d := fleet(b)
	plan := Prepare(d)
	for name, machine := range map[string]string{"no group": "host050000", "groups of 5,000 and 17,500": "host003000"} {
		b.Run(name, func(b *testing.B) {
			m, ok := s.MachineByName(machine)
			if !ok {
				b.Fatal("no machine")
			}
			var homes []directory.DN
			for c := range s.Containers() {
				if !c.DN.Equal(m.DN.Parent()) {
					homes = append(homes, c.DN)
				}
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				moved, err := s.Move(m.DN, homes[i%len(homes)])
				if err != nil {
					b.Fatal(err)
				}
				if _, err := plan.Machine(moved, m.UUID); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}
