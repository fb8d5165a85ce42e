package ldif

import (
	"fmt"
	"testing"
)

// BenchmarkSnapshot reads 100,000 machines in 1,000 OUs from memory.
func BenchmarkSnapshot(b *testing.B) {
	const machines, ous = 100_000, 1000
	file := []byte("dn: dc=bank,dc=example\nobjectClass: domain\ndc: bank\n\n")
	for i := range ous {
		file = fmt.Appendf(file, "dn: OU=Branch %d,dc=bank,dc=example\nobjectClass: organizationalUnit\nou: Branch %d\n\n", i, i)
	}
	for i := range machines {
		file = fmt.Appendf(file, "dn: cn=m%d,OU=Branch %d,dc=bank,dc=example\nobjectClass: device\nobjectClass: computer\ncn: m%d\ndNSHostName: m%d.bank.example\nuserAccountControl: 4096\n\n", i, i%ous, i, i)
	}
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Snapshot("fleet.ldif", file, Options{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*(machines+ous+1)/b.Elapsed().Seconds(), "entries/s")
}
