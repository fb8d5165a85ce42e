package guard

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/directory"
)

// fleet is what a test says about a directory: machine name -> where it is ("" is gone), with "!" for disabled.
type fleet map[string]string

func machines(n int, in string) fleet {
	f := fleet{}
	for i := range n {
		f[fmt.Sprintf("m%03d", i)] = in
	}
	return f
}

// with returns a copy in which the first n machines are elsewhere.
func (f fleet) with(n int, in string) fleet {
	out := fleet{}
	for k, v := range f {
		out[k] = v
	}
	for i := range n {
		out[fmt.Sprintf("m%03d", i)] = in
	}
	return out
}

func uuid(name string) directory.UUID {
	var u directory.UUID
	copy(u[:], name+"................")
	return u
}

func (f fleet) snapshot(t interface{ Fatalf(string, ...any) }) *directory.Snapshot {
	base := directory.MustParseDN("dc=bank,dc=example")
	b := directory.NewBuilder(base)
	container := func(dn directory.DN) {
		b.Add(directory.Container{UUID: uuid(dn.Name()), DN: dn, Kind: directory.KindOf(dn)})
	}
	container(base)
	for _, ou := range []string{"OU=A", "OU=B", "CN=Plain"} {
		container(directory.MustParseDN(ou + ",dc=bank,dc=example"))
	}
	for name, in := range f {
		if in == "" {
			continue
		}
		in, disabled := strings.CutSuffix(in, "!")
		dn := directory.MustParseDN("cn=" + name + "," + in + ",dc=bank,dc=example")
		b.Add(directory.Machine{UUID: uuid(name), DN: dn, Name: name, Disabled: disabled})
	}
	s, err := b.Build()
	if err != nil {
		t.Fatalf("build: %v", err)
	}
	return s
}

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// story drives a guard; every step names what it wants.
type story struct {
	*testing.T
	guard *Guard
	now   time.Time
}

func tell(t *testing.T, l Limits) *story {
	t.Helper()
	g, err := New(l, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &story{T: t, guard: g, now: start}
}

func (s *story) admits(f fleet) Admitted {
	s.Helper()
	next := f.snapshot(s)
	d := s.guard.Offer(s.now, next)
	a, ok := d.(Admitted)
	if !ok {
		s.Fatalf("decision %#v, want admitted", d)
	}
	if s.guard.Applied() != next {
		s.Fatal("the admitted snapshot is not applied")
	}
	if _, held := s.guard.Held(); held {
		s.Fatal("something is still held")
	}
	return a
}

func (s *story) stops(f fleet) Stopped {
	s.Helper()
	before := s.guard.Applied()
	d := s.guard.Offer(s.now, f.snapshot(s))
	st, ok := d.(Stopped)
	if !ok {
		s.Fatalf("decision %#v, want stopped", d)
	}
	if s.guard.Applied() != before {
		s.Fatal("a stopped change was applied")
	}
	if h, held := s.guard.Held(); !held || h.ID != st.Held.ID {
		s.Fatal("the stopped change is not held")
	}
	return st
}

func TestLimits(t *testing.T) {
	for _, tc := range []struct {
		l        Limits
		machines int
		want     int
	}{
		{Default(), 0, 5}, {Default(), 5, 5}, {Default(), 50, 5}, {Default(), 60, 6}, {Default(), 69, 6}, {Default(), 100_000, 10_000},
		{Limits{Share: 0.1, Floor: 5, Ceiling: 100}, 100_000, 100}, {Limits{Share: 1, Ceiling: 3, Floor: 5}, 10, 3}, {Limits{Share: 0.01}, 10, 0},
	} {
		if got := tc.l.Allowed(tc.machines); got != tc.want {
			t.Errorf("%+v allows %d of %d, want %d", tc.l, got, tc.machines, tc.want)
		}
	}
	for _, l := range []Limits{{}, {Share: -1}, {Share: 1.1}, {Share: math.NaN()}, {Share: 0.1, Floor: -1}, {Share: 0.1, Ceiling: -1}, {Share: 0.1, Window: -1}} {
		if _, err := New(l, nil); !errors.Is(err, ErrLimits) {
			t.Errorf("New(%+v): %v, want ErrLimits", l, err)
		}
	}
}

func TestFirstSnapshotPassesUnlessEmpty(t *testing.T) {
	s := tell(t, Default())
	st := s.stops(fleet{})
	if !strings.Contains(st.Held.Reason(), "no machine") {
		t.Errorf("reason %q", st.Held.Reason())
	}
	s.admits(machines(100, "OU=A"))
}

func TestEmptyNeverPassesWithoutRelease(t *testing.T) {
	s := tell(t, Limits{Share: 1, Floor: 1000})
	s.admits(machines(3, "OU=A"))
	st := s.stops(fleet{})
	if _, err := s.guard.Release(st.Held.ID); err != nil {
		t.Fatal(err)
	}
	if _, m, _ := s.guard.Applied().Len(); m != 0 {
		t.Errorf("%d machines after the release, want none", m)
	}
}

func TestWhatCounts(t *testing.T) {
	f := machines(100, "OU=A")
	for name, tc := range map[string]struct {
		to      string
		harmful bool
	}{
		"removed":                {"", true},
		"moved to another OU":    {"OU=B", true},
		"moved out of all OUs":   {"CN=Plain", true},
		"disabled":               {"OU=A!", true},
		"moved and disabled too": {"OU=B!", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := tell(t, Default())
			s.admits(f)
			st := s.stops(f.with(11, tc.to))
			if st.Held.Affected() != 11 || st.Held.Allowed != 10 || !st.Fresh {
				t.Errorf("held %d affected, %d allowed, fresh %v; want 11, 10, true", st.Held.Affected(), st.Held.Allowed, st.Fresh)
			}
			s.admits(f.with(10, tc.to))
		})
	}
	t.Run("added", func(t *testing.T) {
		s := tell(t, Default())
		s.admits(machines(10, "OU=A"))
		s.admits(machines(1000, "OU=A"))
	})
	t.Run("within one scope", func(t *testing.T) {
		s := tell(t, Default())
		s.admits(machines(100, "CN=Plain"))
		// From a plain container to the domain itself: the same policy applies.
		b := directory.NewBuilder(directory.DN{})
		base := directory.MustParseDN("dc=bank,dc=example")
		b.Add(directory.Container{UUID: uuid("bank"), DN: base, Kind: directory.Domain})
		for i := range 100 {
			n := fmt.Sprintf("m%03d", i)
			b.Add(directory.Machine{UUID: uuid(n), DN: directory.MustParseDN("cn=" + n + ",dc=bank,dc=example"), Name: n})
		}
		next, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := s.guard.Offer(start, next).(Admitted); !ok {
			t.Errorf("decision %#v, want admitted", d)
		}
	})
}

