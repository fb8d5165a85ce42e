package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
)

// revocations are written as a whole, against a known state, with their history.
func revocations(t *testing.T, s *store.Store) {
	serial := store.Revocation{
		Serial: "0a1b", Issuer: pki.KeyID{1}, Key: pki.KeyID{2}, Block: true, Profile: "machine", Subject: "bailiwick://bank.example/machine/x",
		NotAfter: epoch.Add(time.Hour), Reason: "certificateHold", At: epoch, By: "root",
	}
	key := store.Revocation{Key: pki.KeyID{3}, Block: true, Reason: "keyCompromise", At: epoch, By: "root"}
	change := store.RevocationChange{Put: []store.Revocation{serial, key}, At: epoch, By: "root"}
	number, err := s.ChangeRevocations(t.Context(), change)
	if err != nil || number != 1 {
		t.Fatalf("the first change is number %d, error %v", number, err)
	}
	if _, err := s.ChangeRevocations(t.Context(), change); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a change against the state before: %v, wanted %v", err, store.ErrConflict)
	}
	all, err := s.Revocations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := store.Revocations{Number: 1, Records: []store.Revocation{serial, key}}
	if diff := cmp.Diff(want, all, cmpopts.IgnoreUnexported(store.Revocation{})); diff != "" {
		t.Errorf("revocations (-want +got):\n%s", diff)
	}
	if _, err := s.ChangeRevocations(t.Context(), store.RevocationChange{Base: 1}); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("a change of nothing: %v, wanted %v", err, store.ErrTooLarge)
	}
	if number, err = s.ChangeRevocations(t.Context(), store.RevocationChange{Base: 1, Release: []store.Revocation{serial}, At: epoch.Add(time.Minute), By: "eve"}); err != nil || number != 2 {
		t.Fatalf("the release is number %d, error %v", number, err)
	}
	events, err := s.RevocationEvents(t.Context())
	if err != nil || len(events) != 3 || !events[2].Released || events[2].By != "eve" || events[2].Number != 2 {
		t.Fatalf("events are %+v, error %v", events, err)
	}
	// What is over goes with its history; a key stays.
	if _, err := s.ChangeRevocations(t.Context(), store.RevocationChange{Base: 2, Put: []store.Revocation{serial}, At: epoch, By: "root"}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		before time.Time
		pruned int
	}{{epoch.Add(time.Hour), 0}, {epoch.Add(2 * time.Hour), 1}, {epoch.Add(3 * time.Hour), 0}} {
		if pruned, err := s.PruneRevocations(t.Context(), step.before); err != nil || pruned != step.pruned {
			t.Errorf("before %v pruned %d, error %v; wanted %d", step.before, pruned, err, step.pruned)
		}
	}
	all, err = s.Revocations(t.Context())
	if err != nil || len(all.Records) != 1 || all.Records[0].ID() != key.ID() || all.Number != 3 {
		t.Errorf("left are %+v, error %v", all, err)
	}
	if events, err = s.RevocationEvents(t.Context()); err != nil || len(events) != 1 {
		t.Errorf("left of the history are %+v, error %v", events, err)
	}
}

// crlNumbers are drawn once each, and none that was drawn before the time of a backup that the store comes back from.
func crlNumbers(t *testing.T, s *store.Store) {
	last := uint64(time.Now().Unix()) - 1
	for range 3 {
		got, err := s.NextCRLNumber(t.Context())
		if err != nil || got <= last {
			t.Errorf("the number is %d, error %v; wanted more than %d", got, err, last)
		}
		last = got
	}
}

// journalIndex finds certificates by subject and by key, also in a journal that was begun without an index, and forgets
// what is pruned.
func journalIndex(t *testing.T, s *store.Store) {
	for i := range 6 {
		err := s.Record(t.Context(), ca.Intention{
			Serial: fmt.Sprintf("%04x", i), Subject: fmt.Sprintf("bailiwick://bank.example/machine/%d", i%2), Key: pki.KeyID{byte(i % 3)}, NotAfter: epoch.Add(time.Duration(i) * time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	serials := func(entries []ca.Entry, err error) (out []string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, e.Intention.Serial)
		}
		return out
	}
	check := func(what string, got, want []string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("certificates of a machine", serials(s.IssuancesTo(t.Context(), "bailiwick://bank.example/machine/1")), []string{"0001", "0003", "0005"})
	check("of part of its name", serials(s.IssuancesTo(t.Context(), "bailiwick://bank.example/machine")), nil)
	check("certificates of a key", serials(s.IssuancesOf(t.Context(), pki.KeyID{2})), []string{"0002", "0005"})
	for range 2 {
		if err := s.IndexIssuances(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for beginning, want := range map[string][]string{
		"":                                    {"bailiwick://bank.example/machine/0", "bailiwick://bank.example/machine/1"},
		"bailiwick://bank.example/machine/":   {"bailiwick://bank.example/machine/0", "bailiwick://bank.example/machine/1"},
		"bailiwick://bank.example/machine/1":  nil, // a whole one, which nothing follows
		"bailiwick://bank.example/controller": nil,
	} {
		subjects, err := s.IssuedSubjects(t.Context(), beginning)
		if err != nil {
			t.Fatal(err)
		}
		check("subjects that begin with "+beginning, subjects, want)
	}
	page, more, err := s.IssuancePage(t.Context(), "0001", 3)
	check("page", serials(page, err), []string{"0002", "0003", "0004"})
	if !more {
		t.Error("the page says that it is the last")
	}
	page, more, err = s.IssuancePage(t.Context(), "0004", 3)
	check("last page", serials(page, err), []string{"0005"})
	if more {
		t.Error("the last page says that there are more")
	}
	if _, err := s.PruneIssuances(t.Context(), epoch.Add(4*time.Hour)); err != nil {
		t.Fatal(err)
	}
	check("of a machine after pruning", serials(s.IssuancesTo(t.Context(), "bailiwick://bank.example/machine/1")), []string{"0005"})
	check("of a key after pruning", serials(s.IssuancesOf(t.Context(), pki.KeyID{1})), []string{"0004"})
	if _, err := s.Issuance(t.Context(), "0001"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a pruned certificate: %v, wanted %v", err, store.ErrNotFound)
	}
}
