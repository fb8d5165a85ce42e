package authority_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/authority"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/journal"
	"github.com/bailiwick-net/bailiwick/pki/slots"
)

// points are all writes of the story in their order: the making of a CA, an issuance, a rotation of root and issuing CA,
// another issuance, and the end of the first CA. A controller dies before and after each of them.
var points = []string{
	"make: intend the root", "make: record the root", "make: intend the issuing CA", "make: record the issuing CA", "make: write the state",
	"issue: intend", "issue: record",
	"prepare: intend the root", "prepare: record the root", "prepare: intend the issuing CA", "prepare: record the issuing CA",
	"prepare: intend the bridge", "prepare: record the bridge", "prepare: write the state",
	"activate: write the state",
	"issue with the next: intend", "issue with the next: record",
	"retire: write the state",
}

var errFault = errors.New("fault of the test")

// faulty is a store that fails at one write: before it does it, or after. It stays dead, as a process that was killed, or
// works again, as one whose disk was full for a moment.
type faulty struct {
	*store.Store
	at    int
	after bool
	stays bool

	writes int
	dead   bool
	// signed are the certificates that were signed, whether they could be recorded or not.
	signed [][]byte
}

func (f *faulty) write(do func() error) error {
	if f.dead {
		return errFault
	}
	f.writes++
	if f.writes-1 != f.at {
		return do()
	}
	f.dead = f.stays
	if f.after {
		if err := do(); err != nil {
			return err
		}
	}
	return errFault
}

func (f *faulty) Record(ctx context.Context, i ca.Intention) error {
	return f.write(func() error { return f.Store.Record(ctx, i) })
}

func (f *faulty) Complete(ctx context.Context, serial string, der []byte) error {
	f.signed = append(f.signed, der)
	return f.write(func() error { return f.Store.Complete(ctx, serial, der) })
}

func (f *faulty) PutAuthorities(ctx context.Context, s slots.State, revision int64, e journal.Event) error {
	return f.write(func() error { return f.Store.PutAuthorities(ctx, s, revision, e) })
}

func (f *faulty) Authorities(ctx context.Context) (slots.State, int64, error) {
	if f.dead {
		return slots.State{}, 0, errFault
	}
	return f.Store.Authorities(ctx)
}

// story plays the whole story over a store, until something fails.
func story(t *testing.T, s *space, f *faulty) error {
	config := s.config()
	config.Store = f
	k, err := authority.Open(t.Context(), config)
	if err != nil {
		return err
	}
	return finish(t, s, k)
}

// finish plays what is left of the story from wherever it is.
func finish(t *testing.T, s *space, k *authority.Keeper) error {
	if _, err := issue(t.Context(), s.now, k); err != nil {
		return err
	}
	state := k.State()
	if _, coming := state.Coming(); !coming && len(state.Slots) == 1 {
		if _, err := k.PrepareNext(t.Context(), authority.Preparation{Root: true}); err != nil {
			return err
		}
	}
	if _, coming := k.State().Coming(); coming {
		if _, err := k.Activate(t.Context(), nil, false, ""); err != nil {
			return err
		}
		if _, err := issue(t.Context(), s.now, k); err != nil {
			return err
		}
	}
	if first := k.State().Slots[0]; first.Status == slots.Superseded {
		if _, err := k.Retire(t.Context(), first.ID, true, ""); err != nil {
			return err
		}
	}
	return nil
}

func TestStoryHasThePoints(t *testing.T) {
	s := newSpace(t)
	f := &faulty{Store: s.store(), at: -1}
	if err := story(t, s, f); err != nil {
		t.Fatal(err)
	}
	if f.writes != len(points) {
		t.Errorf("the story writes %d times, the list has %d points", f.writes, len(points))
	}
}

// A controller that dies before or after any write, or whose write fails once, leaves a journal in which every signature is
// accounted for and no serial number is used twice, and its successor goes on from there to the end.
func TestFaultAtEveryPoint(t *testing.T) {
	for i, point := range points {
		for _, c := range []struct {
			name         string
			after, stays bool
		}{{"dies before", false, true}, {"dies after", true, true}, {"fails once", false, false}, {"fails once although it was done", true, false}} {
			t.Run(point+"/"+c.name, func(t *testing.T) {
				s := newSpace(t)
				f := &faulty{Store: s.store(), at: i, after: c.after, stays: c.stays}
				if err := story(t, s, f); !errors.Is(err, errFault) {
					t.Fatalf("the fault gave %v", err)
				}
				k := s.open()
				accounted(t, k, f, f.signed)
				if err := finish(t, s, k); err != nil {
					t.Fatalf("the successor: %v", err)
				}
				accounted(t, k, f, f.signed)
				state := k.State()
				if len(state.Slots) != 2 || state.Slots[0].Status != slots.Retired || state.Slots[1].Status != slots.Active {
					t.Errorf("the story ends with %d CAs", len(state.Slots))
				}
				if !believes(t, s.now, k.Trust(), mustIssue(t, s, k).Chain()) {
					t.Error("what is issued in the end is not believed")
				}
			})
		}
	}
}

