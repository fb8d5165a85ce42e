package directory

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// world is what the model of an edit knows: every entry by its UUID.
type world map[UUID]Object

// build makes a snapshot of everything anew.
func (w world) build(base DN, problems []Problem) (*Snapshot, error) {
	b := NewBuilder(base)
	for _, o := range w {
		if g, ok := o.(Group); ok {
			g.Members = slices.Clone(g.Members)
			o = g
		}
		b.Add(o)
	}
	b.AddProblem(slices.Clone(problems)...)
	return b.Build()
}

// TestEditModel makes random edits, one upon another, and compares each result with a snapshot that is built of the same
// entries anew: the same content, the same tables down to where their chunks end, and the same diff to what was before,
// though one is found in what is shared and the other by comparing everything. What cannot be one tree is refused by both.
func TestEditModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := MustParseDN("dc=x")
		number := 0
		identify := func() UUID { number++; return deriveUUID("entry", "", fmt.Sprint(number)) }
		w := world{}
		add := func(o Object) { u, _ := o.Identity(); w[u] = o }
		add(Container{UUID: identify(), DN: base, Kind: Domain})
		size := rapid.SampledFrom([]int{4, 4, 30, 300}).Draw(t, "size")
		containers, all := []DN{base}, []DN{base}
		place := rapid.IntRange(0, 1<<30).Draw(t, "places")
		for i := range size/8 + 2 {
			dn, _ := containers[place>>(i%20)%len(containers)].Child("OU", fmt.Sprintf("c%d", i))
			add(Container{UUID: identify(), DN: dn, Kind: KindOf(dn)})
			containers, all = append(containers, dn), append(all, dn)
		}
		for i := range size {
			dn, _ := containers[place>>(i%19)%len(containers)].Child("cn", fmt.Sprintf("m%d", i))
			m := Machine{UUID: identify(), DN: dn, Name: fmt.Sprintf("M%d", i), PrimaryGroup: uint32(i % 3)}
			if i%4 > 0 {
				m.DNSName = fmt.Sprintf("m%d.X.", i)
			}
			add(m)
			all = append(all, dn)
		}
		for i := range size/8 + 1 {
			dn, _ := base.Child("cn", fmt.Sprintf("g%d", i))
			g := Group{UUID: identify(), DN: dn, Name: dn.Name()}
			if i < 2 {
				g.RID = uint32(i + 1)
			}
			for j := range 3 {
				g.Members = append(g.Members, all[(place>>j+7*i*j)%len(all)])
			}
			add(g)
			all = append(all, dn)
		}
		var problems []Problem
		last, err := w.build(base, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 8).Draw(t, "edits") {
			changed := world{}
			for u, o := range w {
				changed[u] = o
			}
			told := problems
			e := last.Edit()
			put := func(o Object) {
				u, _ := o.Identity()
				changed[u] = o
				if g, ok := o.(Group); ok {
					g.Members = slices.Clone(g.Members)
					o = g
				}
				e.Put(o)
			}
			for range rapid.IntRange(0, 3).Draw(t, "changes") {
				drawChange(t, changed, put, e.Remove, identify)
			}
			if rapid.Bool().Draw(t, "problem") {
				told = []Problem{{DN: "cn=b", Reason: "z"}, {DN: "cn=a", Reason: fmt.Sprint(number)}}
				e.SetProblems(slices.Clone(told))
			}
			want, wantErr := changed.build(base, told)
			got, gotErr := e.Build()
			if (wantErr == nil) != (gotErr == nil) || gotErr != nil && (!errors.Is(gotErr, ErrInconsistent) || got != nil) {
				t.Fatalf("the edit gives %v, all anew %v", gotErr, wantErr)
			}
			if wantErr != nil {
				continue
			}
			differ(t, "the snapshot", got.layout(), want.layout())
			before, err := w.build(base, nil)
			if err != nil {
				t.Fatal(err)
			}
			differ(t, "the diff", fmt.Sprintf("%+v", NewDiff(last, got)), fmt.Sprintf("%+v", NewDiff(before, want)))
			w, last, problems = changed, got, told
		}
	})
}

// differ fails where two texts differ, and shows the place.
func differ(t *rapid.T, what, edited, anew string) {
	at := 0
	for at < min(len(edited), len(anew)) && edited[at] == anew[at] {
		at++
	}
	if edited != anew {
		near := func(s string) string { return s[max(0, at-200):min(len(s), at+200)] }
		t.Fatalf("%s of the edit: ...%s...\nall anew: ...%s...", what, near(edited), near(anew))
	}
}

