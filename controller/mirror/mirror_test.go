package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/guard"
)

// fakeSource delivers what the test puts in.
type fakeSource struct {
	reads  chan read
	closed chan struct{}
}

func newFakeSource() *fakeSource {
	return &fakeSource{make(chan read), make(chan struct{})}
}

func (f *fakeSource) Next(ctx context.Context) (*directory.Snapshot, error) {
	select {
	case r := <-f.reads:
		return r.snapshot, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *fakeSource) Status() directory.Status { return directory.Status{Kind: "fake"} }
func (f *fakeSource) Close() error             { close(f.closed); return nil }

// fakeStore keeps the accepted directory in memory.
type fakeStore struct {
	guarded struct {
		sync.Mutex
		accepted *store.AcceptedDirectory
		fails    error
		takes    time.Duration // of a write
		writes   int
	}
}

func (f *fakeStore) AcceptedDirectory(context.Context) (store.AcceptedDirectory, error) {
	f.guarded.Lock()
	defer f.guarded.Unlock()
	if f.guarded.accepted == nil {
		return store.AcceptedDirectory{}, store.ErrNotFound
	}
	return *f.guarded.accepted, nil
}

func (f *fakeStore) SetAcceptedDirectory(ctx context.Context, a store.AcceptedDirectory) error {
	f.guarded.Lock()
	f.guarded.writes++
	takes := f.guarded.takes
	f.guarded.Unlock()
	if takes > 0 {
		written := time.NewTimer(takes)
		defer written.Stop()
		select {
		case <-written.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.guarded.Lock()
	defer f.guarded.Unlock()
	if f.guarded.fails != nil {
		return f.guarded.fails
	}
	f.guarded.accepted = &a
	return nil
}

func (f *fakeStore) failWith(err error) {
	f.guarded.Lock()
	defer f.guarded.Unlock()
	f.guarded.fails = err
}

// tree is a directory of n machines in one OU.
func tree(t testing.TB, n int) *directory.Snapshot {
	t.Helper()
	b := directory.NewBuilder(directory.DN{})
	for i, text := range []string{"dc=bank,dc=example", "ou=All,dc=bank,dc=example"} {
		dn := directory.MustParseDN(text)
		b.Add(directory.Container{UUID: directory.UUID{0xff, byte(i)}, DN: dn, Kind: directory.KindOf(dn)})
	}
	for i := range n {
		name := fmt.Sprintf("m%d", i)
		b.Add(directory.Machine{UUID: directory.UUID{1, byte(i >> 8), byte(i)}, DN: directory.MustParseDN("cn=" + name + ",ou=All,dc=bank,dc=example"), Name: name})
	}
	s, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// play runs a mirror while the story is told.
func play(t *testing.T, c Config, story func(m *Mirror, source *fakeSource)) {
	t.Helper()
	source := newFakeSource()
	c.Source = source
	m, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	story(m, source)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("the mirror ended with %v", err)
	}
	<-source.closed
}

func TestErrorsAndMassChangesLeaveTheViewInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changes := 0
		play(t, Config{Store: &fakeStore{}, Changed: func() { changes++ }}, func(m *Mirror, source *fakeSource) {
			if m.View() != nil {
				t.Error("there is a view before the first read")
			}
			source.reads <- read{err: errors.New("no route")}
			synctest.Wait()
			if m.View() != nil {
				t.Error("an error made a view")
			}
			source.reads <- read{snapshot: tree(t, 100)}
			synctest.Wait()
			<-m.First()
			first := m.View()
			source.reads <- read{err: errors.New("no route")}
			source.reads <- read{snapshot: tree(t, 3)}
			synctest.Wait()
			if m.View() != first || changes != 1 {
				t.Errorf("after an error and a mass change the view changed, %d times in all", changes)
			}
			held := m.Status().Held
			if held == nil || held.Affected() != 97 {
				t.Fatalf("held is %v", held)
			}
			if _, err := m.Release(t.Context(), guard.ID{1}, "alice"); !errors.Is(err, guard.ErrOtherHeld) {
				t.Errorf("releasing another change gave %v", err)
			}
			// The directory comes back by itself: nothing is held any more.
			source.reads <- read{snapshot: tree(t, 100)}
			synctest.Wait()
			if m.Status().Held != nil {
				t.Error("what the directory took back is still held")
			}
			if _, err := m.Release(t.Context(), held.ID, "alice"); !errors.Is(err, guard.ErrNothingHeld) {
				t.Errorf("releasing what is not held gave %v", err)
			}
		})
	})
}

func TestVanishedMachinesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		play(t, Config{Store: &fakeStore{}, Grace: time.Hour}, func(m *Mirror, source *fakeSource) {
			source.reads <- read{snapshot: tree(t, 10)}
			source.reads <- read{snapshot: tree(t, 8)}
			synctest.Wait()
			if n := len(m.View().Vanished); n != 2 {
				t.Fatalf("%d machines vanished, wanted 2", n)
			}
			gone := directory.UUID{1, 0, 9}
			if _, vanished, ok := m.View().Machine(gone); !vanished || !ok {
				t.Error("a vanished machine is not found")
			}
			source.reads <- read{snapshot: tree(t, 9)}
			synctest.Wait()
			if n := len(m.View().Vanished); n != 1 {
				t.Errorf("one came back, but %d are vanished", n)
			}
			<-time.After(time.Hour + 2*persistDelay)
			synctest.Wait()
			if _, _, ok := m.View().Machine(gone); ok || len(m.View().Vanished) != 0 {
				t.Error("a vanished machine outlived its grace time")
			}
		})
	})
}

func TestViewOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{}
		play(t, Config{Store: s}, func(m *Mirror, source *fakeSource) {
			source.reads <- read{snapshot: tree(t, 50)}
			source.reads <- read{snapshot: tree(t, 48)}
			synctest.Wait()
		})
		play(t, Config{Store: s}, func(m *Mirror, source *fakeSource) {
			v := m.View()
			if v == nil || !v.Restored || v.Snapshot.Digest() != tree(t, 48).Digest() || len(v.Vanished) != 2 {
				t.Fatalf("restored is %+v", v)
			}
			// The guard compares with what was restored.
			source.reads <- read{snapshot: tree(t, 1)}
			synctest.Wait()
			if m.View() != v || m.Status().Held == nil {
				t.Error("after a restart a mass change was not held")
			}
			source.reads <- read{snapshot: tree(t, 48)}
			synctest.Wait()
			if m.View().Restored {
				t.Error("a confirmed view still counts as restored")
			}
		})
	})
}

// TestRestartKeepsWhatTheGuardKnows: what waits, what was refused, what was announced and what passed a while ago count on.
func TestRestartKeepsWhatTheGuardKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Config{Store: &fakeStore{}, Limits: guard.Limits{Share: 0.1, Floor: 1, Window: time.Minute}}
		var held guard.ID
		offers := func(m *Mirror, source *fakeSource, machines int) *guard.Held {
			source.reads <- read{snapshot: tree(t, machines)}
			synctest.Wait()
			return m.Status().Held
		}
		play(t, c, func(m *Mirror, source *fakeSource) {
			offers(m, source, 100)
			if h := offers(m, source, 92); h != nil {
				t.Fatalf("held: %s", h.Reason())
			}
		})
		play(t, c, func(m *Mirror, source *fakeSource) {
			h := offers(m, source, 86)
			if h == nil || h.Recent != 8 {
				t.Fatalf("after a restart the machines of before it do not count: %+v", h)
			}
			held = h.ID
		})
		<-time.After(time.Hour) // the window has moved on, but nobody decided
		play(t, c, func(m *Mirror, source *fakeSource) {
			if h := offers(m, source, 86); h == nil || h.ID != held || time.Since(h.Since) < time.Hour {
				t.Fatalf("a restart let pass what was held: %+v", h)
			}
			if err := m.Discard(t.Context(), held, "alice"); err != nil {
				t.Fatal(err)
			}
			if err := m.Raise(t.Context(), guard.Raise{Machines: 50, Until: time.Now().Add(time.Hour)}, "alice"); err != nil {
				t.Fatal(err)
			}
		})
		play(t, c, func(m *Mirror, source *fakeSource) {
			if h := offers(m, source, 86); h == nil || h.Discarded.IsZero() {
				t.Fatalf("a restart forgot that an administrator refused it: %+v", h)
			}
			if r := m.Status().Raised; r == nil || r.Machines != 50 {
				t.Fatalf("a restart forgot what an administrator announced: %+v", r)
			}
			if h := offers(m, source, 60); h != nil {
				t.Errorf("what was announced is held: %s", h.Reason())
			}
		})
		play(t, c, func(m *Mirror, source *fakeSource) {
			if r := m.Status().Raised; r != nil {
				t.Errorf("what was used up is announced again: %+v", r)
			}
			if h := offers(m, source, 40); h == nil {
				t.Error("one announcement let two changes pass")
			}
		})
	})
}

// TestDecisionsAreStoredAtOnce: whoever was told that it is done can rely on it, whatever becomes of the controller.
func TestDecisionsAreStoredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{}
		recorded := func() guard.Record {
			a, err := s.AcceptedDirectory(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r, err := guard.ParseRecord(a.Guard)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		play(t, Config{Store: s}, func(m *Mirror, source *fakeSource) {
			source.reads <- read{snapshot: tree(t, 100)}
			source.reads <- read{snapshot: tree(t, 50)}
			synctest.Wait()
			if err := m.Raise(t.Context(), guard.Raise{Machines: 1, Until: time.Now().Add(time.Hour)}, "alice"); err != nil {
				t.Fatal(err)
			}
			if r := recorded(); r.Raise == nil || r.Held == nil || !r.Held.Discarded.IsZero() {
				t.Errorf("recorded is %+v", r)
			}
			if err := m.Discard(t.Context(), m.Status().Held.ID, "alice"); err != nil {
				t.Fatal(err)
			}
			if r := recorded(); r.Held == nil || r.Held.Discarded.IsZero() {
				t.Errorf("recorded is %+v", r)
			}
			// What the directory took back waits no more, and a poll that finds nothing new writes nothing.
			source.reads <- read{snapshot: tree(t, 100)}
			<-time.After(2 * persistDelay)
			if r := recorded(); r.Held != nil {
				t.Errorf("recorded is %+v", r)
			}
			writes := s.guarded.writes
			source.reads <- read{snapshot: tree(t, 100)}
			<-time.After(2 * persistDelay)
			if s.guarded.writes != writes {
				t.Error("a directory that did not change was written again")
			}
		})
	})
}

func TestStoreThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{}
		s.failWith(errors.New("no quorum"))
		play(t, Config{Store: s}, func(m *Mirror, source *fakeSource) {
			source.reads <- read{snapshot: tree(t, 5)}
			<-time.After(3 * persistDelay)
			if m.View() == nil {
				t.Error("a store that fails keeps the directory from counting")
			}
			s.failWith(nil)
			<-time.After(2 * persistDelay)
			if _, err := s.AcceptedDirectory(t.Context()); err != nil {
				t.Errorf("after the store came back: %v", err)
			}
		})
		writes := s.guarded.writes
		if writes > 8 {
			t.Errorf("the store was written %d times for one change", writes)
		}
	})
}

func TestStoppedMirrorAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stopped *Mirror
		play(t, Config{Store: &fakeStore{}}, func(m *Mirror, _ *fakeSource) { stopped = m })
		if err := stopped.Discard(t.Context(), guard.ID{1}, "alice"); !errors.Is(err, ErrStopped) {
			t.Errorf("a stopped mirror answered %v", err)
		}
	})
}

func TestCorruptStateIsAnError(t *testing.T) {
	good, err := encode(&View{Snapshot: tree(t, 3)})
	if err != nil {
		t.Fatal(err)
	}
	for n := range good.Entries {
		s := &fakeStore{}
		cut := good
		cut.Entries = good.Entries[:n]
		if err := s.SetAcceptedDirectory(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
		if _, err := New(t.Context(), Config{Store: s, Source: newFakeSource()}); !errors.Is(err, store.ErrCorrupt) {
			t.Fatalf("the first %d of %d octets gave %v, wanted ErrCorrupt", n, len(good.Entries), err)
		}
	}
	s := &fakeStore{}
	good.Guard = []byte("{")
	if err := s.SetAcceptedDirectory(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), Config{Store: s, Source: newFakeSource()}); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("what cannot be read of the guard gave %v, wanted ErrCorrupt", err)
	}
}

func TestEncodingKeepsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := directory.NewBuilder(directory.DN{})
		base := directory.MustParseDN("dc=bank,dc=example")
		b.Add(directory.Container{UUID: directory.UUID{0xff}, DN: base, Kind: directory.KindOf(base)})
		name := rapid.StringMatching(`[a-zA-Z0-9 ,+"\\<>;=#äß漢]{1,12}x`)
		seen := map[string]bool{}
		var members []directory.DN
		for i := range rapid.IntRange(0, 20).Draw(t, "entries") {
			dn, err := base.Child("cn", name.Draw(t, "name"))
			if err != nil || seen[dn.Key()] {
				continue
			}
			seen[dn.Key()] = true
			uuid := directory.UUID{1, byte(i)}
			if rapid.Bool().Draw(t, "group") {
				b.Add(directory.Group{UUID: uuid, DN: dn, Name: dn.Name(), Members: append([]directory.DN{}, members...), RID: rapid.Uint32Max(1<<24-1).Draw(t, "rid")<<8 | uint32(i)}) // one of its own
				continue
			}
			members = append(members, dn)
			b.Add(directory.Machine{
				UUID: uuid, DN: dn, Name: fmt.Sprintf("m%d", i), DNSName: rapid.SampledFrom([]string{"", fmt.Sprintf("m%d.bank.example", i)}).Draw(t, "dns"),
				Disabled: rapid.Bool().Draw(t, "disabled"), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})},
			})
		}
		snapshot, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		view := &View{Snapshot: snapshot, Accepted: time.Unix(1e9, 0).UTC(), Vanished: map[directory.UUID]Vanished{}}
		for i := range rapid.IntRange(0, 3).Draw(t, "vanished") {
			m := directory.Machine{UUID: directory.UUID{2, byte(i)}, DN: base, Name: fmt.Sprintf("gone%d", i)}
			view.Vanished[m.UUID] = Vanished{Machine: m, Since: time.Unix(int64(i), 0).UTC(), Until: time.Unix(int64(i), 0).UTC().Add(time.Hour)}
		}
		accepted, err := encode(view)
		if err != nil {
			t.Fatal(err)
		}
		got, err := restore(accepted, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if got.Snapshot.Digest() != snapshot.Digest() || got.Snapshot.Digest() != accepted.Digest {
			t.Errorf("digest is %v, wanted %v", got.Snapshot.Digest(), snapshot.Digest())
		}
		if diff := cmp.Diff(view.Vanished, got.Vanished, cmp.Comparer(directory.DN.Equal)); diff != "" {
			t.Errorf("vanished (-want +got):\n%s", diff)
		}
	})
}
