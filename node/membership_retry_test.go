package node

import (
	"testing"
	"time"
)

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
