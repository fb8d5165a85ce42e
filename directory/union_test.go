package directory

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// forest builds a snapshot; it fails the test when the entries are none.
func forest(t interface{ Fatalf(string, ...any) }, objects ...Object) *Snapshot {
	b := NewBuilder(DN{})
	for _, o := range objects {
		b.Add(o)
	}
	s, err := b.Build()
	if err != nil {
		t.Fatalf("build: %v", err)
	}
	return s
}

func at(id byte, text string) Container {
	dn := MustParseDN(text)
	return Container{UUID: UUID{id}, DN: dn, Kind: KindOf(dn)}
}

func box(id byte, dn, name, dnsName string) Machine {
	return Machine{UUID: UUID{id}, DN: MustParseDN(dn), Name: name, DNSName: dnsName}
}

func joined(t *testing.T, parts ...Part) *Snapshot {
	t.Helper()
	s, err := Union(parts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestUnionOfTwoDomains(t *testing.T) {
	bank := forest(t, at(1, "dc=bank,dc=example"), at(2, "ou=Servers,dc=bank,dc=example"),
		box(3, "cn=sql1,ou=Servers,dc=bank,dc=example", "sql1", "sql1.bank.example"),
		Group{UUID: UUID{4}, DN: MustParseDN("cn=Computers,dc=bank,dc=example"), Name: "Computers", RID: 515})
	branchMachine := box(13, "cn=sql1,ou=Servers,dc=branch,dc=test", "SQL1", "sql1.branch.test")
	branchMachine.PrimaryGroup = 515
	branch := forest(t, at(11, "dc=branch,dc=test"), at(12, "ou=Servers,dc=branch,dc=test"), branchMachine,
		Group{UUID: UUID{14}, DN: MustParseDN("cn=Computers,dc=branch,dc=test"), Name: "Computers", RID: 515})
	s := joined(t, Part{"bank", bank}, Part{"branch", branch})

	if m, ok := s.Machine(UUID{3}); !ok || m.Name != "sql1" {
		t.Errorf("the machine of the first source is %+v", m)
	}
	m, ok := s.Machine(UUID{13})
	if !ok || m.Name != "sql1.branch.test" || m.DNSName != "sql1.branch.test" {
		t.Errorf("the machine of the second source is %+v", m)
	}
	if groups := s.MemberOf(m.DN); len(groups) != 1 || groups[0].UUID != (UUID{14}) {
		t.Errorf("by its primary group the machine is in %v, wanted that of its own domain", groups)
	}
	if path := s.Path(m.DN); len(path) != 4 || path[0].LinksPolicy() || path[1].LinksPolicy() || !path[2].LinksPolicy() {
		t.Errorf("path %v: wanted two plain containers above the base", path)
	}
	if p := s.Problems(); len(p) != 1 || !strings.Contains(p[0].Reason, "source branch: the name SQL1 is that of") {
		t.Errorf("problems %v, wanted one about the name", p)
	}
	if one := joined(t, Part{"bank", bank}); one != bank {
		t.Error("the union of one is not that one")
	}
}

func TestUnionTellsEveryCollision(t *testing.T) {
	first := forest(t, at(1, "dc=bank,dc=example"), at(2, "ou=Servers,dc=bank,dc=example"), box(3, "cn=a,ou=Servers,dc=bank,dc=example", "a", "a.bank.example"),
		box(4, "cn=b,dc=bank,dc=example", "b", ""))
	second := forest(t, at(11, "dc=bank,dc=example"), at(2, "ou=Elsewhere,dc=bank,dc=example"),
		box(13, "cn=a,dc=bank,dc=example", "other", "a.bank.example"), // the DNS name
		box(14, "cn=b,dc=bank,dc=example", "c", ""),                   // the DN
		box(3, "cn=x,ou=Elsewhere,dc=bank,dc=example", "x", ""),       // the UUID
		box(15, "cn=d,ou=Elsewhere,dc=bank,dc=example", "d", ""),
		Group{UUID: UUID{16}, DN: MustParseDN("cn=G,dc=bank,dc=example"), Name: "G", Members: []DN{
			MustParseDN("cn=b,dc=bank,dc=example"), MustParseDN("cn=d,ou=Elsewhere,dc=bank,dc=example"),
		}})
	s := joined(t, Part{"one", first}, Part{"two", second})
	for id, want := range map[byte]string{
		3: "cn=a,ou=Servers,dc=bank,dc=example", 4: "cn=b,dc=bank,dc=example", 13: "cn=a,dc=bank,dc=example", 14: "cn=b+cn=two,dc=bank,dc=example",
		15: "cn=d,ou=Servers,dc=bank,dc=example",
	} {
		if m, ok := s.Machine(UUID{id}); !ok || !m.DN.Equal(MustParseDN(want)) {
			t.Errorf("machine %d is at %q (%t), wanted %q", id, m.DN, ok, want)
		}
	}
	if m, _ := s.Machine(UUID{13}); m.DNSName != "" {
		t.Errorf("two machines have the DNS name %s", m.DNSName)
	}
	group := MustParseDN("cn=G,dc=bank,dc=example")
	for id, want := range map[byte]bool{4: false, 14: true, 15: true} {
		if m, _ := s.Machine(UUID{id}); s.IsMember(m.DN, group) != want {
			t.Errorf("machine %d is a member: %t, wanted %t", id, !want, want)
		}
	}
	if len(s.Problems()) != 5 {
		t.Errorf("told %d collisions, wanted 5: %v", len(s.Problems()), s.Problems())
	}
}

// TestNameOfLastResortIsFree: somebody else may be called like the name that a machine gets when all others are taken.
func TestNameOfLastResortIsFree(t *testing.T) {
	last := "machine-" + UUID{13}.String()
	taken := []Object{at(1, "dc=bank,dc=example")}
	for i, name := range []string{"sql", "sql.branch.test", "sql.branch", last, last + "-2"} {
		taken = append(taken, box(byte(20+i), fmt.Sprintf("cn=m%d,dc=bank,dc=example", i), name, ""))
	}
	bank := forest(t, taken...)
	// One of the same source is called by the next one.
	branch := forest(t, at(11, "dc=branch,dc=test"), box(13, "cn=sql,dc=branch,dc=test", "sql", ""), box(14, "cn=other,dc=branch,dc=test", last+"-3", ""))
	s := joined(t, Part{"bank", bank}, Part{"branch", branch})
	names := map[string]bool{}
	for m := range s.Machines() {
		if names[m.Name] {
			t.Errorf("two machines are called %s", m.Name)
		}
		names[m.Name] = true
	}
	if m, _ := s.Machine(UUID{13}); m.Name != last+"-4" {
		t.Errorf("the machine is called %s", m.Name)
	}
}

// randomPart draws a tree in which much is alike whatever the source.
func randomPart(t *rapid.T, name string) Part {
	base := rapid.SampledFrom([]string{"dc=a", "dc=b,dc=a", "dc=c", "ou=x,dc=a", "dc=z,cn=1,dc=a"}).Draw(t, "base")
	b := NewBuilder(DN{})
	used := map[byte]bool{}
	id := func() UUID {
		n := rapid.ByteRange(1, 60).Filter(func(n byte) bool { return !used[n] }).Draw(t, "uuid")
		used[n] = true
		return UUID{n}
	}
	dn := MustParseDN(base)
	containers := []DN{dn}
	b.Add(Container{UUID: id(), DN: dn, Kind: KindOf(dn)})
	taken, names, dnsNames := map[string]bool{dn.Key(): true}, map[string]bool{}, map[string]bool{}
	for range rapid.IntRange(0, 12).Draw(t, "entries") {
		rdn := rapid.SampledFrom([]string{"cn=1", "cn=2", "ou=x", "cn=3"}).Draw(t, "rdn")
		dn := MustParseDN(rdn + "," + rapid.SampledFrom(containers).Draw(t, "parent").String())
		if taken[dn.Key()] {
			continue
		}
		taken[dn.Key()] = true
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			containers = append(containers, dn)
			b.Add(Container{UUID: id(), DN: dn, Kind: KindOf(dn)})
		case 1:
			m := Machine{UUID: id(), DN: dn, Name: fmt.Sprint("m", rapid.IntRange(0, 9).Draw(t, "name")), PrimaryGroup: uint32(rapid.IntRange(0, 2).Draw(t, "rid"))}
			if rapid.Bool().Draw(t, "dns") {
				m.DNSName = m.Name + rapid.SampledFrom([]string{".a", ".c"}).Draw(t, "domain")
			}
			if names[m.Name] || dnsNames[m.DNSName] && m.DNSName != "" {
				continue
			}
			names[m.Name], dnsNames[m.DNSName] = true, true
			b.Add(m)
		case 2:
			g := Group{UUID: id(), DN: dn, Name: dn.Name()}
			for range rapid.IntRange(0, 3).Draw(t, "members") {
				g.Members = append(g.Members, MustParseDN(rapid.SampledFrom([]string{"cn=1,", "cn=2,", "ou=x,"}).Draw(t, "member")+rapid.SampledFrom(containers).Draw(t, "in").String()))
			}
			b.Add(g)
		}
	}
	s, err := b.Build()
	if err != nil {
		t.Fatalf("the drawn tree is none: %v", err)
	}
	return Part{name, s}
}

// TestBelowUnion: the top of a union holds everything, itself excepted, and appears when a second source is read.
func TestBelowUnion(t *testing.T) {
	bank := forest(t, at(1, "dc=bank,dc=example"), box(3, "cn=sql1,dc=bank,dc=example", "sql1", ""))
	branch := forest(t, at(11, "dc=branch,dc=test"), box(13, "cn=sql2,dc=branch,dc=test", "sql2", ""))
	s := joined(t, Part{"bank", bank}, Part{"branch", branch})
	entries := 0
	for o := range s.Below(DN{}) {
		if entries++; entries > 10 {
			t.Fatal("the entries below the top have no end")
		}
		if _, dn := o.Identity(); dn.IsZero() {
			t.Fatal("the top is below itself")
		}
	}
	if entries != 6 { // two bases, their parents, two machines
		t.Errorf("%d entries are below the top", entries)
	}
	for c := range s.ChildContainers(DN{}) {
		if c.DN.IsZero() {
			t.Error("the top is its own child")
		}
	}
	if touched, gone := Touched(bank, s); len(touched) != 2 || len(gone) != 0 {
		t.Errorf("with a second source %d machines are touched and %d gone", len(touched), len(gone))
	}
}

// TestTouchedInUnion: a union is made anew of all entries, but a change of one machine touches no other.
func TestTouchedInUnion(t *testing.T) {
	bank := forest(t, at(1, "dc=bank,dc=example"), box(3, "cn=sql1,dc=bank,dc=example", "sql1", ""), box(4, "cn=sql2,dc=bank,dc=example", "sql2", ""))
	branch := forest(t, at(11, "dc=branch,dc=test"), box(13, "cn=sql3,dc=branch,dc=test", "sql3", ""))
	edit := bank.Edit()
	edit.Put(box(4, "cn=sql2,dc=bank,dc=example", "sql2", "sql2.bank.example"))
	changed, err := edit.Build()
	if err != nil {
		t.Fatal(err)
	}
	touched, gone := Touched(joined(t, Part{"bank", bank}, Part{"branch", branch}), joined(t, Part{"bank", changed}, Part{"branch", branch}))
	if len(touched) != 1 || touched[0].UUID != (UUID{4}) || len(gone) != 0 {
		t.Errorf("touched are %v, gone %v", touched, gone)
	}
}

// TestUnionLosesNoMachine: whatever directories hold, every machine of each is in the union, as itself; those of the first
// are as they are there; and without a source all machines of the others are still there.
func TestUnionLosesNoMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var parts []Part
		for i := range rapid.IntRange(2, 4).Draw(t, "parts") {
			parts = append(parts, randomPart(t, fmt.Sprint("s", i)))
		}
		for _, some := range [][]Part{parts, parts[1:], parts[:len(parts)-1]} {
			s, err := Union(some)
			if err != nil {
				t.Fatalf("union: %v", err)
			}
			again, err := Union(some)
			if err != nil || again.Digest() != s.Digest() {
				t.Fatalf("the union differs from itself: %v", err)
			}
			known := map[UUID]bool{}
			for i, p := range some {
				for m := range p.Snapshot.Machines() {
					got, ok := s.Machine(m.UUID)
					if !ok && !known[m.UUID] {
						t.Fatalf("machine %s of source %s is lost", m.DN, p.Name)
					}
					if i == 0 && (!got.DN.Equal(m.DN) && !aboveBase(some, m.DN) || got.Name != m.Name || got.DNSName != m.DNSName) {
						t.Fatalf("machine %+v of the first source became %+v", m, got)
					}
				}
				// A UUID that an earlier source has is that entry's.
				for c := range p.Snapshot.Containers() {
					known[c.UUID] = true
				}
				for m := range p.Snapshot.Machines() {
					known[m.UUID] = true
				}
				for g := range p.Snapshot.Groups() {
					known[g.UUID] = true
				}
			}
		}
	})
}

func aboveBase(parts []Part, dn DN) bool {
	for _, p := range parts {
		if p.Snapshot.Base().IsDescendantOf(dn) {
			return true
		}
	}
	return false
}
