package enrollment

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

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

// As many wait as are answered in a few seconds.
func TestGateLetsWaitWhoIsAnsweredSoon(t *testing.T) {
	for needs, want := range map[time.Duration]int{10 * time.Millisecond: 20, time.Second: 1 + 1 + int(longestWait/time.Second), 10 * time.Second: 1 + 1} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(1, 20)
			work := func() error {
				leave, err := g.enter(t.Context())
				if err == nil {
					<-time.After(needs)
					leave()
				}
				return err
			}
			for range 100 { // until what is usual is known
				if err := work(); err != nil {
					t.Fatal(err)
				}
			}
			ended := make(chan error, 20)
			for range cap(ended) {
				go func() { ended <- work() }()
				synctest.Wait() // until it has its place
			}
			let := 0
			for range cap(ended) {
				switch err := <-ended; {
				case err == nil:
					let++
				case !errors.Is(err, ErrBusy):
					t.Errorf("who is sent away got %v", err)
				}
			}
			if let != want {
				t.Errorf("where one takes %v %d of 20 were let in, want %d", needs, let, want)
			}
		})
	}
}

// Who would have given up before the answer is sent away before anything is done, until it is faster again.
func TestGateSendsAwayWhoCannotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1, 1)
		work := func(patience, needs time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			leave, err := g.enter(ctx)
			if err == nil {
				<-time.After(needs)
				leave()
			}
			return err
		}
		for range 20 {
			if err := work(time.Minute, 10*time.Second); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		if err := work(5*time.Second, time.Second); !errors.Is(err, ErrBusy) || time.Since(start) > 0 {
			t.Errorf("who waits for less than it takes got %v after %v, want ErrBusy at once", err, time.Since(start))
		}
		if err := work(20*time.Second, 10*time.Second); err != nil {
			t.Errorf("who waits for longer than it takes got %v", err)
		}
		tries := 0
		for ; work(5*time.Second, time.Second) != nil; tries++ {
			if tries > 20 {
				t.Fatal("nobody is let in again")
			}
		}
		if len(g.working) != 0 || len(g.waiting) != 0 {
			t.Errorf("%d work and %d wait, want nobody", len(g.working), len(g.waiting))
		}
	})
}
