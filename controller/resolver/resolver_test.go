package resolver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
)

const base = "dc=bank,dc=example"

// view is a directory with the given number of machines in each OU.
func view(t testing.TB, machines map[string]int) *mirror.View {
	t.Helper()
	b := directory.NewBuilder(directory.DN{})
	container := func(text string, id byte) {
		dn := directory.MustParseDN(text)
		b.Add(directory.Container{UUID: directory.UUID{0xff, id}, DN: dn, Kind: directory.KindOf(dn)})
	}
	container(base, 0)
	for i, ou := range []string{"a", "b"} {
		container("ou="+ou+","+base, byte(i+1))
		for j := range machines[ou] {
			name := fmt.Sprintf("%s%d", ou, j)
			b.Add(directory.Machine{UUID: id(ou, j), DN: directory.MustParseDN("cn=" + name + ",ou=" + ou + "," + base), Name: name})
		}
	}
	s, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return &mirror.View{Snapshot: s, Vanished: map[directory.UUID]mirror.Vanished{}}
}

func id(ou string, n int) directory.UUID {
	return directory.UUID{ou[0], byte(n >> 16), byte(n >> 8), byte(n)}
}

func link(policy, container string) policies.Link {
	return policies.Link{Policy: policy, Container: directory.MustParseDN(container), Order: 1}
}

func documents(links ...policies.Link) documentSet {
	d := predefined.Documents()
	d.Links = links
	return documentSet{revision: int64(len(links) + 1), parsed: d}
}

func want(t *testing.T, table *Table, machine directory.UUID, policy, container string, revision uint64) Assignment {
	t.Helper()
	a := table.Assignment(machine)
	if a.Policy != policy || a.Container != container || a.Revision != revision {
		t.Errorf("machine %v has %q from %q at revision %d, wanted %q from %q at %d", machine, a.Policy, a.Container, a.Revision, policy, container, revision)
	}
	if _, ok := table.Bundle(a.Digest); !ok && revision != 0 {
		t.Errorf("machine %v has a digest without a bundle", machine)
	}
	return a
}

func TestRevisionsGrowWithChangesAlone(t *testing.T) {
	v := view(t, map[string]int{"a": 2, "b": 1})
	first := evaluate(v, documents(), nil, nil, nil)
	want(t, first, id("a", 0), policies.NoneName, "", 1)
	second := evaluate(v, documents(link(predefined.Client, "ou=a,"+base)), nil, first, nil)
	want(t, second, id("a", 0), predefined.Client, "ou=a,"+base, 2)
	want(t, second, id("b", 0), policies.NoneName, "", 1)
	if changed := second.changedFrom(first); len(changed) != 2 {
		t.Errorf("%d machines are announced, wanted the 2 in ou=a", len(changed))
	}
	// The same policy from elsewhere is a change that the node hears of, with the same bundle.
	third := evaluate(v, documents(link(predefined.Client, base)), nil, second, nil)
	want(t, third, id("a", 0), predefined.Client, base, 3)
	if third.Assignment(id("a", 0)).Digest != second.Assignment(id("a", 0)).Digest {
		t.Error("the same policy has two digests")
	}
	if same := evaluate(v, documents(link(predefined.Client, base)), nil, third, nil); len(same.changedFrom(third)) != 0 {
		t.Error("evaluating again changes something")
	}
}

// TestReassigned: only who would have another policy counts, and not who has it by another link.
func TestReassigned(t *testing.T) {
	v := view(t, map[string]int{"a": 2, "b": 1})
	r := New(Config{})
	if _, err := r.Reassigned(documents().parsed); !errors.Is(err, ErrNotReady) {
		t.Errorf("before the first table: %v", err)
	}
	r.table.Store(evaluate(v, documents(link(predefined.Client, "ou=a,"+base)), nil, nil, nil))
	for _, test := range []struct {
		links []policies.Link
		want  map[string]string
	}{
		{[]policies.Link{link(predefined.Client, "ou=a,"+base)}, nil},
		{[]policies.Link{link(predefined.Client, base)}, map[string]string{"b0": predefined.Client}},
		{nil, map[string]string{"a0": policies.NoneName, "a1": policies.NoneName}},
		{[]policies.Link{link(predefined.Server, "ou=a,"+base)}, map[string]string{"a0": predefined.Server, "a1": predefined.Server}},
	} {
		got := map[string]string{}
		all, err := r.Reassigned(documents(test.links...).parsed)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			got[c.Machine.Name] = c.After.Policy
		}
		if !maps.Equal(got, test.want) {
			t.Errorf("links %v reassign %v, want %v", test.links, got, test.want)
		}
	}
	// The same name with another content is another policy.
	other := documents(link(predefined.Client, "ou=a,"+base)).parsed
	for i := range other.Policies {
		other.Policies[i].Exemptions.BreakGlassTCP = append(other.Policies[i].Exemptions.BreakGlassTCP, 2222)
	}
	if all, err := r.Reassigned(other); err != nil || len(all) != 2 {
		t.Errorf("another content reassigns %v, %v", all, err)
	}
}

