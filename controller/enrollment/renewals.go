package enrollment

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
)

// ErrTooOften is wrapped when a machine renews more often than it can need.
var ErrTooOften = errors.New("certificate is renewed too often")

// A machine may renew this many times in a row, and then once in the interval: answers get lost and daemons restart, but
// every certificate is journalled for good, and one machine must not fill the journal of the fleet.
const (
	renewalBurst    = 5
	renewalInterval = time.Minute
)

// renewals counts the renewals of each machine. It is safe for concurrent use, and holds no more machines than renewed
// within the time in which the whole burst comes back.
type renewals struct {
	mu sync.Mutex
	// full tells when the machine may use the whole burst again; a machine that may already is not held.
	full map[pki.UUID]time.Time
	// swept is when machines were last removed.
	swept time.Time
}

// take counts one renewal; the error wraps ErrTooOften when the machine has none left.
func (r *renewals) take(now time.Time, machine pki.UUID) error {
	const all = renewalBurst * renewalInterval
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full == nil {
		r.full = map[pki.UUID]time.Time{}
	}
	if since := now.Sub(r.swept); since >= all || since < 0 {
		for u, at := range r.full {
			// A clock that was set back must not lock a machine out.
			if !now.Before(at) || at.Sub(now) > all {
				delete(r.full, u)
			}
		}
		r.swept = now
	}
	next := now
	if at, ok := r.full[machine]; ok && at.After(now) {
		next = at
	}
	next = next.Add(renewalInterval)
	if over := next.Sub(now) - all; over > 0 {
		return fmt.Errorf("machine %v may renew again in %v: %w", machine, over.Round(time.Second), ErrTooOften)
	}
	r.full[machine] = next
	return nil
}
