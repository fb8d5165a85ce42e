package plan

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
)

// bigTown has 100,000 machines in 1,000 containers.
func bigTown(b *testing.B) *directory.Snapshot {
	b.Helper()
	base := directory.MustParseDN("dc=x")
	bl := directory.NewBuilder(base)
	bl.Add(directory.Container{UUID: uuid("dc=x"), DN: base, Kind: directory.Domain})
	for i := range 1000 {
		ou, err := base.Child("ou", fmt.Sprintf("b%03d", i))
		if err != nil {
			b.Fatal(err)
		}
		bl.Add(directory.Container{UUID: uuid(ou.Name()), DN: ou, Kind: directory.OrganizationalUnit})
		for j := range 100 {
			name := fmt.Sprintf("m%05d", i*100+j)
			dn, err := ou.Child("cn", name)
			if err != nil {
				b.Fatal(err)
			}
			bl.Add(directory.Machine{UUID: uuid(name), DN: dn, Name: name, DNSName: name + ".x"})
		}
	}
	s, err := bl.Build()
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// branches are n different policies, each linked to every n-th of the containers, and one linked to the domain.
func branches(b *testing.B, n int, domain string) policies.Documents {
	b.Helper()
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, `---
apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: list %d
filters:
  - {source: me, destination: any, protocol: tcp, destinationPort: %d}
  - {source: any, destination: me, protocol: tcp, destinationPort: %d}
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: branch %d
rules:
  - {name: secured, filterList: list %d, filterAction: Require Security}
  - {name: pings, filterList: All ICMP Traffic, filterAction: Permit}
defaultResponse: {active: true}
`, i, 1000+i, 1000+i, i, i)
	}
	for i := range 1000 {
		text.WriteString(link(fmt.Sprintf("branch %d", i%n), fmt.Sprintf("ou=b%03d,dc=x", i), 1))
	}
	text.WriteString(domain)
	d, err := policies.Decode("branches", []byte(text.String()))
	if err != nil {
		b.Fatal(err)
	}
	return predefined.Documents().Merge(d)
}

// processorTime of this process so far: on a busy machine the clock tells little.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDomainEdit plans a change at the domain that reaches all of 100,000 machines in 1,000 containers.
func BenchmarkDomainEdit(b *testing.B) {
	town := bigTown(b)
	enforced := "---\napiVersion: bailiwick.net/v1alpha1\nkind: Link\nname: all\npolicy: " + secure + "\ncontainer: dc=x\norder: 1\nenforced: true\n"
	for _, n := range []int{3, 30, 100} {
		before, after := World{Documents: branches(b, n, ""), Directory: town}, World{Documents: branches(b, n, enforced), Directory: town}
		b.Run(fmt.Sprintf("bundles=%d", n), func(b *testing.B) {
			start := processorTime(b)
			for b.Loop() {
				p, err := Compare(before, after, DNS())
				if err != nil || p.ChangedMachines() != 100_000 || p.Unjudged != 0 {
					b.Fatalf("%d machines change, %d pairs unjudged, error %v", p.ChangedMachines(), p.Unjudged, err)
				}
				_ = p.Digest()
			}
			b.ReportMetric(float64((processorTime(b)-start).Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
}

// BenchmarkMove plans the move of one container of 100 machines.
func BenchmarkMove(b *testing.B) {
	town := bigTown(b)
	d := branches(b, 100, "")
	b.Run("directory", func(b *testing.B) {
		for b.Loop() {
			if _, err := town.Move(directory.MustParseDN("ou=b001,dc=x"), directory.MustParseDN("ou=b002,dc=x")); err != nil {
				b.Fatal(err)
			}
		}
	})
	moved, err := town.Move(directory.MustParseDN("ou=b001,dc=x"), directory.MustParseDN("ou=b002,dc=x"))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("plan", func(b *testing.B) {
		start := processorTime(b)
		for b.Loop() {
			if _, err := Compare(World{Documents: d, Directory: town}, World{Documents: d, Directory: moved}, DNS()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64((processorTime(b)-start).Milliseconds())/float64(b.N), "cpu-ms/op")
	})
}
