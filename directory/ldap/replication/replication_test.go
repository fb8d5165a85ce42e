package replication_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap/contentsync"
	"github.com/bailiwick-net/bailiwick/directory/ldap/replication"
)

var base = directory.MustParseDN("DC=x")

func id(n int) directory.UUID { return directory.UUID{15: byte(n), 0: 1} }

// world is a model of a directory: entries have a parent and a name, members are identities, and every change has a number.
type world struct {
	entries map[int]*entry
	next    int
	usn     int
}

type entry struct {
	kind    string // "ou", "machine", "group"
	parent  int    // 0 is the base
	name    string
	members []int
	usn     int
	gone    bool
}

func (w *world) dn(n int) directory.DN {
	if n == 0 {
		return base
	}
	e := w.entries[n]
	typ := "CN"
	if e.kind == "ou" {
		typ = "OU"
	}
	dn, err := w.dn(e.parent).Child(typ, e.name)
	if err != nil {
		panic(err)
	}
	return dn
}

func (w *world) change(n int) replication.Change {
	c := replication.Change{UUID: id(n)}
	if n == 0 {
		c.Item = contentsync.Item{DN: base, Object: directory.Container{UUID: id(0), DN: base, Kind: directory.KindOf(base)}}
		return c
	}
	e := w.entries[n]
	if e.gone {
		c.Gone = true
		return c
	}
	dn := w.dn(n)
	switch e.kind {
	case "ou":
		c.Item = contentsync.Item{DN: dn, Object: directory.Container{UUID: id(n), DN: dn, Kind: directory.KindOf(dn)}}
	case "machine":
		c.Item = contentsync.Item{DN: dn, Object: directory.Machine{UUID: id(n), DN: dn, Name: fmt.Sprintf("m%d", n)}}
	case "group":
		g := directory.Group{UUID: id(n), DN: dn, Name: e.name}
		for _, m := range e.members {
			if !w.entries[m].gone {
				g.Members = append(g.Members, w.dn(m))
			}
		}
		c.Item = contentsync.Item{DN: dn, Object: directory.Normalise(g)}
	}
	return c
}

// since are the changes after a number, as a domain controller tells them: of what is below a container that was moved, and
// of the groups of what was moved or deleted, it tells nothing.
func (w *world) since(usn int) []replication.Change {
	var out []replication.Change
	for n, e := range w.entries { // in no order
		if e.usn > usn {
			out = append(out, w.change(n))
		}
	}
	return out
}

func (w *world) all() []replication.Change {
	return append(slices.DeleteFunc(w.since(-1), func(c replication.Change) bool { return c.Gone }), w.change(0))
}

func (w *world) of(kinds ...string) []int {
	var out []int
	for n, e := range w.entries {
		if !e.gone && slices.Contains(kinds, e.kind) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

func (w *world) below(n, top int) bool {
	for ; n != 0; n = w.entries[n].parent {
		if n == top {
			return true
		}
	}
	return top == 0
}

func (w *world) free(parent int, name string) bool {
	for _, e := range w.entries {
		if !e.gone && e.parent == parent && e.name == name {
			return false
		}
	}
	return true
}

func (w *world) step(t *rapid.T) {
	w.usn++
	parent := rapid.SampledFrom(append(w.of("ou"), 0)).Draw(t, "parent")
	name := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "name")
	entries := w.of("ou", "machine", "group")
	switch op := rapid.IntRange(0, 4).Draw(t, "op"); {
	case op == 0 || len(entries) == 0:
		if w.free(parent, name) {
			w.next++
			w.entries[w.next] = &entry{kind: rapid.SampledFrom([]string{"ou", "machine", "machine", "group"}).Draw(t, "kind"), parent: parent, name: name, usn: w.usn}
		}
	case op == 1 || op == 2: // move or rename
		n := rapid.SampledFrom(entries).Draw(t, "entry")
		if w.free(parent, name) && !w.below(parent, n) {
			e := w.entries[n]
			e.parent, e.name, e.usn = parent, name, w.usn
		}
	case op == 3:
		n := rapid.SampledFrom(entries).Draw(t, "entry")
		if !slices.ContainsFunc(entries, func(m int) bool { return m != n && w.below(m, n) }) {
			w.entries[n].gone, w.entries[n].usn = true, w.usn
		}
	default:
		if groups := w.of("group"); len(groups) > 0 {
			e := w.entries[rapid.SampledFrom(groups).Draw(t, "group")]
			e.usn, e.members = w.usn, nil
			for _, n := range entries {
				if rapid.Bool().Draw(t, "member") {
					e.members = append(e.members, n)
				}
			}
		}
	}
}

func digest(t interface{ Fatal(...any) }, c *replication.Content) directory.Digest {
	s, err := c.Snapshot(base)
	if err != nil {
		t.Fatal(err)
	}
	return s.Digest()
}

// TestContentIsWhatAReadWouldFind follows random changes in batches of any size.
func TestContentIsWhatAReadWouldFind(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{entries: map[int]*entry{}}
		for range rapid.IntRange(0, 20).Draw(t, "before") {
			w.step(t)
		}
		content, err := replication.New(false, w.all())
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 5).Draw(t, "batches") {
			at := w.usn
			for range rapid.IntRange(0, 8).Draw(t, "steps") {
				w.step(t)
			}
			if _, err := content.Apply(w.since(at)); err != nil {
				t.Fatal(err)
			}
			fresh, err := replication.New(false, w.all())
			if err != nil {
				t.Fatal(err)
			}
			if got, want := digest(t, content), digest(t, fresh); got != want {
				t.Fatalf("content has digest %s, a read of everything %s", got.Short(), want.Short())
			}
			// The same told again is nothing new.
			if n, err := content.Apply(w.since(at)); n != 0 || err != nil {
				t.Fatalf("the same changes again make %d entries different: %v", n, err)
			}
		}
	})
}

func TestContainerFromOutsideIsReadAnew(t *testing.T) {
	w := &world{entries: map[int]*entry{1: {kind: "machine", name: "m", usn: 1}}, next: 1}
	content, err := replication.New(true, w.all())
	if err != nil {
		t.Fatal(err)
	}
	w.entries[2] = &entry{kind: "ou", name: "o", usn: 2}
	if _, err := content.Apply(w.since(1)); !errors.Is(err, replication.ErrAnew) {
		t.Errorf("Apply = %v, want ErrAnew", err)
	}
}

func TestServerContinues(t *testing.T) {
	for _, test := range []struct {
		name        string
		now, before replication.Server
		anew        bool
	}{
		{"same", replication.Server{Invocation: id(1), USN: 7}, replication.Server{Invocation: id(1), USN: 7}, false},
		{"later", replication.Server{Invocation: id(1), USN: 9}, replication.Server{Invocation: id(1), USN: 7}, false},
		{"put back", replication.Server{Invocation: id(1), USN: 6}, replication.Server{Invocation: id(1), USN: 7}, true},
		{"another", replication.Server{Invocation: id(2), USN: 9}, replication.Server{Invocation: id(1), USN: 7}, true},
	} {
		if err := test.now.Continues(test.before); errors.Is(err, replication.ErrAnew) != test.anew {
			t.Errorf("%s: %v, want anew %t", test.name, err, test.anew)
		}
	}
}
