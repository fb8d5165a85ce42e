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
	// And no more than this in the long run: all of a machine's certificates are named one by one when it is revoked, and what
	// every node can be told is bounded (trust.MaxRevocations). Certificates that came to nothing do not count.
	// A person who revokes them lets the count begin anew: whoever had the key may have used it up.
	machineHoard         = 24
	machineHoardInterval = 4 * time.Hour
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
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweepLocked(now)
	next, err := m.nextLocked(now, who, what)
	if err != nil {
		return err
	}
	m.full[who] = next
	return nil
}

// left reports whether who has a use left, as take does, and counts none.
func (m *meter[K]) left(now time.Time, who K, what string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweepLocked(now)
	_, err := m.nextLocked(now, who, what)
	return err
}

// all is how long it takes until the whole burst may be used again.
func (m *meter[K]) all() time.Duration { return time.Duration(m.burst) * m.interval }

func (m *meter[K]) sweepLocked(now time.Time) {
	all := m.all()
	if since := now.Sub(m.swept); since >= all || since < 0 {
		for k, at := range m.full {
			// A clock that was set back must not lock anybody out.
			if !now.Before(at) || at.Sub(now) > all {
				delete(m.full, k)
			}
		}
		m.swept = now
	}
}

// nextLocked is when the whole burst may be used again after one more use.
func (m *meter[K]) nextLocked(now time.Time, who K, what string) (time.Time, error) {
	next := now
	if at, ok := m.full[who]; ok && at.After(now) {
		next = at
	}
	next = next.Add(m.interval)
	if over := next.Sub(now) - m.all(); over > 0 {
		return time.Time{}, fmt.Errorf("%s may ask again in %v: %w", what, max(over.Round(time.Second), time.Second), ErrTooOften)
	}
	return next, nil
}
