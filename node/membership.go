package node

import (
	"context"
	"crypto"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// membership holds the present credentials: an immutable value behind a pointer, replaced by the renewal and by a new
// trust bundle, read by everybody.
type membership struct {
	*denials
	*groups
	store   identity.Store
	current atomic.Pointer[identity.Credentials]
	// writing is held by whoever replaces the credentials, from reading them to storing the new ones, so that neither a
	// renewal nor a trust bundle is lost to the other.
	writing sync.Mutex
	// hurry asks the renewal to be earlier; the latest wish counts.
	hurry chan time.Duration
	// now is the clock on the wall, without a monotonic reading, which stands still while the machine sleeps.
	now func() time.Time
}

// wallClock is the time of day alone (see membership.now).
func wallClock() time.Time { return time.Now().Round(0) }

// newMembership loads the credentials. A node with a local policy may have none.
func newMembership(store identity.Store, optional bool) (*membership, error) {
	denied, err := loadDenials(store.Dir())
	if err != nil {
		return nil, err
	}
	known, err := loadGroups(store.Dir())
	if err != nil {
		return nil, err
	}
	m := &membership{denials: denied, groups: known, store: store, hurry: make(chan time.Duration, 1), now: wallClock}
	credentials, err := store.Load()
	if err != nil && (!optional || !errors.Is(err, identity.ErrNotJoined)) {
		return nil, err
	}
	m.current.Store(&credentials)
	return m, nil
}

// Credentials are the present credentials.
func (m *membership) Credentials() identity.Credentials { return *m.current.Load() }

// Signer is the machine key; nil where the machine has none.
func (m *membership) Signer() crypto.Signer { return m.Credentials().Key }

// Trust is the present trust bundle.
func (m *membership) Trust() trust.Bundle { return m.Credentials().Trust }

// denied are whom not to believe.
func (m *membership) denied() trust.Denials {
	set, _ := m.Denials()
	return set
}

// SetTrust replaces the trust bundle, in memory and on disk. The new one must vouch for the controller's successor, not
// for the past: an older one is refused.
func (m *membership) SetTrust(bundle trust.Bundle) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	credentials := m.Credentials()
	if bundle.Digest() == credentials.Trust.Digest() {
		return nil
	}
	if bundle.Revision() < credentials.Trust.Revision() {
		return errors.New("trust bundle is older than the present one")
	}
	credentials.Trust = bundle
	if err := m.store.Save(credentials); err != nil {
		return err
	}
	m.current.Store(&credentials)
	return nil
}

// maxHurry bounds what a controller may spread renewals over.
const maxHurry = 24 * time.Hour

// RenewWithin asks for another certificate at a moment within the time that is drawn here, so that the machines of a fleet
// do not come at once.
func (m *membership) RenewWithin(within time.Duration) {
	wait := time.Duration(rand.Float64() * float64(min(max(within, 0), maxHurry)))
	select {
	case m.hurry <- wait:
	default: // one is asked for already
	}
}

// retryAfter is how long a renewal that failed waits for the next attempt: a twentieth of what is left of the certificate, but
// at least a minute, and up to half as much again, so that the machines of a fleet do not come back together after an outage.
// jitter is in [0,1).
func retryAfter(left time.Duration, jitter float64) time.Duration {
	wait := max(left/20, time.Minute)
	return wait + time.Duration(jitter*float64(wait)/2)
}

// glance is how often the clock is looked at while a renewal is not due. A timer stands still while the machine sleeps, and
// knows nothing of a clock that is set; a certificate ends all the same.
const glance = 5 * time.Minute

// renew replaces the certificate in time, until ctx ends. A failed attempt is repeated (retryAfter).
func (m *membership) renew(ctx context.Context, issuer identity.Issuer, renewed func(), log hclog.Logger) error {
	at := identity.RenewAt(m.Credentials().Leaf(), rand.Float64())
	// most, where not 0, is how far off at was when it was set: a clock that is set back must not put it off.
	var most time.Duration
	for {
		if now := m.now(); most > 0 && at.Sub(now) > most {
			at = now.Add(most)
		}
		timer := time.NewTimer(min(at.Sub(m.now()), glance))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case wait := <-m.hurry:
			timer.Stop()
			if hurried := m.now().Add(wait); hurried.Before(at) {
				at, most = hurried, wait
			}
			continue
		case <-timer.C:
			if m.now().Before(at) {
				continue
			}
		}
		credentials, err := m.renewNow(ctx, issuer)
		if err != nil {
			left := m.Credentials().Leaf().NotAfter.Sub(m.now())
			wait := retryAfter(left, rand.Float64())
			log.Error("machine certificate could not be renewed, the present one stays", "expires in", left.Round(time.Second), "retry", wait.Round(time.Second), "error", err)
			at, most = m.now().Add(wait), wait
			continue
		}
		renewed()
		m.tellKeyProblem(log)
		at, most = identity.RenewAt(credentials.Leaf(), rand.Float64()), 0
		log.Info("machine certificate was renewed", "serial", credentials.Leaf().SerialNumber.Text(16), "not after", credentials.Leaf().NotAfter, "key", identity.Where(credentials.Key))
	}
}

// answerTime is how long one attempt waits for a controller that took the request and says nothing. The agent may wait
// as long to store a trust bundle.
const answerTime = 10 * time.Second

// renewNow makes one attempt.
func (m *membership) renewNow(ctx context.Context, issuer identity.Issuer) (identity.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	m.writing.Lock()
	defer m.writing.Unlock()
	credentials, err := identity.Renew(ctx, m.now(), m.store, issuer, m.Credentials())
	if err != nil {
		return identity.Credentials{}, err
	}
	m.current.Store(&credentials)
	return credentials, nil
}
