package enrollment

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrTooOften is wrapped when somebody asks more often than can be needed.
var ErrTooOften = errors.New("asked too often")

// The limits. None of them looks at the address of the caller: behind a load balancer, or a NAT, all have the same one.
const (
	// A machine may get this many certificates in a row, and then one in the interval, whichever way it asks: answers get
	// lost and daemons restart, but every certificate is journalled for good, and one machine must not fill the journal of
	// the fleet.
	machineBurst    = 5
	machineInterval = time.Minute
	// A join token may be presented this often. Only whoever has its secret is counted, so that nobody else can use up
	// what the machine may.
	tokenBurst    = 60
	tokenInterval = time.Second
	// All who have neither token nor certificate share one limit: their requests are read and their signatures checked.
	strangerBurst    = 200
	strangerInterval = 20 * time.Millisecond
)

// A meter counts what each of many may do: so much in a row, and then once in the interval. It is safe for concurrent
// use, and holds no more keys than were used within the time in which the whole burst comes back.
type meter[K comparable] struct {
	burst    int
	interval time.Duration

	mu sync.Mutex
	// full tells when a key may use the whole burst again; one that may already is not held.
	full map[K]time.Time
	// swept is when keys were last removed.
	swept time.Time
}

func newMeter[K comparable](burst int, interval time.Duration) *meter[K] {
	return &meter[K]{burst: burst, interval: interval, full: map[K]time.Time{}}
}

// take counts one use by who, called what; the error wraps ErrTooOften when none is left.
func (m *meter[K]) take(now time.Time, who K, what string) error {
	all := time.Duration(m.burst) * m.interval
	m.mu.Lock()
	defer m.mu.Unlock()
	if since := now.Sub(m.swept); since >= all || since < 0 {
		for k, at := range m.full {
			// A clock that was set back must not lock anybody out.
			if !now.Before(at) || at.Sub(now) > all {
				delete(m.full, k)
			}
		}
		m.swept = now
	}
	next := now
	if at, ok := m.full[who]; ok && at.After(now) {
		next = at
	}
	next = next.Add(m.interval)
	if over := next.Sub(now) - all; over > 0 {
		return fmt.Errorf("%s may ask again in %v: %w", what, max(over.Round(time.Second), time.Second), ErrTooOften)
	}
	m.full[who] = next
	return nil
}
