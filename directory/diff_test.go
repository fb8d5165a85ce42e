package directory

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const (
	servers      = "OU=Servers,dc=bank,dc=example"
	secure       = "OU=SecureServers,dc=bank,dc=example"
	workstations = "OU=Workstations,dc=bank,dc=example"
)

func TestDiff(t *testing.T) {
	plain := func() *tree {
		return bank().machine("m", servers).group("inner", "cn=m,"+servers).group("outer", "cn=inner,dc=bank,dc=example")
	}
	with := func(edit func(*Machine)) *tree {
		return bank().machine("m", servers, edit).group("inner", "cn=m,"+servers).group("outer", "cn=inner,dc=bank,dc=example")
	}
	renameOU := func() *tree {
		tr := plain()
		for i, o := range tr.objects {
			dn := func(d DN) DN {
				return MustParseDN(strings.Replace(d.String(), "OU=Workstations", "OU=Desks", 1))
			}
			switch e := o.(type) {
			case Container:
				e.DN = dn(e.DN)
				tr.objects[i] = e
			case Machine:
				e.DN = dn(e.DN)
				tr.objects[i] = e
			}
		}
		return tr
	}
	replacedOU := func() *tree {
		tr := plain()
		for i, o := range tr.objects {
			if c, ok := o.(Container); ok && c.DN.Name() == "Workstations" {
				c.UUID[0]++
				tr.objects[i] = c
			}
		}
		return tr
	}
	for name, tc := range map[string]struct {
		next *tree
		want Counts
		text string
	}{
		"nothing":           {plain(), Counts{}, "no change"},
		"added":             {plain().machine("n", servers), Counts{Added: 1}, "1 added"},
		"removed":           {bank().group("inner", "cn=m,"+servers).group("outer", "cn=inner,dc=bank,dc=example"), Counts{Removed: 1}, "1 removed"},
		"moved":             {bank().machine("m", secure).group("inner", "cn=m,"+secure).group("outer", "cn=inner,dc=bank,dc=example"), Counts{Moved: 1}, "1 moved"},
		"moved from groups": {bank().machine("m", secure).group("inner", "cn=m,"+servers).group("outer", "cn=inner,dc=bank,dc=example"), Counts{Moved: 1, Regrouped: 1}, "1 moved, 1 in other groups"},
		"renamed": {with(func(m *Machine) { m.DN = MustParseDN("cn=other," + servers) }).group("x"),
			Counts{Renamed: 1, Regrouped: 1}, "1 renamed"},
		"disabled":            {with(func(m *Machine) { m.Disabled = true }), Counts{Disabled: 1}, "1 disabled"},
		"other DNS name":      {with(func(m *Machine) { m.DNSName = "x.bank.example" }), Counts{Identified: 1}, "another host name"},
		"other address":       {with(func(m *Machine) { m.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.1")} }), Counts{Addressed: 1}, "other addresses"},
		"left a nested group": {bank().machine("m", servers).group("inner", "cn=m,"+servers).group("outer"), Counts{Regrouped: 1}, "in other groups"},
		"a group of people":   {plain().group("people", "uid=jim,dc=bank,dc=example"), Counts{}, "groups differ"},
		"container added":     {plain().container("OU=New,dc=bank,dc=example"), Counts{ContainersAdded: 1}, "1 containers added"},
		"container renamed":   {renameOU(), Counts{Moved: 2, ContainersRenamed: 2}, "2 moved"},
		"container replaced":  {replacedOU(), Counts{Moved: 2, ContainersAdded: 1, ContainersRemoved: 1}, "2 moved"},
		"machine respelt":     {with(func(m *Machine) { m.DN = MustParseDN("CN=M," + servers) }), Counts{}, "spelling differs"},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDiff(plain().build(t), tc.next.build(t))
			if d.Counts() != tc.want || !strings.Contains(d.String(), tc.text) {
				t.Errorf("diff %q %v, counts %+v; want %+v and %q", d, d.Changed, d.Counts(), tc.want, tc.text)
			}
			if d.Empty() != (name == "nothing") {
				t.Errorf("Empty is %v", d.Empty())
			}
		})
	}
}

func TestDiffShowsTheChange(t *testing.T) {
	old := bank().group("g", "cn=ws1,"+workstations).build(t)
	next := newTree().container(servers).container(secure).container(workstations).container("OU=Front,"+workstations).container("CN=Computers,dc=bank,dc=example").
		machine("sql1", secure).machine("files1", servers).machine("ws1", secure).machine("ws2", "OU=Front,"+workstations).
		group("g", "cn=ws2,OU=Front,"+workstations).build(t)
	d := NewDiff(old, next)
	var lines []string
	for _, c := range d.Changed {
		lines = append(lines, c.String())
	}
	want := []string{
		"ws1: moved, other groups, from cn=ws1,OU=Workstations,dc=bank,dc=example to cn=ws1,OU=SecureServers,dc=bank,dc=example, left cn=g,dc=bank,dc=example",
		"ws2: other groups, joined cn=g,dc=bank,dc=example",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("changes %q, want %q", lines, want)
	}
}

func TestDiffOfTheFirstSnapshot(t *testing.T) {
	d := NewDiff(nil, bank().build(t))
	if c := d.Counts(); c != (Counts{Added: 4, ContainersAdded: 6}) || d.OldMachines != 0 || d.NewMachines != 4 {
		t.Errorf("first diff: %v", d)
	}
}

// TestDiffModel compares a diff with what two plain lists say about every machine.
func TestDiffModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawTree(t), drawTree(t)
		old, next := a.build(t), b.build(t)
		d := NewDiff(old, next)
		said := map[UUID]string{}
		for _, m := range d.Added {
			said[m.UUID] += "added"
		}
		for _, m := range d.Removed {
			said[m.UUID] += "removed"
		}
		for _, c := range d.Changed {
			said[c.New.UUID] += (c.Aspects &^ (Renamed | Moved)).String()
			if c.Aspects.Has(Renamed | Moved) {
				said[c.New.UUID] += " elsewhere"
			}
			if c.Aspects.Has(Moved) {
				said[c.New.UUID] += " moved"
			}
		}
		want := map[UUID]string{}
		for u, m := range a.machines() {
			n, ok := b.machines()[u]
			if !ok {
				want[u] = "removed"
				continue
			}
			var c MachineChange
			if n.Disabled && !m.Disabled {
				c.Aspects |= DisabledNow
			}
			if m.Disabled && !n.Disabled {
				c.Aspects |= EnabledNow
			}
			if !slices.Equal(a.naiveMemberOf(m.DN), b.naiveMemberOf(n.DN)) {
				c.Aspects |= Regrouped
			}
			want[u] = c.Aspects.String()
			if !m.DN.Equal(n.DN) {
				want[u] += " elsewhere"
			}
			if a.naiveScopes(m.DN) != b.naiveScopes(n.DN) {
				want[u] += " moved"
			}
			if want[u] == "" {
				delete(want, u)
			}
		}
		for u := range b.machines() {
			if _, ok := a.machines()[u]; !ok {
				want[u] = "added"
			}
		}
		if fmt.Sprint(said) != fmt.Sprint(want) {
			t.Fatalf("the diff says %v, want %v", said, want)
		}
		if same := old.Digest() == next.Digest(); same != d.Empty() {
			t.Fatalf("same digest %v, empty diff %v", same, d.Empty())
		}
	})
}

func (t *tree) machines() map[UUID]Machine {
	out := map[UUID]Machine{}
	for _, o := range t.objects {
		if m, ok := o.(Machine); ok {
			out[m.UUID] = m
		}
	}
	return out
}

// naiveScopes lists the containers above dn that can link policy.
func (t *tree) naiveScopes(dn DN) string {
	var out []string
	for at := dn.Parent(); !at.IsZero(); at = at.Parent() {
		for _, o := range t.objects {
			if c, ok := o.(Container); ok && c.DN.Equal(at) && c.LinksPolicy() {
				out = append(out, c.UUID.String()+c.DN.Key())
			}
		}
	}
	return strings.Join(out, "|")
}
