package guard

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
)

// both are twenty machines in OU=A and four in OU=B, of which at most one may be touched.
func both(t *testing.T) *story {
	t.Helper()
	g, err := New(Limits{Share: 0.5, Floor: 5, Window: time.Minute}, nil,
		ContainerLimits{Container: directory.MustParseDN("ou=b,dc=bank,dc=example"), Share: 0.25})
	if err != nil {
		t.Fatal(err)
	}
	s := &story{T: t, guard: g, now: start}
	s.admits(machines(24, "OU=A").with(4, "OU=B"))
	return s
}

func TestContainerHasLimitsOfItsOwn(t *testing.T) {
	s := both(t)
	all := machines(24, "OU=A").with(4, "OU=B")
	held := s.stops(all.with(2, "OU=A")).Held
	if len(held.Exceeded) != 1 || held.Exceeded[0].Affected != 2 || held.Exceeded[0].Machines != 4 || held.Exceeded[0].Allowed != 1 || held.Exceeded[0].Emptied {
		t.Fatalf("exceeded %+v", held.Exceeded)
	}
	if want := `2 of 4 machines below "OU=B,dc=bank,dc=example" are affected; 1 are allowed at once`; !strings.EqualFold(held.Reason(), want) {
		t.Errorf("reason %q, want %q", held.Reason(), want)
	}
	s.guard.Offer(s.now, all.snapshot(s)) // as it was
	s.admits(all.with(1, "OU=A"))
	// One more within the window is one too many, though it comes alone.
	held = s.stops(all.with(2, "OU=A")).Held
	if len(held.Exceeded) != 1 || held.Exceeded[0].Affected != 1 {
		t.Fatalf("exceeded %+v", held.Exceeded)
	}
	if _, err := s.guard.Release(held.ID); err != nil {
		t.Fatal(err)
	}
}

func TestContainerIsNotEmptied(t *testing.T) {
	g, err := New(Limits{Share: 0.5, Floor: 5}, nil, ContainerLimits{Container: directory.MustParseDN("ou=b,dc=bank,dc=example"), Share: 1, Floor: 10})
	if err != nil {
		t.Fatal(err)
	}
	s := &story{T: t, guard: g, now: start}
	s.admits(machines(24, "OU=A").with(1, "OU=B"))
	held := s.stops(machines(24, "OU=A").with(1, "")).Held
	if len(held.Exceeded) != 1 || !held.Exceeded[0].Emptied || !strings.Contains(held.Reason(), "no machine would be left") {
		t.Errorf("held for %q", held.Reason())
	}
}

func TestLimitsOfContainersAreChecked(t *testing.T) {
	ou := directory.MustParseDN("ou=b,dc=bank,dc=example")
	for _, bad := range [][]ContainerLimits{
		{{Share: 0.1}}, {{Container: ou}}, {{Container: ou, Share: 2}}, {{Container: ou, Share: 0.1, Floor: -1}}, {{Container: ou, Share: 0.1}, {Container: ou, Share: 0.2}},
	} {
		if _, err := New(Default(), nil, bad...); !errors.Is(err, ErrLimits) {
			t.Errorf("%+v gave %v, want ErrLimits", bad, err)
		}
	}
	g, err := New(Default(), nil, ContainerLimits{Container: directory.MustParseDN("ou=nowhere,dc=bank,dc=example"), Share: 0.1})
	if err != nil {
		t.Fatal(err)
	}
	s := &story{T: t, guard: g, now: start}
	s.admits(machines(3, "OU=A"))
	if missing := g.Missing(); len(missing) != 1 || missing[0].Name() != "nowhere" {
		t.Errorf("missing %v, want the container that is not there", missing)
	}
}

func TestRaiseLetsOneChangePass(t *testing.T) {
	s := both(t)
	all := machines(24, "OU=A").with(4, "OU=B")
	for _, bad := range []Raise{{0, s.now.Add(time.Hour)}, {5, s.now}, {5, s.now.Add(MaxRaise + 1)}} {
		if err := s.guard.Raise(s.now, bad); !errors.Is(err, ErrLimits) {
			t.Errorf("raise %+v gave %v, want ErrLimits", bad, err)
		}
	}
	raise := func(n int) {
		t.Helper()
		if err := s.guard.Raise(s.now, Raise{n, s.now.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	raise(3)
	// A small change does not use it up, a larger one than announced is held.
	small := all.with(1, "OU=A")
	if a := s.admits(small); a.Raised {
		t.Error("a small change used the raise up")
	}
	s.stops(machines(24, "OU=B"))
	s.admits(small.with(2, "OU=B!").with(1, "OU=A"))
	if _, ok := s.guard.Raised(s.now); ok {
		t.Error("the raise outlives the change that it was for")
	}
	s.stops(machines(24, "OU=A"))
	// It ends by itself.
	s.guard.Offer(s.now, small.with(2, "OU=B!").with(1, "OU=A").snapshot(s)) // as it is
	raise(24)
	s.now = s.now.Add(time.Hour)
	s.stops(machines(24, "OU=A"))
	// And it never lets everything go.
	raise(24)
	s.stops(machines(24, ""))
}
