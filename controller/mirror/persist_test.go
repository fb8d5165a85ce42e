package mirror

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/directory/guard"
)

func (f *fakeStore) take(d time.Duration) {
	f.guarded.Lock()
	defer f.guarded.Unlock()
	f.guarded.takes = d
}

// TestSlowStore gives a store minutes for one write: attempts that are cut off are told once and never taken for stored, and
// one with more time succeeds.
func TestSlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{}
		s.take(3 * time.Minute)
		var kinds []EventKind
		want := tree(t, 5)
		play(t, Config{Store: s, Tell: func(e Event) { kinds = append(kinds, e.Kind) }}, func(m *Mirror, source *fakeSource) {
			source.reads <- read{snapshot: want}
			<-time.After(2 * time.Minute)
			if m.Status().Unstored == "" {
				t.Error("a write that was cut off is not told")
			}
			if _, err := s.AcceptedDirectory(t.Context()); err == nil {
				t.Error("something was stored by a write that was cut off")
			}
			<-time.After(time.Hour)
			if a, err := s.AcceptedDirectory(t.Context()); err != nil || a.Digest != want.Digest() {
				t.Errorf("after an hour %v is stored: %v", a.Digest.Short(), err)
			}
			if st := m.Status(); st.Unstored != "" {
				t.Errorf("what was stored counts as not stored: %s", st.Unstored)
			}
			s.guarded.Lock()
			writes := s.guarded.writes
			s.guarded.Unlock()
			if writes != 4 { // of 30 s, 1 min, 2 min and 4 min
				t.Errorf("%d attempts, want 4", writes)
			}
		})
		if !slices.Equal(kinds, []EventKind{Unstored, Stored}) {
			t.Errorf("events %v, want one of each", kinds)
		}
	})
}

// TestReleaseWhileTheStoreHangs: an administrator is answered, the loop goes on, and what was released is stored when it can be.
func TestReleaseWhileTheStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{}
		play(t, Config{Store: s}, func(m *Mirror, source *fakeSource) {
			source.reads <- read{snapshot: tree(t, 50)}
			<-time.After(10 * time.Second)
			s.take(time.Hour)
			source.reads <- read{snapshot: tree(t, 49)}
			<-time.After(2 * persistDelay) // it is being stored
			source.reads <- read{snapshot: tree(t, 1)}
			synctest.Wait()
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			if _, err := m.Release(ctx, m.Status().Held.ID, "alice"); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(began); waited > 2*storeWait {
				t.Errorf("the administrator waited %v for the store", waited)
			}
			if _, err := m.Release(ctx, guard.ID{1}, "alice"); err == nil {
				t.Error("nothing is held, and it was released")
			}
			<-time.After(5 * time.Minute)
			if m.Status().Unstored == "" {
				t.Error("a store that hangs is not told")
			}
			s.take(0)
			<-time.After(time.Hour)
			if a, err := s.AcceptedDirectory(t.Context()); err != nil || a.Digest != tree(t, 1).Digest() {
				t.Errorf("what was released is not stored: %v, %v", a.Digest.Short(), err)
			}
		})
	})
}

// TestEndWhileStoring ends the mirror in the middle of a write: the last attempt stores all, and nobody is told of a failure.
func TestEndWhileStoring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{}
		s.take(3 * time.Second)
		var kinds []EventKind
		want := tree(t, 5)
		play(t, Config{Store: s, Tell: func(e Event) { kinds = append(kinds, e.Kind) }}, func(_ *Mirror, source *fakeSource) {
			source.reads <- read{snapshot: want}
			<-time.After(2 * persistDelay)
		})
		if a, err := s.AcceptedDirectory(t.Context()); err != nil || a.Digest != want.Digest() {
			t.Errorf("%v is stored: %v", a.Digest.Short(), err)
		}
		if s.guarded.writes != 2 || len(kinds) != 0 {
			t.Errorf("%d attempts, events %v; want 2 and none", s.guarded.writes, kinds)
		}
	})
}