func TestReleaseAdmitsExactlyWhatWasShown(t *testing.T) {
	s := tell(t, Default())
	f := machines(100, "OU=A")
	s.admits(f)
	if _, err := s.guard.Release(ID{}); !errors.Is(err, ErrNothingHeld) {
		t.Errorf("release of nothing: %v", err)
	}
	first := s.stops(f.with(20, ""))
	s.now = s.now.Add(time.Minute)
	// A harmless change beside it: still the same set, and it comes along.
	more := f.with(20, "")
	more["new"] = "OU=B"
	again := s.stops(more)
	if again.Held.ID != first.Held.ID || again.Fresh || !again.Held.Since.Equal(start) || !again.Held.Latest.Equal(s.now) {
		t.Errorf("the same set is held as %s (fresh %v, since %v), was %s", again.Held.ID, again.Fresh, again.Held.Since, first.Held.ID)
	}
	// One machine more, or another fate: another set; the old ID releases nothing.
	other := s.stops(f.with(21, ""))
	if other.Held.ID == first.Held.ID || !other.Fresh {
		t.Error("another set has the same ID")
	}
	fate := s.stops(f.with(20, "OU=B"))
	if fate.Held.ID == first.Held.ID {
		t.Error("another fate has the same ID")
	}
	if _, err := s.guard.Release(first.Held.ID); !errors.Is(err, ErrOtherHeld) || !strings.Contains(err.Error(), fate.Held.ID.String()) {
		t.Errorf("release of a set that is gone: %v", err)
	}
	s.stops(more)
	a, err := s.guard.Release(first.Held.ID)
	if err != nil || a.Released != first.Held.ID || len(a.Diff.Removed) != 20 || len(a.Diff.Added) != 1 {
		t.Fatalf("release: %v, %v", a.Diff, err)
	}
	if s.guard.Applied() != a.Snapshot {
		t.Error("the released snapshot is not applied")
	}
	if _, err := s.guard.Release(first.Held.ID); !errors.Is(err, ErrNothingHeld) {
		t.Errorf("a second release: %v", err)
	}
}

func TestRepairInTheDirectoryEndsTheHold(t *testing.T) {
	s := tell(t, Default())
	f := machines(100, "OU=A")
	s.admits(f)
	s.stops(f.with(50, ""))
	if d := s.guard.Offer(s.now, f.snapshot(t)); d != (Unchanged{}) {
		t.Errorf("decision %#v, want unchanged", d)
	}
	if _, held := s.guard.Held(); held {
		t.Error("the repaired change is still held")
	}
	s.stops(f.with(50, ""))
	s.admits(f.with(2, ""))
}