func TestRecordsContinueRevisions(t *testing.T) {
	v := view(t, map[string]int{"a": 3})
	docs := documents(link(predefined.Client, base))
	bundle, err := compile.Compile(docs.parsed, predefined.Client)
	if err != nil {
		t.Fatal(err)
	}
	records := map[directory.UUID]store.NodeRecord{
		id("a", 0): {Revision: 7, Digest: bundle.Digest.String(), Policy: predefined.Client, Container: base},
		id("a", 1): {Revision: 7, Digest: strings.Repeat("ab", 32), Policy: "Another", Container: base},
	}
	table := evaluate(v, docs, nil, nil, records)
	want(t, table, id("a", 0), predefined.Client, base, 7)
	want(t, table, id("a", 1), predefined.Client, base, 8)
	want(t, table, id("a", 2), predefined.Client, base, 1)
}

func TestErrorKeepsTheAssignment(t *testing.T) {
	v := view(t, map[string]int{"a": 1, "b": 1})
	first := evaluate(v, documents(link(predefined.Server, "ou=a,"+base)), nil, nil, nil)
	broken := documents(link("No Such Policy", "ou=a,"+base), link(predefined.Client, "ou=b,"+base))
	second := evaluate(v, broken, nil, first, nil)
	a := want(t, second, id("a", 0), predefined.Server, "ou=a,"+base, 1)
	if !strings.Contains(a.Problem, "No Such Policy") || len(second.problems) != 1 {
		t.Errorf("the problem is %q, of %d", a.Problem, len(second.problems))
	}
	want(t, second, id("b", 0), predefined.Client, "ou=b,"+base, 2)
	// A machine that never had one gets none, not the empty policy.
	fresh := evaluate(v, broken, nil, nil, nil)
	want(t, fresh, id("a", 0), "", "", 0)
	// What it had is found again from the record, as long as it is the same bundle.
	was := first.Assignment(id("a", 0))
	records := map[directory.UUID]store.NodeRecord{id("a", 0): {Revision: 4, Digest: was.Digest.String(), Policy: was.Policy, Container: was.Container}}
	want(t, evaluate(v, broken, nil, nil, records), id("a", 0), predefined.Server, "ou=a,"+base, 4)
	records[id("a", 0)] = store.NodeRecord{Revision: 4, Digest: strings.Repeat("ab", 32), Policy: was.Policy, Container: was.Container}
	want(t, evaluate(v, broken, nil, nil, records), id("a", 0), "", "", 0)
	// And the error gone, revisions go on where the record left off.
	healed := evaluate(v, documents(link(predefined.Server, "ou=a,"+base)), nil, evaluate(v, broken, nil, nil, records), records)
	want(t, healed, id("a", 0), predefined.Server, "ou=a,"+base, 5)
}

func TestVanishedAndDisabledMachines(t *testing.T) {
	docs := documents(link(predefined.Client, base))
	first := evaluate(view(t, map[string]int{"a": 2}), docs, nil, nil, nil)
	v := view(t, map[string]int{"a": 1})
	gone := directory.Machine{UUID: id("a", 1), Name: "a1"}
	v.Vanished[gone.UUID] = mirror.Vanished{Machine: gone}
	second := evaluate(v, docs, nil, first, nil)
	a := want(t, second, id("a", 1), predefined.Client, base, 1)
	if a.Standing != Vanished || !a.Standing.Admitted() {
		t.Errorf("standing is %v", a.Standing)
	}
	if changed := second.changedFrom(first); len(changed) != 1 || changed[0] != gone.UUID {
		t.Errorf("announced are %v, wanted the vanished machine", changed)
	}
	third := evaluate(view(t, map[string]int{"a": 1}), docs, nil, second, nil)
	if a := third.Assignment(id("a", 1)); a.Standing != Unknown || a.Standing.Admitted() {
		t.Errorf("after its grace time the machine is %v", a.Standing)
	}
	if changed := third.changedFrom(second); len(changed) != 1 {
		t.Errorf("announced are %v, wanted the machine that is gone", changed)
	}
	if Disabled.Admitted() || !Enabled.Admitted() {
		t.Error("enabled machines are admitted, disabled ones are not")
	}
}

