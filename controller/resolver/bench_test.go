package resolver

import (
	"testing"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
)

// BenchmarkChange100k measures how long the assignments of 100,000 machines take after one of them changed.
func BenchmarkChange100k(b *testing.B) {
	docs := documents(link(predefined.Client, base), link(predefined.Server, "ou=a,"+base))
	at := view(b, map[string]int{"a": 50_000, "b": 50_000})
	table := evaluate(at, docs, nil, nil, nil)
	for i := 0; b.Loop(); i++ {
		m, ok := at.Snapshot.Machine(id("b", i%50_000))
		if !ok {
			b.Fatal("no such machine")
		}
		m.Disabled = !m.Disabled
		e := at.Snapshot.Edit()
		e.Put(m)
		s, err := e.Build()
		if err != nil {
			b.Fatal(err)
		}
		at = &mirror.View{Snapshot: s, Vanished: at.Vanished}
		next, touched := evaluateFrom(at, table, nil)
		if changed := next.changedAmong(table, touched); len(changed) != 1 {
			b.Fatalf("%d machines changed", len(changed))
		}
		table = next
	}
}
