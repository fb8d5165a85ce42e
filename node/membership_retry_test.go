package node

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// A machine that sleeps, and one whose clock was set, renews when its clock says so: its timers know nothing of either.
func TestRenewalFollowsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := member(t, catest.New(t))
		var slept atomic.Int64
		m.now = func() time.Time { return wallClock().Add(time.Duration(slept.Load())) }
		issuer := slowIssuer{asked: make(chan struct{})}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- m.renew(ctx, issuer, func() {}, hclog.NewNullLogger()) }()
		synctest.Wait()
		leaf := m.Credentials().Leaf()
		slept.Store(int64(leaf.NotAfter.Sub(leaf.NotBefore) * 3 / 4))
		begun := time.Now()
		<-issuer.asked
		if waited := time.Since(begun); waited > glance {
			t.Errorf("the renewal began %v after the clock said so, want at most %v", waited, glance)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestRenewalsThatFailedAreSpread(t *testing.T) {
	for _, c := range []struct {
		left   time.Duration
		jitter float64
		want   time.Duration
	}{
		{10 * 24 * time.Hour, 0, 12 * time.Hour},
		{10 * 24 * time.Hour, 0.5, 15 * time.Hour},
		{time.Minute, 0, time.Minute},
		{-time.Hour, 0, time.Minute}, // it has ended, and may still be renewed
		{-time.Hour, 0.5, 75 * time.Second},
	} {
		if got := retryAfter(c.left, c.jitter); got != c.want {
			t.Errorf("with %v left and jitter %v: %v, want %v", c.left, c.jitter, got, c.want)
		}
	}
}
