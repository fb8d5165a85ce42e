package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bailiwick-net/bailiwick/controller/store"
)

// secrets is the life of a record, and who is too late.
func secrets(t *testing.T, s *store.Store) {
	record := store.SecretRecord{
		Name: "branch", Kind: "psk", Key: "0011223344556677", Current: store.SealedSecret{Nonce: []byte{1}, Sealed: []byte{2, 3}},
		Previous: &store.SealedSecret{Nonce: []byte{4}, Sealed: []byte{5}, Until: epoch.Add(time.Hour)}, Changed: epoch, By: "root",
	}
	if err := s.PutSecret(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	if err := s.PutSecret(t.Context(), record); !errors.Is(err, store.ErrConflict) {
		t.Errorf("creating it again: %v, wanted %v", err, store.ErrConflict)
	}
	list, err := s.Secrets(t.Context())
	if err != nil || len(list) != 1 || list[0].Revision == 0 {
		t.Fatalf("listed are %+v, error %v", list, err)
	}
	if diff := cmp.Diff(record, list[0], cmpopts.IgnoreFields(store.SecretRecord{}, "Revision")); diff != "" {
		t.Errorf("the record changed on its way:\n%s", diff)
	}
	first := list[0]
	first.Kind = "ppk"
	if err := s.PutSecret(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := s.PutSecret(t.Context(), first); !errors.Is(err, store.ErrConflict) {
		t.Errorf("writing over a newer one: %v, wanted %v", err, store.ErrConflict)
	}
	if list, err = s.Secrets(t.Context()); err != nil || len(list) != 1 {
		t.Fatalf("listed are %+v, error %v", list, err)
	}

	// Whoever writes a document meanwhile may have begun to refer to it.
	documents, err := s.ChangeDocuments(t.Context(), 0, put(doc("Policy", "P", "text")))
	if err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string][2]int64{"an old document": {list[0].Revision, 0}, "an old secret": {first.Revision, documents}} {
		if err := s.DeleteSecret(t.Context(), "branch", at[0], at[1]); !errors.Is(err, store.ErrConflict) {
			t.Errorf("deleting by %s: %v, wanted %v", name, err, store.ErrConflict)
		}
	}
	if err := s.DeleteSecret(t.Context(), "branch", list[0].Revision, documents); err != nil {
		t.Fatal(err)
	}
	if list, err = s.Secrets(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("listed are %+v, error %v, wanted none", list, err)
	}
}
