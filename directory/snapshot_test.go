package directory

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// tree is a small language for tests: machines, groups and containers under dc=bank,dc=example.
type tree struct {
	objects []Object
}

func newTree() *tree {
	t := &tree{}
	t.container("dc=bank,dc=example")
	return t
}

func (t *tree) container(dn string) *tree {
	d := MustParseDN(dn)
	t.objects = append(t.objects, Container{UUID: deriveUUID("container", "", d.Key()), DN: d, Kind: KindOf(d)})
	return t
}

func (t *tree) machine(name, parent string, edit ...func(*Machine)) *tree {
	d := MustParseDN("cn=" + name + "," + parent)
	m := Machine{UUID: deriveUUID("machine", "bank.example", name), DN: d, Name: name, DNSName: name + ".bank.example"}
	for _, e := range edit {
		e(&m)
	}
	t.objects = append(t.objects, m)
	return t
}

func (t *tree) group(name string, members ...string) *tree {
	d := MustParseDN("cn=" + name + ",dc=bank,dc=example")
	g := Group{UUID: deriveUUID("group", "bank.example", name), DN: d, Name: name}
	for _, m := range members {
		g.Members = append(g.Members, MustParseDN(m))
	}
	t.objects = append(t.objects, g)
	return t
}

func (t *tree) build(tb interface {
	Helper()
	Fatalf(string, ...any)
}) *Snapshot {
	tb.Helper()
	b := NewBuilder(DN{})
	for _, o := range t.objects {
		b.Add(o)
	}
	s, err := b.Build()
	if err != nil {
		tb.Fatalf("build: %v", err)
	}
	return s
}

func bank() *tree {
	return newTree().
		container("OU=Servers,dc=bank,dc=example").container("OU=SecureServers,dc=bank,dc=example").
		container("OU=Workstations,dc=bank,dc=example").container("OU=Front,OU=Workstations,dc=bank,dc=example").
		container("CN=Computers,dc=bank,dc=example").
		machine("sql1", "OU=SecureServers,dc=bank,dc=example").machine("files1", "OU=Servers,dc=bank,dc=example").
		machine("ws1", "OU=Workstations,dc=bank,dc=example").machine("ws2", "OU=Front,OU=Workstations,dc=bank,dc=example")
}

func names[T interface{ Identity() (UUID, DN) }](seq func(func(T) bool)) []string {
	var out []string
	for o := range seq {
		_, dn := o.Identity()
		out = append(out, dn.String())
	}
	return out
}

