package guard

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
)

// reassigned are the first n machines of the story's directory, with another policy.
func (s *story) reassigned(n int, to string) []Reassigned {
	s.Helper()
	var out []Reassigned
	for m := range s.guard.Applied().Machines() {
		if m.Name < fmt.Sprintf("m%03d", n) {
			out = append(out, Reassigned{m, "Require", to, "1"})
		}
	}
	if len(out) != n {
		s.Fatalf("%d machines of the %d", len(out), n)
	}
	return out
}

// reads offers a change of Group Policy and applies it if it may.
func (s *story) reads(all []Reassigned) (h Held, pass bool) {
	s.Helper()
	h, pass, _ = s.guard.Reassign(s.now, all)
	if pass && len(all) > 0 {
		s.guard.Apply(s.now, h)
	}
	return h, pass
}

// restarted replaces the guard by one that knows the record of it.
func (s *story) restarted() {
	s.Helper()
	r, err := ParseRecord(s.guard.Record().Append(nil))
	if err != nil {
		s.Fatal(err)
	}
	g, err := New(s.guard.limits, s.guard.Applied(), s.guard.containers...)
	if err != nil {
		s.Fatal(err)
	}
	if err := g.Restore(r); err != nil {
		s.Fatal(err)
	}
	s.guard = g
}

func TestReassignmentIsHeldAndReleased(t *testing.T) {
	s := tell(t, Default())
	s.admits(machines(100, "OU=A"))
	many := s.reassigned(11, "none")
	h, pass := s.reads(many)
	if pass || h.Affected() != 11 || h.Reason() != "11 of 100 machines are affected (another policy by Group Policy); 10 are allowed at once" {
		t.Fatalf("pass %t: %s", pass, h.Reason())
	}
	if many[0].String() != `m000: policy "none" instead of "Require"` || (Reassigned{From: "a", To: "a"}).String() != `: policy "a" says something else` {
		t.Errorf("told as %s", many[0])
	}
	// It stays held, whatever time passes, and whether or not there was a restart; another one is another one.
	for range 2 {
		s.now = s.now.Add(time.Hour)
		again, pass, fresh := s.guard.Reassign(s.now, many)
		if pass || fresh || again.ID != h.ID || !again.Since.Equal(h.Since) {
			t.Errorf("again: pass %t, fresh %t, %+v", pass, fresh, again)
		}
		s.restarted()
	}
	if other, pass, fresh := s.guard.Reassign(s.now, s.reassigned(11, "Request")); pass || !fresh || other.ID == h.ID {
		t.Errorf("another fate: pass %t, fresh %t, ID %s", pass, fresh, other.ID)
	}
	if s.guard.ReleasePolicy(h.ID) || s.guard.DiscardPolicy(s.now, h.ID) {
		t.Error("what waits no more was decided on")
	}
	s.reads(many)
	if !s.guard.DiscardPolicy(s.now, h.ID) {
		t.Fatal("what is held cannot be discarded")
	}
	s.restarted()
	if again, pass := s.reads(many); pass || again.Discarded.IsZero() {
		t.Errorf("what was refused: pass %t, %+v", pass, again)
	}
	if _, err := s.guard.Release(h.ID); !errors.Is(err, ErrNothingHeld) {
		t.Errorf("as a change of the directory: %v", err)
	}
	// Released it passes, once, and not instead of another one.
	if !s.guard.ReleasePolicy(h.ID) {
		t.Fatal("what is held cannot be released")
	}
	s.restarted()
	if _, pass := s.reads(many); !pass {
		t.Error("what was released is held")
	}
	if _, pass := s.reads(many); pass {
		t.Error("one release let two changes pass")
	}
	s.guard.ReleasePolicy(h.ID)
	if _, pass := s.reads(s.reassigned(12, "none")); pass {
		t.Error("a release let more pass than was shown")
	}
	if _, pass := s.reads(many); pass {
		t.Error("a release of before counts")
	}
	// What is gone waits no more.
	if _, pass := s.reads(nil); !pass {
		t.Error("nothing is held")
	}
	if _, ok := s.guard.HeldPolicy(); ok {
		t.Error("what Group Policy no longer says is still held")
	}
}

func TestReassignmentsCountWithChangesOfTheDirectory(t *testing.T) {
	s := tell(t, Default())
	f := machines(100, "OU=A")
	s.admits(f)
	if _, pass := s.reads(s.reassigned(6, "none")); !pass {
		t.Fatal("a small change is held")
	}
	// The same machines count once; others add up, whichever way they are changed.
	s.admits(f.with(6, "OU=B"))
	held := s.stops(f.with(11, "OU=B")).Held
	if held.Recent != 1 && held.Affected()+held.Recent != 11 {
		t.Errorf("held with %d and %d others", held.Affected(), held.Recent)
	}
	if h, pass := s.reads(s.reassigned(11, "none")); pass || h.Recent != 0 {
		t.Errorf("pass %t with %d others", pass, h.Recent)
	}
	// One that was announced passes, and uses that up.
	if err := s.guard.Raise(s.now, Raise{11, s.now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if h, pass, _ := s.guard.Reassign(s.now, s.reassigned(11, "Request")); !pass || !s.guard.Apply(s.now, h) {
		t.Error("what was announced is held, or used nothing up")
	}
	if _, ok := s.guard.Raised(s.now); ok {
		t.Error("the announcement outlives its change")
	}
}

func TestReassignmentInAContainerWithLimits(t *testing.T) {
	s := both(t)
	var below []Reassigned
	for m := range s.guard.Applied().Machines() {
		if m.DN.IsDescendantOf(directory.MustParseDN("ou=b,dc=bank,dc=example")) && len(below) < 2 {
			below = append(below, Reassigned{m, "Require", "none", ""})
		}
	}
	if h, pass := s.reads(below); pass || len(h.Exceeded) != 1 || h.Exceeded[0].Emptied {
		t.Errorf("pass %t: %s", pass, h.Reason())
	}
	if _, pass := s.reads(below[:1]); !pass {
		t.Error("what the container allows is held")
	}
}
