package directory

import (
	"fmt"
	"runtime"
	"testing"
)

// fleet makes n machines in 1,000 OUs and n/20 groups of 20 members, a tenth of them nested in one another.
func fleet(b *testing.B, n int, move int) *Snapshot {
	b.Helper()
	base := MustParseDN("dc=bank,dc=example")
	bl := NewBuilder(base)
	bl.Add(Container{UUID: deriveUUID("container", "", "base"), DN: base, Kind: Domain})
	ous := make([]DN, 1000)
	for i := range ous {
		dn, err := base.Child("OU", fmt.Sprintf("Branch %d", i))
		if err != nil {
			b.Fatal(err)
		}
		ous[i] = dn
		bl.Add(Container{UUID: deriveUUID("container", "", dn.Key()), DN: dn, Kind: OrganizationalUnit})
	}
	machines := make([]DN, n)
	for i := range n {
		ou := i % 1000
		if i < move {
			ou = (ou + 1) % 1000
		}
		name := fmt.Sprintf("m%d", i)
		dn, err := ous[ou].Child("cn", name)
		if err != nil {
			b.Fatal(err)
		}
		machines[i] = dn
		bl.Add(Machine{UUID: deriveUUID("machine", "bank.example", name), DN: dn, Name: name, DNSName: name + ".bank.example"})
	}
	for i := range n / 20 {
		dn, err := base.Child("cn", fmt.Sprintf("g%d", i))
		if err != nil {
			b.Fatal(err)
		}
		g := Group{UUID: deriveUUID("group", "", dn.Key()), DN: dn, Name: dn.Name(), Members: append([]DN(nil), machines[i*20:i*20+20]...)}
		if i%10 == 0 && i > 0 {
			up, err := base.Child("cn", fmt.Sprintf("g%d", i-1))
			if err != nil {
				b.Fatal(err)
			}
			g.Members = append(g.Members, up)
		}
		bl.Add(g)
	}
	s, err := bl.Build()
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func BenchmarkBuild100k(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		fleet(b, 100_000, 0)
	}
	b.ReportMetric(float64(b.N)*106_001/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkDiff100k(b *testing.B) {
	old := fleet(b, 100_000, 0)
	for _, moved := range []int{1, 10_000} {
		next := fleet(b, 100_000, moved)
		b.Run(fmt.Sprintf("moved=%d", moved), func(b *testing.B) {
			for b.Loop() {
				if d := NewDiff(old, next); d.Counts().Moved != moved {
					b.Fatalf("diff %v", d)
				}
			}
		})
	}
}

func BenchmarkParseDN(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseDN("cn=m12345,OU=Branch 345,OU=Branches,dc=bank,dc=example"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEdit100k measures an edit and the diff that follows from it: of one machine, and of a container with 10,000.
func BenchmarkEdit100k(b *testing.B) {
	s := fleet(b, 100_000, 0)
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		var i int
		for b.Loop() {
			i++
			m, ok := s.MachineByName(fmt.Sprintf("m%d", i*7919%100_000))
			if !ok {
				b.Fatal("no such machine")
			}
			m.Disabled = !m.Disabled
			e := s.Edit()
			e.Put(m)
			next, err := e.Build()
			if err != nil {
				b.Fatal(err)
			}
			if d := NewDiff(s, next); len(d.Changed) != 1 {
				b.Fatal(d)
			}
			s = next
		}
	})
	b.Run("subtree", func(b *testing.B) {
		e := s.Edit()
		to := MustParseDN("OU=Region,dc=bank,dc=example")
		e.Put(Container{UUID: deriveUUID("container", "", to.Key()), DN: to, Kind: OrganizationalUnit})
		var err error
		if s, err = e.Build(); err != nil {
			b.Fatal(err)
		}
		for i := range 100 {
			if s, err = s.Move(MustParseDN(fmt.Sprintf("OU=Branch %d,dc=bank,dc=example", i)), to); err != nil {
				b.Fatal(err)
			}
		}
		other := MustParseDN("OU=Branch 500,dc=bank,dc=example")
		for b.Loop() {
			next, err := s.Move(to, other)
			if err != nil {
				b.Fatal(err)
			}
			if d := NewDiff(s, next); d.Counts().Moved != 10_000 {
				b.Fatal(d)
			}
		}
	})
}

// BenchmarkMemory100k tells what a snapshot takes, per machine with its share of groups and containers.
func BenchmarkMemory100k(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := fleet(b, 100_000, 0)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/100_000, "bytes/machine")
		runtime.KeepAlive(s)
	}
}