func TestDiscard(t *testing.T) {
	s := tell(t, Default())
	f := machines(100, "OU=A")
	s.admits(f)
	id := s.stops(f.with(50, "")).Held.ID
	if err := s.guard.Discard(s.now, ID{1}); !errors.Is(err, ErrOtherHeld) {
		t.Errorf("discard of another: %v", err)
	}
	if err := s.guard.Discard(s.now, id); err != nil {
		t.Fatal(err)
	}
	if st := s.stops(f.with(50, "")); st.Fresh || st.Held.Discarded.IsZero() {
		t.Error("a discarded set asks again")
	}
	if st := s.stops(f.with(51, "")); !st.Fresh || !st.Held.Discarded.IsZero() {
		t.Error("another set does not ask")
	}
	s.stops(f.with(50, ""))
}

func TestManySmallChangesAddUp(t *testing.T) {
	s := tell(t, Default())
	f := machines(100, "OU=A")
	s.admits(f)
	s.admits(f.with(6, "OU=B"))
	s.admits(f.with(6, "OU=A!")) // the same machines count once
	s.now = s.now.Add(9 * time.Minute)
	six := f.with(6, "OU=A!")
	next := fleet{}
	for k, v := range six {
		next[k] = v
	}
	for i := 50; i < 55; i++ {
		next[fmt.Sprintf("m%03d", i)] = "OU=B"
	}
	st := s.stops(next)
	if st.Held.Affected() != 5 || st.Held.Recent != 6 || !strings.Contains(st.Held.Reason(), "6 others") {
		t.Errorf("held: %s", st.Held.Reason())
	}
	// A harmless change passes, and what is held does not slip through when the window has moved on.
	s.now = s.now.Add(time.Hour)
	s.stops(next)
	six["new"] = "OU=A"
	s.admits(six)
	s.admits(next)
}

// TestGuardProperty: whatever is offered and released, the applied snapshot only ever changes by an admission, and no
// unreleased admission affects more than is allowed or empties the directory.
func TestGuardProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limits{Share: rapid.SampledFrom([]float64{0.1, 0.3, 1}).Draw(t, "share"), Floor: rapid.IntRange(0, 2).Draw(t, "floor")}
		g, err := New(l, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			before := g.Applied()
			if h, held := g.Held(); held && rapid.IntRange(0, 3).Draw(t, "act") == 0 {
				id := h.ID
				if rapid.Bool().Draw(t, "wrong") {
					id[0]++
					if _, err := g.Release(id); !errors.Is(err, ErrOtherHeld) || g.Applied() != before {
						t.Fatalf("release of an unknown set: %v", err)
					}
					continue
				}
				a, err := g.Release(id)
				if err != nil || g.Applied() != a.Snapshot || a.Diff.To != h.Diff.To {
					t.Fatalf("release: %v", err)
				}
				continue
			}
			f := fleet{}
			for i := range 6 {
				f[fmt.Sprintf("m%03d", i)] = rapid.SampledFrom([]string{"OU=A", "OU=A", "OU=B", "OU=A!", "CN=Plain", ""}).Draw(t, "fate")
			}
			next := f.snapshot(t)
			d := directory.NewDiff(before, next)
			considered, pass := g.Consider(start, next)
			if g.Applied() != before {
				t.Fatal("considering a change applied it")
			}
			decision := g.Offer(start, next)
			if st, stopped := decision.(Stopped); stopped == pass || stopped && (st.Held.ID != considered.ID || considered.Next() != next) {
				t.Fatalf("considered as pass=%t %v, decided as %#v", pass, considered.ID, decision)
			}
			switch dec := decision.(type) {
			case Unchanged:
				if !d.Empty() {
					t.Fatalf("%v counts as unchanged", d)
				}
			case Admitted:
				n := len(d.Removed)
				for _, c := range d.Changed {
					if c.Aspects.Has(Affecting) {
						n++
					}
				}
				if g.Applied() != next || d.NewMachines == 0 && d.OldMachines > 0 || n > l.Allowed(d.OldMachines) {
					t.Fatalf("%v was admitted by %+v", d, l)
				}
			case Stopped:
				if g.Applied() != before {
					t.Fatal("a stopped change was applied")
				}
				if !slices.EqualFunc(dec.Held.Removed, d.Removed, func(a, b directory.Machine) bool { return a.UUID == b.UUID }) {
					t.Fatal("the held change does not show what it removes")
				}
			}
		}
	})
}

func TestParseID(t *testing.T) {
	id := ID{1, 2, 254}
	if got, err := ParseID(id.String()); err != nil || got != id {
		t.Errorf("ParseID(%s) = %s, %v", id, got, err)
	}
	for _, bad := range []string{"", "zz", id.String()[1:], id.String() + "00"} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("ParseID(%q) succeeded", bad)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(ID{1, 2, 254}.String())
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil && !strings.EqualFold(id.String(), s) {
			t.Errorf("ParseID(%q) = %s", s, id)
		}
	})
}