// fakeDocuments is a store of documents whose hints the test sends.
type fakeDocuments struct {
	hints   chan struct{}
	guarded struct {
		sync.Mutex
		docs  store.Documents
		fails error
		reads int
	}
}

func (f *fakeDocuments) Documents(context.Context) (store.Documents, error) {
	f.guarded.Lock()
	defer f.guarded.Unlock()
	f.guarded.reads++
	return f.guarded.docs, f.guarded.fails
}

func (f *fakeDocuments) WatchDocuments(context.Context) <-chan struct{} { return f.hints }

func (f *fakeDocuments) reads() int {
	f.guarded.Lock()
	defer f.guarded.Unlock()
	return f.guarded.reads
}

// set replaces the documents and hints.
func (f *fakeDocuments) set(revision int64, fails error, docs ...policies.Document) {
	f.guarded.Lock()
	f.guarded.docs, f.guarded.fails = store.Documents{Revision: revision}, fails
	for _, d := range docs {
		f.guarded.docs.List = append(f.guarded.docs.List, store.Document{
			DocumentKey: store.DocumentKey{Kind: string(d.Kind()), Name: d.Key()}, Content: policies.AppendYAML(nil, d),
		})
	}
	f.guarded.Unlock()
	f.hints <- struct{}{}
}

func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docs := &fakeDocuments{hints: make(chan struct{})}
		var current atomic.Pointer[mirror.View]
		current.Store(view(t, map[string]int{"a": 1}))
		changed := make(chan struct{})
		var announced atomic.Int32
		r := New(Config{View: current.Load, ViewChanged: changed, Documents: docs})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx, func([]directory.UUID) { announced.Add(1) }) }()
		if _, err := r.Preview(predefined.Documents()); !errors.Is(err, ErrNotReady) {
			t.Errorf("a preview before the first table gave %v", err)
		}
		all := predefined.Documents().All()
		// The store cannot be read at first: there is no table, and no lack of documents is taken for none.
		docs.set(0, errors.New("no quorum"))
		synctest.Wait()
		<-time.After(DefaultDelay)
		if r.Table() != nil {
			t.Fatal("there is a table although the documents could not be read")
		}
		docs.set(1, nil, all...)
		if err := r.Wait(ctx, 1); err != nil {
			t.Fatal(err)
		}
		<-r.First()
		// Many hints of a moment are one evaluation.
		reads := docs.reads()
		for i := range 10 {
			docs.set(int64(2+i), nil, append(all, link(predefined.Client, base))...)
		}
		if err := r.Wait(ctx, 11); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := docs.reads() - reads; n != 1 {
			t.Errorf("ten hints at once were %d reads", n)
		}
		if n := announced.Load(); n != 2 {
			t.Errorf("announced %d times, wanted twice: the beginning and the link", n)
		}
		// Documents that do not validate change nothing.
		docs.set(12, nil, append(all, link("No Such Policy", base))...)
		<-time.After(2 * DefaultDelay)
		if rev := r.Table().DocumentsRevision(); rev != 11 {
			t.Errorf("invalid documents were taken, the table is at revision %d", rev)
		}
		// Another view is taken up without a word of the store.
		current.Store(view(t, map[string]int{"a": 2}))
		changed <- struct{}{}
		<-time.After(2 * DefaultDelay)
		if a := r.Assignment(id("a", 1)); a.Policy != predefined.Client {
			t.Errorf("the new machine has %q", a.Policy)
		}
		a, err := r.Adopt(ctx, id("a", 0), 40, []byte("something else"))
		if err != nil || a.Revision != 41 {
			t.Errorf("a node at revision 40 is assigned %d, error %v", a.Revision, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the loop ended with %v", err)
		}
		if _, err := r.Adopt(t.Context(), id("a", 0), 99, nil); !errors.Is(err, ErrNotReady) {
			t.Errorf("a stopped resolver answered %v", err)
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	v := view(b, map[string]int{"a": 50_000, "b": 50_000})
	docs := documents(link(predefined.Client, base), link(predefined.Server, "ou=b,"+base))
	old := evaluate(v, docs, nil, nil, nil)
	for b.Loop() {
		next := evaluate(v, docs, nil, old, nil)
		if len(next.changedFrom(old)) != 0 {
			b.Fatal("something changed")
		}
	}
}