func TestSnapshotLookups(t *testing.T) {
	s := bank().build(t)
	if c, m, g := s.Len(); c != 6 || m != 4 || g != 0 {
		t.Errorf("Len = %d, %d, %d; want 6 containers, 4 machines, no group", c, m, g)
	}
	if s.Base().String() != "dc=bank,dc=example" {
		t.Errorf("base %q", s.Base())
	}
	byName, ok := s.MachineByName("WS2")
	if !ok || byName.DN.String() != "cn=ws2,OU=Front,OU=Workstations,dc=bank,dc=example" {
		t.Errorf("MachineByName(WS2) = %v, %v", byName.DN, ok)
	}
	for what, found := range map[string]func() (Machine, bool){
		"DNS name": func() (Machine, bool) { return s.MachineByName("Ws2.bank.example.") },
		"UUID":     func() (Machine, bool) { return s.Machine(byName.UUID) },
		"DN": func() (Machine, bool) {
			return s.MachineByDN(MustParseDN("CN=WS2,ou=front,ou=workstations,DC=BANK,dc=example"))
		},
	} {
		if m, ok := found(); !ok || m.UUID != byName.UUID {
			t.Errorf("by %s: %v, %v", what, m, ok)
		}
	}
	var path []string
	for _, c := range s.Path(byName.DN) {
		path = append(path, c.Name())
	}
	if want := []string{"bank", "Workstations", "Front"}; !slices.Equal(path, want) {
		t.Errorf("path of ws2 is %q, want %q", path, want)
	}
	if s.Path(MustParseDN("cn=nobody,dc=bank,dc=example")) != nil {
		t.Error("an unknown name has a path")
	}
	ou := MustParseDN("OU=Workstations,dc=bank,dc=example")
	if diff := cmp.Diff([]string{"OU=Front,OU=Workstations,dc=bank,dc=example"}, names(s.ChildContainers(ou))); diff != "" {
		t.Errorf("containers in Workstations (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"cn=ws1,OU=Workstations,dc=bank,dc=example"}, names(s.ChildMachines(ou))); diff != "" {
		t.Errorf("machines in Workstations (-want +got):\n%s", diff)
	}
	for dn, want := range map[string]ContainerKind{
		"dc=bank,dc=example": Domain, "OU=Servers,dc=bank,dc=example": OrganizationalUnit, "CN=Computers,dc=bank,dc=example": Plain,
	} {
		if c, ok := s.ContainerByDN(MustParseDN(dn)); !ok || c.Kind != want || c.LinksPolicy() != (want != Plain) {
			t.Errorf("%s is %v (links policy: %v), want %v", dn, c.Kind, c.LinksPolicy(), want)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	const servers, base = "OU=Servers,dc=bank,dc=example", "dc=bank,dc=example"
	uuid := func(of string) func(*Machine) {
		return func(m *Machine) { m.UUID = deriveUUID("machine", "bank.example", of) }
	}
	for name, tc := range map[string]struct {
		tree *tree
		base string
		want []string // all in the message
	}{
		"nothing at all":       {&tree{}, "", []string{"no container"}},
		"duplicate UUID":       {bank().machine("x", servers, uuid("sql1")), "", []string{"UUID", "cn=x,OU=Servers", "cn=sql1,OU=SecureServers"}},
		"duplicate DN":         {bank().machine("FILES1", servers, uuid("y"), func(m *Machine) { m.Name, m.DNSName = "y", "" }), "", []string{"distinguished name", "cn=FILES1,OU=Servers"}},
		"duplicate name":       {bank().machine("SQL1", servers, uuid("y"), func(m *Machine) { m.DNSName = "" }), "", []string{"machine name", "cn=SQL1,OU=Servers", "cn=sql1,OU=SecureServers"}},
		"duplicate DNS name":   {bank().machine("z", servers, func(m *Machine) { m.DNSName = "SQL1.bank.example." }), "", []string{"DNS name", "cn=z,", "cn=sql1,"}},
		"no UUID":              {bank().machine("z", servers, func(m *Machine) { m.UUID = UUID{} }), "", []string{"cn=z,", "no UUID"}},
		"orphan machine":       {bank().machine("z", "OU=Gone,"+base), "", []string{"cn=z,OU=Gone", "parent"}},
		"orphan container":     {bank().container("OU=A,OU=Gone," + base), "", []string{"OU=A,OU=Gone"}},
		"machine in a machine": {bank().machine("z", "cn=sql1,OU=SecureServers,"+base), "", []string{"cn=z,cn=sql1"}},
		"two trees":            {bank().container("dc=other,dc=example"), "", []string{"is not below the base"}},
		"base was not read":    {bank(), "dc=example", []string{"base", "dc=example"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBuilder(MustParseDN(tc.base))
			for _, o := range tc.tree.objects {
				b.Add(o)
			}
			s, err := b.Build()
			if s != nil || !errors.Is(err, ErrInconsistent) {
				t.Fatalf("Build = %v, %v; want ErrInconsistent and no snapshot", s, err)
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not name %q", err, w)
				}
			}
		})
	}
}

func TestNestedGroups(t *testing.T) {
	s := bank().
		group("tellers", "cn=ws1,OU=Workstations,dc=bank,dc=example", "cn=clerks,dc=bank,dc=example").
		group("clerks", "CN=WS2,ou=front,ou=workstations,dc=bank,dc=example", "cn=loop,dc=bank,dc=example").
		group("loop", "cn=clerks,dc=bank,dc=example", "cn=loop,dc=bank,dc=example", "uid=jim,ou=people,dc=bank,dc=example").
		group("empty").build(t)
	for _, tc := range []struct {
		name string
		want []string
	}{
		{"ws1", []string{"tellers"}},
		{"ws2", []string{"clerks", "loop", "tellers"}},
		{"sql1", nil},
	} {
		m, _ := s.MachineByName(tc.name)
		var got []string
		for _, g := range s.MemberOf(m.DN) {
			got = append(got, g.Name)
			if !s.IsMember(m.DN, g.DN) {
				t.Errorf("%s is no member of its group %s", tc.name, g.Name)
			}
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s belongs to %q, want %q", tc.name, got, tc.want)
		}
		if s.IsMember(m.DN, MustParseDN("cn=empty,dc=bank,dc=example")) {
			t.Errorf("%s is a member of the empty group", tc.name)
		}
	}
}

func TestPrimaryGroup(t *testing.T) {
	tr := bank().machine("dc1", "OU=Servers,dc=bank,dc=example", func(m *Machine) { m.PrimaryGroup = 516 })
	g := Group{UUID: deriveUUID("group", "", "dcs"), DN: MustParseDN("cn=dcs,dc=bank,dc=example"), Name: "dcs", RID: 516}
	tr.objects = append(tr.objects, g)
	tr.group("all", "cn=dcs,dc=bank,dc=example")
	s := tr.build(t)
	m, _ := s.MachineByName("dc1")
	if got := s.MemberOf(m.DN); len(got) != 2 || got[0].Name != "all" || got[1].Name != "dcs" {
		t.Errorf("dc1 belongs to %v, want all and dcs", got)
	}
}

func TestDigest(t *testing.T) {
	a := bank().group("g", "cn=ws1,OU=Workstations,dc=bank,dc=example")
	want := a.build(t).Digest()
	slices.Reverse(a.objects)
	if got := a.build(t).Digest(); got != want {
		t.Errorf("the reading order changes the digest")
	}
	for name, other := range map[string]*tree{
		"machine":    bank().group("g", "cn=ws1,OU=Workstations,dc=bank,dc=example").machine("n", "OU=Servers,dc=bank,dc=example"),
		"container":  bank().group("g", "cn=ws1,OU=Workstations,dc=bank,dc=example").container("OU=n,dc=bank,dc=example"),
		"membership": bank().group("g", "cn=ws2,OU=Workstations,dc=bank,dc=example"),
	} {
		if other.build(t).Digest() == want {
			t.Errorf("another %s does not change the digest", name)
		}
	}
	seen := map[Digest]string{bank().build(t).Digest(): "the plain bank"}
	for name, edit := range map[string]func(*Machine){
		"plain":    func(*Machine) {},
		"name":     func(m *Machine) { m.Name = "other" },
		"DNS name": func(m *Machine) { m.DNSName = "other.bank.example" },
		"address":  func(m *Machine) { m.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.1")} },
		"disabled": func(m *Machine) { m.Disabled = true },
		"UUID":     func(m *Machine) { m.UUID[0]++ },
		"primary":  func(m *Machine) { m.PrimaryGroup = 515 },
	} {
		d := bank().machine("n", "OU=Servers,dc=bank,dc=example", edit).build(t).Digest()
		if was, dup := seen[d]; dup {
			t.Errorf("%s and %s have one digest", name, was)
		}
		seen[d] = name
	}
}

// TestSnapshotModel compares a snapshot with the plainest possible answers over random trees.
func TestSnapshotModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr := drawTree(t)
		s := tr.build(t)
		for _, o := range tr.objects {
			u, dn := o.Identity()
			if got, ok := s.Object(u); !ok || fmt.Sprint(got) != fmt.Sprint(o) {
				t.Fatalf("Object(%s) = %v, want %v", u, got, o)
			}
			var above []string
			for at := dn.Parent(); at.Depth() >= 2; at = at.Parent() {
				above = append([]string{at.Key()}, above...)
			}
			if _, isContainer := o.(Container); isContainer {
				above = append(above, dn.Key())
			}
			var path []string
			for _, c := range s.Path(dn) {
				path = append(path, c.DN.Key())
			}
			if !slices.Equal(path, above) {
				t.Fatalf("Path(%s) = %q, want %q", dn, path, above)
			}
			var groups []string
			for _, g := range s.MemberOf(dn) {
				groups = append(groups, g.DN.Key())
			}
			if want := tr.naiveMemberOf(dn); !slices.Equal(groups, want) {
				t.Fatalf("MemberOf(%s) = %q, want %q", dn, groups, want)
			}
			for _, c := range tr.objects {
				_, parent := c.Identity()
				_, isContainer := c.(Container)
				want := isContainer && dn.Parent().Equal(parent)
				if _, isGroup := o.(Group); isGroup {
					continue
				}
				var got bool
				for m := range s.ChildMachines(parent) {
					got = got || m.UUID == u
				}
				for m := range s.ChildContainers(parent) {
					got = got || m.UUID == u
				}
				if got != want {
					t.Fatalf("%s listed in %s: %v, want %v", dn, parent, got, want)
				}
			}
		}
	})
}

