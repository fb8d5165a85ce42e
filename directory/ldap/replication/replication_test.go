package replication_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap/contentsync"
	"github.com/bailiwick-net/bailiwick/directory/ldap/replication"
)

var base = directory.MustParseDN("DC=x")

func id(n int) directory.UUID { return directory.UUID{15: byte(n), 0: 1} }

func number(u directory.UUID) int { return int(u[15]) }

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

// free says whether an entry, 0 for a new one, can have the name.
func (w *world) free(n, parent int, name string) bool {
	for other, e := range w.entries {
		if other != n && !e.gone && e.parent == parent && strings.EqualFold(e.name, name) {
			return false
		}
	}
	return true
}

func (w *world) add(kind string, parent int, name string) int {
	w.usn++
	w.next++
	w.entries[w.next] = &entry{kind: kind, parent: parent, name: name, usn: w.usn}
	return w.next
}

func (w *world) move(n, parent int, name string) {
	w.usn++
	e := w.entries[n]
	e.parent, e.name, e.usn = parent, name, w.usn
}

func (w *world) remove(n int) {
	w.usn++
	w.entries[n].gone, w.entries[n].usn = true, w.usn
}

// restore brings a deleted entry back as it was.
func (w *world) restore(n int) {
	w.usn++
	w.entries[n].gone, w.entries[n].usn = false, w.usn
}

func (w *world) enlist(group int, members ...int) {
	w.usn++
	w.entries[group].members, w.entries[group].usn = members, w.usn
}

func (w *world) step(t *rapid.T) {
	parent := rapid.SampledFrom(append(w.of("ou"), 0)).Draw(t, "parent")
	name := rapid.SampledFrom([]string{"a", "b", "c", "d", "A"}).Draw(t, "name")
	entries := w.of("ou", "machine", "group")
	switch op := rapid.IntRange(0, 4).Draw(t, "op"); {
	case op == 0 || len(entries) == 0:
		if w.free(0, parent, name) {
			w.add(rapid.SampledFrom([]string{"ou", "machine", "machine", "group"}).Draw(t, "kind"), parent, name)
		}
	case op == 1 || op == 2: // move or rename
		n := rapid.SampledFrom(entries).Draw(t, "entry")
		if w.free(n, parent, name) && !w.below(parent, n) {
			w.move(n, parent, name)
		}
	case op == 3:
		n := rapid.SampledFrom(entries).Draw(t, "entry")
		if !slices.ContainsFunc(entries, func(m int) bool { return m != n && w.below(m, n) }) {
			w.remove(n)
		}
	default:
		if groups := w.of("group"); len(groups) > 0 {
			group := rapid.SampledFrom(groups).Draw(t, "group")
			var members []int
			for _, n := range entries {
				if rapid.Bool().Draw(t, "member") {
					members = append(members, n)
				}
			}
			w.enlist(group, members...)
		}
	}
}

// tester is a *testing.T or a *rapid.T.
type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func digest(t tester, c *replication.Content) directory.Digest {
	t.Helper()
	s, err := c.Snapshot(base)
	if err != nil {
		t.Fatal(err)
	}
	return s.Digest()
}

