package enrollment

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
)

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2, 3)
		var leave []func()
		for range 2 {
			l, err := g.enter(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, l)
		}
		entered, gone := make(chan func(), 3), make(chan error, 1)
		giveUp, cancel := context.WithCancel(t.Context())
		for range 2 {
			go func() {
				l, err := g.enter(t.Context())
				if err != nil {
					t.Error(err)
				}
				entered <- l
			}()
		}
		go func() {
			_, err := g.enter(giveUp)
			gone <- err
		}()
		synctest.Wait()
		if _, err := g.enter(t.Context()); !errors.Is(err, ErrBusy) {
			t.Errorf("one more than may wait got %v, want ErrBusy", err)
		} else if code, _ := Code(err); code != codes.Unavailable {
			t.Errorf("its code is %v, want Unavailable: the caller tries again later", code)
		}
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up got %v", err)
		}
		for _, l := range leave {
			l()
		}
		(<-entered)()
		(<-entered)()
		if l, err := g.enter(t.Context()); err != nil {
			t.Errorf("the empty gate gave %v", err)
		} else {
			l()
		}
	})
}
