package distribute

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// nobody are assignments of no machine.
type nobody struct{ Assignments }

func (nobody) Disabled() []directory.UUID { return nil }

func (nobody) Members() map[string][]directory.UUID { return nil }

// Assignments change while a key is revoked. Whoever read the revocations before must not have the last word.
func TestRevocationIsNotLostToOlderDenials(t *testing.T) {
	after, err := trust.NewRevocations(1, nil, []pki.KeyID{{1}})
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Assignments: nobody{}}, nil)
	told := make(chan struct{})
	var readers atomic.Int32
	s.config.Revoked = func() trust.Revocations {
		if readers.Add(1) > 1 {
			return after
		}
		go func() {
			defer close(told)
			s.NotifyRevoked()
		}()
		// It waits for us, or is over before us.
		select {
		case <-told:
		case <-time.After(100 * time.Millisecond):
		}
		return trust.Revocations{}
	}
	s.Notify(nil)
	<-told
	if d := s.denied.Load(); d.revocations != 1 {
		t.Errorf("nodes are told of %d revocations, want 1", d.revocations)
	}
}
