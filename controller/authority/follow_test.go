package authority_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/controller/authority"
	"github.com/bailiwick-net/bailiwick/pki/slots"
)

// A step that was made although the store told an error is followed at the next hint, and told again until all know.
func TestStepWithoutAnAnswerIsFollowed(t *testing.T) {
	s := newSpace(t)
	f := &faulty{Store: s.store(), at: slices.Index(points, "activate: write the state"), after: true}
	config := s.config()
	config.Store = f
	k, err := authority.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	if err := finish(t, s, k); !errors.Is(err, errFault) {
		t.Fatalf("activating gave %v", err)
	}
	coming, ok := k.State().Coming()
	if !ok {
		t.Fatal("the controller knows of the step already")
	}
	told := 0
	k.OnChange(func(context.Context) error {
		if told++; told == 1 {
			return errFault
		}
		return nil
	})
	hints := make(chan struct{}, 3)
	for range cap(hints) {
		hints <- struct{}{}
	}
	close(hints)
	k.Follow(t.Context(), hints)
	if active := k.State().Active(); active.ID != coming.ID || active.Status != slots.Active {
		t.Errorf("%s is active, want %s, which was activated", active.ID, coming.ID)
	}
	if told != 2 {
		t.Errorf("those who depend on the CAs were told %d times, want twice: until it succeeded", told)
	}
	accounted(t, k, f, f.signed)
}

// hanging is a store that does not answer.
type hanging struct {
	authority.Store
	asked chan struct{}
}

func (h hanging) Authorities(ctx context.Context) (slots.State, int64, error) {
	if h.asked == nil {
		return h.Store.Authorities(ctx)
	}
	close(h.asked)
	<-ctx.Done()
	return slots.State{}, 0, ctx.Err()
}

// Who waits for a step that the store does not answer has a deadline of his own.
func TestStepBehindOneThatHangs(t *testing.T) {
	s := newSpace(t)
	h := &hanging{Store: s.store()}
	config := s.config()
	config.Store = h
	k, err := authority.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	h.asked = make(chan struct{})
	first, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := k.PrepareNext(first, authority.Preparation{})
		done <- err
	}()
	<-h.asked
	second, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.PrepareNext(second, authority.Preparation{}); !errors.Is(err, context.Canceled) {
		t.Errorf("the second step gave %v, want the end of its context", err)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the first step gave %v, want the end of its context", err)
	}
}