// drawChange changes the world as directories change.
func drawChange(t *rapid.T, w world, put func(Object), remove func(UUID), identify func() UUID) {
	switch rapid.SampledFrom([]string{"machine", "machine", "new", "remove", "subtree", "group", "regroup", "container", "replace", "clash"}).Draw(t, "change") {
	case "machine":
		m := pick[Machine](t, w)
		switch rapid.IntRange(0, 4).Draw(t, "what") {
		case 0:
			m.Disabled = !m.Disabled
		case 1:
			m.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, rapid.Byte().Draw(t, "address")})}
		case 2:
			m.DN, _ = pick[Container](t, w).DN.Child("CN", m.DN.Name())
		case 3:
			m.Name, m.DNSName = m.Name+"x", ""
		case 4:
			m.PrimaryGroup = rapid.Uint32Range(0, 3).Draw(t, "primary")
		}
		if m.UUID.IsZero() {
			return
		}
		put(m)
	case "new":
		u := identify()
		dn, _ := pick[Container](t, w).DN.Child("cn", u.String()[:8])
		put(Machine{UUID: u, DN: dn, Name: u.String()[:8]})
	case "remove":
		u, _ := pick[Object](t, w).Identity()
		delete(w, u)
		remove(u)
	case "subtree":
		from, to := pick[Container](t, w), pick[Container](t, w)
		next, err := to.DN.Child("OU", from.DN.Name()+rapid.SampledFrom([]string{"", "y"}).Draw(t, "renamed"))
		if err != nil || to.DN.Equal(from.DN) || to.DN.IsDescendantOf(from.DN) || from.DN.Depth() < 2 {
			return
		}
		follow := rapid.Bool().Draw(t, "groups follow")
		for _, o := range sortedObjects(w) {
			_, dn := o.Identity()
			moved, _ := dn.Replant(from.DN, next)
			if g, ok := o.(Group); ok && follow {
				g.Members = slices.Clone(g.Members)
				for i := range g.Members {
					g.Members[i], _ = g.Members[i].Replant(from.DN, next)
				}
				o = g
			} else if moved == dn {
				continue
			}
			put(Rename(o, moved))
		}
	case "group":
		u := identify()
		dn, _ := pick[Container](t, w).DN.Child("cn", u.String()[:8])
		_, member := pick[Object](t, w).Identity()
		put(Group{UUID: u, DN: dn, Name: "n", Members: []DN{member, dn}, RID: rapid.Uint32Range(0, 4).Draw(t, "rid")})
	case "regroup":
		g := pick[Group](t, w)
		if g.UUID.IsZero() {
			return
		}
		switch rapid.IntRange(0, 3).Draw(t, "what") {
		case 0:
			g.RID = rapid.Uint32Range(0, 4).Draw(t, "rid")
		case 1:
			g.DN, _ = pick[Container](t, w).DN.Child("cn", g.DN.Name())
		default:
			_, member := pick[Object](t, w).Identity()
			g.Members = append(slices.Clone(g.Members[min(1, len(g.Members)):]), member)
		}
		put(g)
	case "container":
		u := identify()
		dn, _ := pick[Container](t, w).DN.Child("OU", u.String()[:8])
		put(Container{UUID: u, DN: dn, Kind: KindOf(dn)})
	case "replace": // by another one of the same name, or of another kind
		c := pick[Container](t, w)
		if rapid.Bool().Draw(t, "kind") {
			c.Kind = Plain + OrganizationalUnit - c.Kind
		} else {
			delete(w, c.UUID)
			remove(c.UUID)
			c.UUID = identify()
		}
		put(c)
	case "clash": // of two names, or of the kinds of one UUID
		_, dn := pick[Object](t, w).Identity()
		u, _ := pick[Object](t, w).Identity()
		put(Machine{UUID: u, DN: dn, Name: pick[Machine](t, w).Name + "c"})
	}
}

func sortedObjects(w world) []Object {
	var all []Object
	for _, o := range w {
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b Object) int {
		x, _ := a.Identity()
		y, _ := b.Identity()
		return compareUUID(x, y)
	})
	return all
}

// pick draws an entry of one kind; the zero value when there is none.
func pick[T Object](t *rapid.T, w world) T {
	var all []T
	for _, o := range sortedObjects(w) {
		if e, ok := o.(T); ok {
			all = append(all, e)
		}
	}
	if len(all) == 0 {
		var none T
		return none
	}
	return all[rapid.IntRange(0, len(all)-1).Draw(t, "entry")]
}