func read(t tester, w *world) *replication.Content {
	t.Helper()
	c, err := replication.New(false, w.all())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// follow applies a batch up to the present state, compares the content with a read of everything, and applies the batch
// again: the same told again is nothing new.
func (w *world) follow(t tester, c *replication.Content, batch []replication.Change) {
	t.Helper()
	if _, err := c.Apply(batch); err != nil {
		t.Fatal(err)
	}
	want := digest(t, read(t, w))
	if got := digest(t, c); got != want {
		t.Fatalf("content has digest %s, a read of everything %s", got.Short(), want.Short())
	}
	if n, err := c.Apply(batch); n != 0 || err != nil {
		t.Fatalf("the same changes again make %d entries different: %v", n, err)
	}
	if got := digest(t, c); got != want {
		t.Fatalf("content has digest %s after the same changes again, before %s", got.Short(), want.Short())
	}
}

// TestContentIsWhatAReadWouldFind follows random changes in batches of any size, which may tell again what was told before,
// and tell of states that are over when the batch ends.
func TestContentIsWhatAReadWouldFind(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{entries: map[int]*entry{}}
		for range rapid.IntRange(0, 20).Draw(t, "before") {
			w.step(t)
		}
		content := read(t, w)
		for range rapid.IntRange(1, 5).Draw(t, "batches") {
			at := w.usn - rapid.IntRange(0, min(w.usn, 4)).Draw(t, "again")
			for range rapid.IntRange(0, 8).Draw(t, "steps") {
				w.step(t)
			}
			middle, over := w.usn, w.since(at)
			for range rapid.IntRange(0, 2).Draw(t, "more steps") {
				w.step(t)
			}
			over = slices.DeleteFunc(over, func(c replication.Change) bool { return w.entries[number(c.UUID)].usn <= middle })
			w.follow(t, content, append(over, w.since(at)...))
		}
	})
}

// TestBatches has batches that are easily followed wrongly, of a group (1) and machines a (2) and b (3), which are its members.
func TestBatches(t *testing.T) {
	const group, a, b = 1, 2, 3
	for _, test := range []struct {
		name    string
		batches []func(w *world)
	}{
		{"a group that lost its members is told of with none", []func(*world){
			func(w *world) { w.remove(a); w.remove(b) },
			func(w *world) { w.enlist(group) },
		}},
		{"a group is told of after a member is written otherwise", []func(*world){
			func(w *world) { w.move(a, 0, "A") },
			func(w *world) { w.enlist(group, a, b) },
		}},
		{"another machine takes the name and the membership of one that is gone", []func(*world){
			func(w *world) { w.remove(a); w.enlist(group, w.add("machine", 0, "a"), b) },
		}},
		{"another machine takes the name and the membership of one that is renamed", []func(*world){
			func(w *world) { w.move(a, 0, "c"); w.enlist(group, w.add("machine", 0, "a"), b) },
		}},
		{"a machine is moved to another container that takes the name of its own", []func(*world){
			func(w *world) { w.move(a, w.add("ou", 0, "o"), "a") },
			func(w *world) { w.move(w.entries[a].parent, 0, "p"); w.move(a, w.add("ou", 0, "o"), "a") },
		}},
		{"two members change their names", []func(*world){
			func(w *world) { w.move(a, 0, "c"); w.move(b, 0, "a"); w.move(a, 0, "b") },
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := members(group, a, b)
			content := read(t, w)
			for _, batch := range test.batches {
				at := w.usn
				batch(w)
				w.follow(t, content, w.since(at))
			}
		})
	}
}

// members is a group and its members, with these numbers.
func members(group, a, b int) *world {
	w := &world{entries: map[int]*entry{}}
	if w.add("group", 0, "g") != group || w.add("machine", 0, "a") != a || w.add("machine", 0, "b") != b {
		panic("the numbers are not those of the world")
	}
	w.enlist(group, a, b)
	return w
}

// TestLastStateCounts has entries that change while a batch is gathered, and are told of in each state.
func TestLastStateCounts(t *testing.T) {
	const group, a, b = 1, 2, 3
	for _, test := range []struct {
		name         string
		first, later func(w *world)
	}{
		{"deleted and restored", func(w *world) { w.remove(a) }, func(w *world) { w.restore(a) }},
		{"restored and renamed", func(w *world) { w.remove(a) }, func(w *world) { w.restore(a); w.move(a, 0, "c") }},
		{"renamed and back", func(w *world) { w.move(a, 0, "c") }, func(w *world) { w.move(a, 0, "a") }},
		{"renamed and deleted", func(w *world) { w.move(a, 0, "c") }, func(w *world) { w.remove(a) }},
		{"a member taken away and back", func(w *world) { w.enlist(group, b) }, func(w *world) { w.enlist(group, a, b) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := members(group, a, b)
			content := read(t, w)
			at := w.usn
			test.first(w)
			batch := w.since(at)
			test.later(w)
			w.follow(t, content, append(batch, w.since(at)...))
		})
	}
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