// accounted audits the journal, and finds every certificate in it that was ever signed.
func accounted(t *testing.T, k *authority.Keeper, s authority.Store, signed [][]byte) {
	t.Helper()
	report, err := k.Audit(t.Context(), nil)
	if err != nil || len(report.Problems) > 0 {
		t.Fatalf("audit: %v, %q", err, report.Problems)
	}
	entries, err := s.Issuances(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, der := range signed {
		if !slices.ContainsFunc(entries, func(e ca.Entry) bool { return strings.Contains(string(der), string(e.Intention.TBS)) }) {
			t.Error("a certificate was signed whose intention is not in the journal")
		}
	}
	if want := len(signed); report.Certificates+report.Open < want {
		t.Errorf("%d certificates and %d intentions are accounted for, %d were signed", report.Certificates, report.Open, want)
	}
}

// The audit finds what somebody did to certificates or journal in the store.
func TestAuditFindsWhatWasChanged(t *testing.T) {
	entry := func(s *space, serial string) string { return s.prefix + "issuances/" + serial }
	for _, c := range []struct {
		name   string
		change func(t *testing.T, s *space, serial string)
		want   string
	}{
		{"nothing", func(*testing.T, *space, string) {}, ""},
		{"a certificate removed", func(t *testing.T, s *space, serial string) {
			if _, err := server.Client().Delete(t.Context(), entry(s, serial)); err != nil {
				t.Fatal(err)
			}
		}, "is in the journal and not in the store"},
		{"a certificate put in", func(t *testing.T, s *space, serial string) {
			got, err := server.Client().Get(t.Context(), entry(s, serial))
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(string(got.Kvs[0].Value), serial, "abc123")
			if _, err := server.Client().Put(t.Context(), entry(s, "abc123"), text); err != nil {
				t.Fatal(err)
			}
		}, "is in the store and not in the journal"},
		{"another end", func(t *testing.T, s *space, serial string) {
			if _, err := server.Client().Put(t.Context(), s.prefix+"journal/head", `{"number":1,"digest":"`+strings.Repeat("0", 64)+`"}`); err != nil {
				t.Fatal(err)
			}
		}, "but the head is stored as"},
		{"a record changed", func(t *testing.T, s *space, serial string) {
			key := s.prefix + "journal/records/" + fmt.Sprintf("%016x", 3)
			got, err := server.Client().Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := server.Client().Put(t.Context(), key, strings.Replace(string(got.Kvs[0].Value), "issuing-ca", "machine", 1)); err != nil {
				t.Fatal(err)
			}
		}, "record 3 or an earlier one was changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSpace(t)
			k := s.open()
			mustIssue(t, s, k)
			issued := mustIssue(t, s, k)
			head, err := s.store().JournalHead(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c.change(t, s, issued.Leaf.SerialNumber.Text(16))
			report, err := k.Audit(t.Context(), []journal.Head{head})
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case c.want == "" && len(report.Problems) > 0:
				t.Errorf("problems %q, want none", report.Problems)
			case c.want != "" && !strings.Contains(strings.Join(report.Problems, "\n"), c.want):
				t.Errorf("problems %q, want one that says %q", report.Problems, c.want)
			case c.want != "" && len(report.Problems) == 0:
				t.Error("nothing was found")
			}
		})
	}
}

// Clocks are set back and forth: the journal goes on in its own order, and nothing is issued outside the CA's validity.
func TestClockSteps(t *testing.T) {
	s := newSpace(t)
	k := s.open()
	mustIssue(t, s, k)
	for _, step := range []struct {
		to time.Duration
		ok bool
	}{{-4 * time.Minute, true}, {-time.Hour, false}, {400 * 24 * time.Hour, true}, {6 * 365 * 24 * time.Hour, false}, {0, true}} {
		s.now = epoch.Add(step.to)
		_, err := issue(t.Context(), s.now, k)
		if step.ok != (err == nil) || err != nil && !errors.Is(err, ca.ErrIssuerValidity) {
			t.Errorf("with the clock at %v issuing gave %v", step.to, err)
		}
	}
	report, err := k.Audit(t.Context(), nil)
	if err != nil || len(report.Problems) > 0 || report.Certificates != 6 {
		t.Errorf("audit: %+v, %v; want 6 certificates without a problem", report, err)
	}
}
