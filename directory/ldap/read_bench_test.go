package ldap

import (
	"testing"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/e2e/lab/slapd"
)

// BenchmarkRead reads 20,000 machines in 1,000 OUs over LDAPS, in pages of 1,000, once (without the second read that a
// first poll makes).
func BenchmarkRead(b *testing.B) {
	const machines, ous = 20_000, 1000
	server := slapd.ForTest(b, slapd.Options{Offline: branches(machines, ous)})
	c := Config{URL: server.LDAPS, Base: directory.MustParseDN(server.Suffix), CAFile: server.CAFile, Bind: Simple{server.RootDN, server.PasswordFile}}
	t, err := c.target()
	if err != nil {
		b.Fatal(err)
	}
	s, done, err := t.open(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer done()
	b.ReportAllocs()
	for b.Loop() {
		snap, err := s.readTree()
		if err != nil {
			b.Fatal(err)
		}
		if _, m, _ := snap.Len(); m != machines {
			b.Fatalf("%d machines", m)
		}
	}
	b.ReportMetric(float64(b.N)*(machines+ous+1)/b.Elapsed().Seconds(), "entries/s")
}