// TestSame holds Same to what an edit does: nothing, with an object that is the same.
func TestSame(t *testing.T) {
	base, a, b := MustParseDN("dc=x"), MustParseDN("cn=a,dc=x"), MustParseDN("cn=b,dc=x")
	ou := Container{UUID: deriveUUID("entry", "", "ou"), DN: MustParseDN("ou=o,dc=x"), Kind: OrganizationalUnit}
	machine := Machine{UUID: deriveUUID("entry", "", "a"), DN: a, Name: "a", DNSName: "a.x"}
	empty := Group{UUID: deriveUUID("entry", "", "b"), DN: b, Name: "b"}
	full := empty
	full.Members = []DN{a}
	group := func(members ...DN) Group { g := empty; g.Members = members; return g }
	addressed := func(list ...netip.Addr) Machine { m := machine; m.Addresses = list; return m }
	disabled, other, respelled, renamed := machine, machine, ou, full
	disabled.Disabled, other.UUID, respelled.DN, renamed.Name = true, deriveUUID("entry", "", "c"), MustParseDN("OU=O,dc=x"), "B"
	for _, test := range []struct {
		name    string
		was, is Object
		same    bool
	}{
		{"a container", ou, ou, true},
		{"a container that is written otherwise", ou, respelled, false},
		{"a machine", machine, machine, true},
		{"an empty list of addresses", machine, addressed([]netip.Addr{}...), true},
		{"an address", machine, addressed(netip.MustParseAddr("192.0.2.1")), false},
		{"a disabled machine", machine, disabled, false},
		{"a DNS name that is written otherwise", machine, Machine{UUID: machine.UUID, DN: a, Name: "a", DNSName: "A.X."}, true},
		{"an empty list of members", empty, group([]DN{}...), true},
		{"no list of members", group([]DN{}...), empty, true},
		{"a member that is written otherwise", full, group(MustParseDN("CN=A,dc=x")), true},
		{"another member", full, group(a, b), false},
		{"a member less", full, empty, false},
		{"another name", full, renamed, false},
		{"another kind", machine, Group{UUID: machine.UUID, DN: a, Name: "a"}, false},
		{"another identity", machine, other, false},
		{"none", machine, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Same(test.was, test.is); got != test.same {
				t.Errorf("Same = %t", got)
			}
			was, _ := test.was.Identity()
			w := world{was: test.was}
			w[deriveUUID("entry", "", "base")] = Container{UUID: deriveUUID("entry", "", "base"), DN: base, Kind: Domain}
			before, err := w.build(base, nil)
			if err != nil {
				t.Fatal(err)
			}
			e := before.Edit()
			e.Remove(was)
			if test.is != nil {
				e.Put(test.is)
			}
			after, err := e.Build()
			if err != nil {
				t.Fatal(err)
			}
			if unchanged := before.layout() == after.layout(); unchanged != test.same {
				t.Errorf("the edit leaves everything as it was: %t", unchanged)
			}
		})
	}
	if !Same(nil, nil) || Same(nil, machine) {
		t.Error("Same tells no object from itself, or not from a machine")
	}
}

// layout writes everything that a snapshot holds, table by table and chunk by chunk.
func (s *Snapshot) layout() string {
	text := fmt.Sprintln(s.base, s.digest, s.groupsDigest, s.problems)
	machine := func(m *machineEntry) string { return fmt.Sprint(*m) }
	group := func(g *groupEntry) string { return fmt.Sprint(*g) }
	container := func(c *Container) string { return fmt.Sprint(*c) }
	for _, table := range []string{
		layout(s.containers.byUUID, container), layout(s.containers.byPlace, container), layout(s.containers.byLevel, container),
		layout(s.machines.byUUID, machine), layout(s.machines.byPlace, machine), layout(s.machines.byName, machine), layout(s.machines.byDNSName, machine),
		layout(s.groups.byUUID, group), layout(s.groups.byDN, group), layout(s.groups.byRID, group),
		layout(s.memberships, func(m membership) string { return fmt.Sprint(m) }),
	} {
		text += table + "\n"
	}
	return text
}

func layout[T any](t table[T], write func(T) string) string {
	text := fmt.Sprintf("%d:", t.len)
	n := 0
	for _, c := range t.chunks {
		text += fmt.Sprintf(" [%s", c.sum.Short())
		for _, item := range c.items {
			text += " " + write(item)
			n++
		}
		text += "]"
	}
	if n != t.len {
		text += fmt.Sprintf(" but it holds %d", n)
	}
	return text
}
