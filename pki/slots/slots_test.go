package slots_test

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/slots"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

var epoch = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

type fataler interface {
	Helper()
	Fatal(...any)
}

func slot(t fataler) slots.Slot {
	t.Helper()
	a, err := ca.Generate(epoch, ca.Config{TrustDomain: "bank.example"})
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.KeyIDOf(a.IssuingKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	return slots.Slot{ID: slots.IDOf(key), Root: a.Root.Raw, Issuing: a.Issuing.Raw, Key: "sealed", RootKey: "sealed"}
}

// Whatever steps are tried in whatever order: one CA issues; a CA issues only when the bundle had it before; one that is
// gone has no keys; the revision and the bundle change together.
func TestEveryWayKeepsTheInvariants(t *testing.T) {
	spare := make([]slots.Slot, 6)
	for i := range spare {
		spare[i] = slot(t)
	}
	rapid.Check(t, func(t *rapid.T) {
		state := slots.Begin(epoch, spare[0])
		trusted := map[string]bool{}
		made := 1
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			var next slots.State
			var err error
			id := rapid.SampledFrom(state.Slots).Draw(t, "slot").ID
			before, err := state.Bundle()
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range before.Intermediates() {
				trusted[c.Subject.CommonName] = true
			}
			switch step := rapid.SampledFrom([]string{"add", "request", "certify", "activate", "retire"}).Draw(t, "step"); step {
			case "add", "request":
				if made == len(spare) {
					continue
				}
				s := spare[made]
				if step == "request" {
					s.Issuing, s.Root, s.Request = nil, nil, []byte("csr")
				}
				if next, err = state.Add(epoch, s); err == nil {
					made++
				}
			case "certify":
				full := spare[0]
				for _, s := range spare {
					if s.ID == id {
						full = s
					}
				}
				next, err = state.Certify(epoch, id, slots.Certificates{Root: full.Root, Issuing: full.Issuing})
			case "activate":
				next, err = state.Activate(epoch, id)
			case "retire":
				next, err = state.Retire(epoch, id)
			}
			if err != nil {
				if !errors.Is(err, slots.ErrStep) {
					t.Fatalf("a step that cannot be taken gave %v", err)
				}
				continue
			}
			if err := next.Check(); err != nil {
				t.Fatal(err)
			}
			after, err := next.Bundle()
			if err != nil {
				t.Fatal(err)
			}
			if changed := before.Digest() != after.Digest(); changed != (next.Revision != state.Revision) || next.Revision < state.Revision {
				t.Fatalf("the bundle changed: %v, from revision %d to %d", changed, state.Revision, next.Revision)
			}
			if next.Active().ID != state.Active().ID {
				found := false
				for _, c := range before.Intermediates() {
					found = found || string(c.Raw) == string(next.Active().Issuing)
				}
				if !found {
					t.Fatal("a CA issues that was not trusted before")
				}
			}
			for _, s := range next.Slots {
				if s.Status == slots.Retired && (s.Key != "" || s.RootKey != "") {
					t.Fatal("a retired CA has keys")
				}
			}
			state = next
		}
	})
}

func TestRetiredSlotsAreForgottenInTheEnd(t *testing.T) {
	state := slots.Begin(epoch, slot(t))
	for range 12 {
		s := slot(t)
		next, err := state.Add(epoch, s)
		if err != nil {
			t.Fatal(err)
		}
		if state, err = next.Retire(epoch, s.ID); err != nil {
			t.Fatal(err)
		}
	}
	if len(state.Slots) != 9 {
		t.Errorf("%d slots, want the active one and 8 retired ones", len(state.Slots))
	}
}

// However many CAs are replaced: those that still count are trusted, whichever was retired stays known by its name, and the one
// that was retired last is described, although it was made long before the others.
func TestForgettingTakesNothingThatCounts(t *testing.T) {
	state := slots.Begin(epoch, slot(t))
	now, first := epoch, state.Active()
	var made []string
	for range 12 {
		now = now.Add(time.Hour)
		s := slot(t)
		made = append(made, s.ID)
		next, err := state.Add(now, s)
		if err != nil {
			t.Fatal(err)
		}
		former := next.Active().ID
		if next, err = next.Activate(now, s.ID); err != nil {
			t.Fatal(err)
		}
		if state = next; former == first.ID {
			continue // it counts to the end
		}
		if state, err = next.Retire(now, former); err != nil {
			t.Fatal(err)
		}
		bundle, err := state.Bundle()
		if err != nil {
			t.Fatal(err)
		}
		if n := len(bundle.Intermediates()); n != 2 {
			t.Fatalf("%d issuing CAs are trusted, want the active one and the first", n)
		}
	}
	state, err := state.Retire(now.Add(time.Hour), first.ID)
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := state.Slot(first.ID); !ok || s.Status != slots.Retired {
		t.Error("what was retired last is not described, because it was made first")
	}
	for _, id := range append(made, first.ID) {
		if !state.Knows(id) {
			t.Errorf("the CA %s is not known any more", id)
		}
	}
	if state.Knows("0123456789abcdef") {
		t.Error("a CA of another fleet is known")
	}
}

// A fleet that retires nothing comes to the bound of what nodes can be told. The step that would pass it is refused, and the state
// before is as good as it was.
func TestNoMoreCAsThanNodesCanBeTold(t *testing.T) {
	state, full := slots.Begin(epoch, slot(t)), false
	for range trust.MaxBundleCertificates {
		s := slot(t)
		next, err := state.Add(epoch, s)
		if full = errors.Is(err, slots.ErrStep); full {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if state, err = next.Activate(epoch, s.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := state.Bundle(); err != nil || !full {
		t.Fatalf("with %d CAs the next one was refused: %v, the bundle: %v", len(state.Slots), full, err)
	}
	state, err := state.Retire(epoch, state.Slots[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.Add(epoch, slot(t)); err != nil {
		t.Errorf("after one was retired: %v", err)
	}
}

func TestStatesThatAreNone(t *testing.T) {
	a, b := slot(t), slot(t)
	a.Status, b.Status = slots.Active, slots.Active
	for name, s := range map[string]slots.State{
		"nothing":           {},
		"two active":        {Slots: []slots.Slot{a, b}},
		"one twice":         {Slots: []slots.Slot{a, a}},
		"no certificate":    {Slots: []slots.Slot{{ID: "x", Status: slots.Active}}},
		"an unknown status": {Slots: []slots.Slot{a, {ID: "x", Status: "lost"}}},
	} {
		if err := s.Check(); !errors.Is(err, slots.ErrState) {
			t.Errorf("%s: %v, want ErrState", name, err)
		}
	}
}
