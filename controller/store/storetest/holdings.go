package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki"
)

// holdings are replaced as they were read, and go with their end, but for those of machines that are barred.
func holdings(t *testing.T, s *store.Store) {
	for i, barred := range []string{"", "keyCompromise"} {
		h := store.Holding{Machine: pki.UUID{byte(i)}, Serial: "a", NotAfter: epoch, Barred: barred}
		if err := s.PutHolding(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		if err := s.PutHolding(t.Context(), h); !errors.Is(err, store.ErrConflict) {
			t.Errorf("replacing what was not read gave %v, want ErrConflict", err)
		}
		read, err := s.Holding(t.Context(), h.Machine)
		if err != nil || read.Barred != barred {
			t.Errorf("read %+v, error %v", read, err)
		}
		if err := s.PutHolding(t.Context(), read); err != nil {
			t.Errorf("replacing what was read: %v", err)
		}
	}
	if n, err := s.PruneHoldings(t.Context(), epoch.Add(time.Second)); n != 1 || err != nil {
		t.Errorf("pruned %d, error %v; want one", n, err)
	}
	left, err := s.Holdings(t.Context())
	if err != nil || len(left) != 1 || left[0].Barred == "" {
		t.Errorf("left are %+v, error %v; want the one that is barred", left, err)
	}
}