// naiveMemberOf repeats "whoever lists a member is reached" until nothing new comes.
func (t *tree) naiveMemberOf(dn DN) []string {
	reached := map[string]bool{}
	for changed := true; changed; {
		changed = false
		for _, o := range t.objects {
			g, ok := o.(Group)
			if !ok || reached[g.DN.Key()] {
				continue
			}
			for _, m := range g.Members {
				if m.Equal(dn) || reached[m.Key()] {
					reached[g.DN.Key()] = true
					changed = true
				}
			}
		}
	}
	var out []string
	for k := range reached {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// drawTree makes a random tree of up to 8 containers, 8 machines and 5 groups.
func drawTree(t *rapid.T) *tree {
	tr := newTree()
	places := []string{"dc=bank,dc=example"}
	for i := range rapid.IntRange(0, 8).Draw(t, "containers") {
		typ := rapid.SampledFrom([]string{"OU", "CN"}).Draw(t, "type")
		dn := fmt.Sprintf("%s=c%d,%s", typ, i, rapid.SampledFrom(places).Draw(t, "in"))
		tr.container(dn)
		places = append(places, dn)
	}
	var all []string
	for i := range rapid.IntRange(0, 8).Draw(t, "machines") {
		in := rapid.SampledFrom(places).Draw(t, "in")
		disabled := rapid.Bool().Draw(t, "disabled")
		tr.machine(fmt.Sprintf("m%d", i), in, func(m *Machine) { m.Disabled = disabled })
		all = append(all, fmt.Sprintf("cn=m%d,%s", i, in))
	}
	n := rapid.IntRange(0, 5).Draw(t, "groups")
	for i := range n {
		all = append(all, fmt.Sprintf("cn=g%d,dc=bank,dc=example", i))
	}
	for i := range n {
		tr.group(fmt.Sprintf("g%d", i), rapid.SliceOfNDistinct(rapid.SampledFrom(all), 0, min(4, len(all)), rapid.ID[string]).Draw(t, "members")...)
	}
	// Members are kept sorted; the model compares with what was put in.
	for _, o := range tr.objects {
		if g, ok := o.(Group); ok {
			slices.SortFunc(g.Members, DN.Compare)
		}
	}
	return tr
}
