package resolver

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
)

// TestTablesOfChangesModel changes a directory at random and compares the table that is made of the one before with one
// that is worked out for every machine anew: the same assignments, revisions, bundles and counts, and the same machines to
// be told.
func TestTablesOfChangesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		group := directory.MustParseDN("cn=g," + base)
		docs := documents(
			link(predefined.Client, base), link(predefined.Server, "ou=a,"+base),
			policies.Link{Policy: predefined.SecureServer, Container: directory.MustParseDN("ou=b," + base), Order: 1, Apply: []directory.DN{group}},
			link("no such policy", "ou=c,"+base), link(predefined.Server, "ou=e,ou=d,"+base),
		)
		b := directory.NewBuilder(directory.DN{})
		places := map[directory.UUID]directory.DN{}
		for i, name := range []string{base, "ou=a," + base, "ou=b," + base, "ou=c," + base, "ou=d," + base, "ou=e,ou=d," + base} {
			dn := directory.MustParseDN(name)
			places[id("o", i)] = dn
			b.Add(directory.Container{UUID: id("o", i), DN: dn, Kind: directory.KindOf(dn)})
		}
		b.Add(directory.Group{UUID: id("g", 0), DN: group, Name: "g"})
		s, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		view := &mirror.View{Snapshot: s, Vanished: map[directory.UUID]mirror.Vanished{}}
		anew := evaluate(view, docs, nil, nil, nil)
		table := anew
		for range rapid.IntRange(1, 10).Draw(t, "rounds") {
			e := view.Snapshot.Edit()
			for range rapid.IntRange(0, 3).Draw(t, "changes") {
				n := rapid.IntRange(0, 9).Draw(t, "machine")
				containers := slices.SortedFunc(view.Snapshot.Containers(), func(a, b directory.Container) int { return a.DN.Compare(b.DN) })
				at := containers[rapid.IntRange(0, len(containers)-1).Draw(t, "place")]
				dn, err := at.DN.Child("cn", fmt.Sprint("m", n))
				if err != nil {
					t.Fatal(err)
				}
				switch rapid.SampledFrom([]string{"put", "put", "put", "remove", "group", "rename group", "move"}).Draw(t, "what") {
				case "put":
					e.Put(directory.Machine{UUID: id("m", n), DN: dn, Name: fmt.Sprint("m", n), Disabled: rapid.Bool().Draw(t, "disabled")})
				case "remove":
					e.Remove(id("m", n))
				case "group":
					e.Put(directory.Group{UUID: id("g", 0), DN: group, Name: "g", Members: []directory.DN{dn}})
				case "rename group":
					g, _ := view.Snapshot.Group(id("g", 0))
					if g.DN = group; rapid.Bool().Draw(t, "away") {
						g.DN = directory.MustParseDN("cn=h," + base)
					}
					e.Put(g)
				case "move":
					next, err := view.Snapshot.Move(directory.MustParseDN("ou=e,ou=d,"+base), at.DN)
					if err == nil {
						e = next.Edit()
					}
				}
			}
			next, err := e.Build()
			if err != nil {
				continue
			}
			vanished := maps.Clone(view.Vanished)
			if rapid.IntRange(0, 4).Draw(t, "expire") == 0 {
				clear(vanished)
			}
			for _, m := range directory.NewDiff(view.Snapshot, next).Removed {
				vanished[m.UUID] = mirror.Vanished{Machine: m, Since: time.Unix(0, 0)}
			}
			maps.DeleteFunc(vanished, func(u directory.UUID, _ mirror.Vanished) bool { _, back := next.Machine(u); return back })
			view = &mirror.View{Snapshot: next, Vanished: vanished}
			was := anew
			anew = evaluate(view, docs, nil, was, nil)
			of, touched := evaluateFrom(view, table, nil)
			if got, want := describe(of, of.changedAmong(table, touched)), describe(anew, anew.changedFrom(was)); got != want {
				t.Fatalf("of the one before:\n%s\nanew:\n%s", got, want)
			}
			table = of
		}
	})
}

func describe(t *Table, changed []directory.UUID) string {
	byText := func(a, b directory.UUID) int { return slices.Compare(a[:], b[:]) }
	text := ""
	for _, u := range slices.SortedFunc(maps.Keys(t.slots), byText) {
		text += fmt.Sprintf("%+v\n", t.Assignment(u))
	}
	slices.SortFunc(changed, byText)
	var bundles []string
	for d := range t.bundles {
		bundles = append(bundles, d.String())
	}
	slices.Sort(bundles)
	var counts []string
	for u, n := range t.uses {
		counts = append(counts, fmt.Sprint(u, n))
	}
	slices.Sort(counts)
	slices.SortFunc(t.problems, func(a, b problem) int { return a.machines - b.machines })
	return fmt.Sprintln(text, changed, bundles, counts, t.problems, t.members)
}

// TestPolicyThatOnlyAVanishedMachineHas: a machine that vanished keeps a policy as it was before the documents changed; the
// next one that comes under that policy has it as it is now.
func TestPolicyThatOnlyAVanishedMachineHas(t *testing.T) {
	docs := documents(link(predefined.Server, "ou=a,"+base), link(predefined.Client, "ou=b,"+base))
	before := view(t, map[string]int{"a": 2})
	table := evaluate(before, docs, nil, nil, nil)

	at := func(from *directory.Snapshot, n int, ou string) *directory.Snapshot {
		t.Helper()
		name := fmt.Sprint("a", n)
		e := from.Edit()
		e.Put(directory.Machine{UUID: id("a", n), DN: directory.MustParseDN("cn=" + name + ",ou=" + ou + "," + base), Name: name})
		next, err := e.Build()
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	e := before.Snapshot.Edit()
	e.Remove(id("a", 0))
	gone, err := e.Build()
	if err != nil {
		t.Fatal(err)
	}
	machine, _ := before.Snapshot.Machine(id("a", 0))
	vanished := map[directory.UUID]mirror.Vanished{machine.UUID: {Machine: machine}}
	other := documents(docs.parsed.Links...)
	other.revision++
	for i, p := range other.parsed.Policies {
		if p.Name == predefined.Server {
			other.parsed.Policies[i].Rules = p.Rules[1:]
		}
	}
	table = evaluate(&mirror.View{Snapshot: gone, Vanished: vanished}, other, nil, table, nil)
	now := table.Assignment(id("a", 1)).Digest
	if table.Assignment(id("a", 0)).Digest == now {
		t.Fatal("the vanished machine has the policy of today")
	}

	left := at(gone, 1, "b")
	table, _ = evaluateFrom(&mirror.View{Snapshot: left, Vanished: vanished}, table, nil)
	table, _ = evaluateFrom(&mirror.View{Snapshot: at(left, 2, "a"), Vanished: vanished}, table, nil)
	if a := want(t, table, id("a", 2), predefined.Server, "ou=a,"+base, 1); a.Digest != now {
		t.Errorf("the machine that comes has the bundle %s, wanted %s", a.Digest, now)
	}
}
