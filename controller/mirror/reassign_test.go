package mirror

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/directory/guard"
)

// TestChangesOfGroupPolicyAreHeld has Group Policy take the policy from many machines: that is held, shown, refused and
// released as a change of the directory is, also over a restart.
func TestChangesOfGroupPolicyAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []EventKind
		c := Config{Store: &fakeStore{}, Tell: func(e Event) { told = append(told, e.Kind) }}
		var many []guard.Reassigned
		for m := range tree(t, 50).Machines() {
			many = append(many, guard.Reassigned{Machine: m, From: "Require", To: "none"})
		}
		reassign := func(m *Mirror, all []guard.Reassigned) (guard.Held, bool) {
			held, pass, err := m.Reassign(t.Context(), all)
			if err != nil {
				t.Fatal(err)
			}
			return held, pass
		}
		play(t, c, func(m *Mirror, source *fakeSource) {
			source.reads <- read{snapshot: tree(t, 100)}
			held, pass := reassign(m, many)
			if st := m.Status(); pass || st.HeldPolicy == nil || !st.Waits() || len(st.AllHeld()) != 1 || st.Counts.Held != 1 {
				t.Fatalf("pass %t, status %+v", pass, st)
			}
			// One of the directory waits beside it.
			source.reads <- read{snapshot: tree(t, 10)}
			synctest.Wait()
			if n := len(m.Status().AllHeld()); n != 2 {
				t.Errorf("%d changes wait, wanted 2", n)
			}
			if err := m.Discard(t.Context(), held.ID, "alice"); err != nil {
				t.Fatal(err)
			}
			if st := m.Status(); st.HeldPolicy.Discarded.IsZero() || !st.Held.Discarded.IsZero() {
				t.Error("another change was discarded than was named")
			}
			if _, err := m.Release(t.Context(), guard.ID{9}, "alice"); !errors.Is(err, guard.ErrOtherHeld) {
				t.Errorf("release of another: %v", err)
			}
		})
		play(t, c, func(m *Mirror, source *fakeSource) {
			if held, pass := reassign(m, many); pass || held.Discarded.IsZero() {
				t.Fatalf("after a restart: pass %t, %+v", pass, held)
			}
			released, err := m.Release(t.Context(), m.Status().HeldPolicy.ID, "alice")
			if err != nil || len(released.Reassigned) != 50 {
				t.Fatalf("release: %v", err)
			}
		})
		play(t, c, func(m *Mirror, source *fakeSource) {
			held, pass := reassign(m, many)
			if !pass {
				t.Fatal("a restart forgot what an administrator released")
			}
			if err := m.Apply(t.Context(), held); err != nil {
				t.Fatal(err)
			}
			if _, pass := reassign(m, many); pass || m.Status().HeldPolicy == nil {
				t.Error("one release let two changes pass")
			}
			if reassign(m, nil); m.Status().HeldPolicy != nil {
				t.Error("what Group Policy no longer says is still held")
			}
			if err := m.Raise(t.Context(), guard.Raise{Machines: 50, Until: time.Now().Add(time.Hour)}, "alice"); err != nil {
				t.Fatal(err)
			}
			if held, pass = reassign(m, many); !pass {
				t.Fatal("what was announced is held")
			}
			if err := m.Apply(t.Context(), held); err != nil || m.Status().Raised != nil {
				t.Errorf("the announcement outlives its change; %v", err)
			}
		})
		counts := map[EventKind]int{}
		for _, k := range told {
			counts[k]++
		}
		if counts[HeldBack] != 3 || counts[Discarded] != 1 || counts[Released] != 1 || counts[LetGo] != 1 || counts[LimitsRaised] != 1 || counts[Passed] != 1 {
			t.Errorf("told of %v", counts)
		}
	})
}

// TestGroupPolicyThatTurnsBack has Group Policy turn back, or say something smaller, after a restart: what waited before is told
// to be gone, and a release of it lets nothing pass later.
func TestGroupPolicyThatTurnsBack(t *testing.T) {
	for name, later := range map[string]int{"what is in force": 0, "something small": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var let []guard.ID
				c := Config{Store: &fakeStore{}, Tell: func(e Event) {
					if e.Kind == LetGo {
						let = append(let, e.ID)
					}
				}}
				var many []guard.Reassigned
				for m := range tree(t, 50).Machines() {
					many = append(many, guard.Reassigned{Machine: m, From: "Require", To: "none"})
				}
				var held guard.Held
				play(t, c, func(m *Mirror, source *fakeSource) {
					source.reads <- read{snapshot: tree(t, 100)}
					synctest.Wait()
					var err error
					if held, _, err = m.Reassign(t.Context(), many); err != nil {
						t.Fatal(err)
					}
					if _, err := m.Release(t.Context(), held.ID, "alice"); err != nil {
						t.Fatal(err)
					}
				})
				play(t, c, func(m *Mirror, source *fakeSource) {
					if _, pass, err := m.Reassign(t.Context(), many[:later]); !pass || err != nil {
						t.Fatalf("pass %t, %v", pass, err)
					}
				})
				if !slices.Equal(let, []guard.ID{held.ID}) {
					t.Errorf("told to be gone: %v, want %s alone", let, held.ID)
				}
				play(t, c, func(m *Mirror, source *fakeSource) {
					if _, pass, err := m.Reassign(t.Context(), many); pass || err != nil {
						t.Errorf("a release of before lets it pass: %t, %v", pass, err)
					}
				})
			})
		})
	}
}
