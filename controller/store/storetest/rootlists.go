package storetest

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki"
	issuing "github.com/bailiwick-net/bailiwick/pki/journal"
)

// rootLists are one of each root, replaced by whoever knows the one before, and the journal knows of each.
func rootLists(t *testing.T, s *store.Store) {
	first, other := store.RootList{Root: pki.KeyID{1}, DER: []byte("first")}, store.RootList{Root: pki.KeyID{2}, DER: []byte("other")}
	put := func(l store.RootList) error {
		return s.PutRootList(t.Context(), l, issuing.Event{Kind: "revocation", What: "list handed in", By: "anna"})
	}
	for _, l := range []store.RootList{first, other} {
		if err := put(l); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(first); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a list that knows nothing of the one before: %v, wanted %v", err, store.ErrConflict)
	}
	want := func(want ...store.RootList) []store.RootList {
		t.Helper()
		all, err := s.RootLists(t.Context())
		if diff := cmp.Diff(want, all, cmpopts.IgnoreFields(store.RootList{}, "Revision")); diff != "" || err != nil {
			t.Fatalf("error %v, lists (-want +got):\n%s", err, diff)
		}
		return all
	}
	next := want(first, other)[0]
	next.DER = []byte("second")
	if err := put(next); err != nil {
		t.Fatal(err)
	}
	want(next, other)
	if head, err := s.JournalHead(t.Context()); err != nil || head.Number != 3 {
		t.Errorf("the journal has the head %v, error %v; wanted 3 records", head, err)
	}
}
