package revocation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/journal"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// health is whether lists can be signed.
type health struct {
	sync.Mutex
	failing  map[revocation.Scope]struct{}
	since    time.Time // of the first of them
	failures uint64
	recorded time.Time // when the journal was told of a failure
	pending  bool      // it is to be told of the end
}

func newHealth() health { return health{failing: map[revocation.Scope]struct{}{}} }

const (
	// recordAgain is how long the journal, which forgets nothing, is spared another record of a key that comes and goes.
	recordAgain = 10 * time.Minute
	// recordTime bounds the wait for a record.
	recordTime = 10 * time.Second
)

// failed tells of a list that was not signed.
func (h *health) failed(k *Keeper, scope revocation.Scope, err error, kept SignedList) {
	now := k.config.Now()
	h.Lock()
	h.failures++
	if len(h.failing) == 0 {
		h.since = now
	}
	h.failing[scope] = struct{}{}
	record := !h.pending && (h.recorded.IsZero() || now.Sub(h.recorded) >= recordAgain || now.Before(h.recorded))
	if record {
		h.recorded, h.pending = now, true
	}
	h.Unlock()
	k.config.Log.Error("a certificate revocation list cannot be signed, revocations count all the same for whoever has a session; the list before is given out while it is good",
		"list", scope.Path(), "good-until", kept.NextUpdate, "retry", retrySigning, "error", err)
	if record {
		k.journal(fmt.Sprintf("revocation lists cannot be signed, as %s: %v", scope.Path(), err))
	}
}

// signed tells of a list that was signed.
func (h *health) signed(k *Keeper, scope revocation.Scope) {
	h.Lock()
	_, before := h.failing[scope]
	delete(h.failing, scope)
	over := before && len(h.failing) == 0
	record := over && h.pending
	if over {
		h.since, h.pending = time.Time{}, false
	}
	h.Unlock()
	if over {
		k.config.Log.Info("certificate revocation lists are signed again", "list", scope.Path())
	}
	if record {
		k.journal("revocation lists are signed again")
	}
}

// A Health is whether lists can be signed, and how long those are good that were.
type Health struct {
	// Failing is how many lists could not be signed when that was tried last, and Since when the first of them was tried.
	Failing int
	Since   time.Time
	// Failures counts attempts.
	Failures uint64
	// Ends is when the whole list ends of each issuer that is given out and will be made again, by the name in its path.
	Ends map[string]time.Time
}

// Health tells of the lists.
func (k *Keeper) Health() Health {
	k.health.Lock()
	// Nobody signs for a CA that is retired.
	maps.DeleteFunc(k.health.failing, func(scope revocation.Scope, _ struct{}) bool {
		_, _, ok := k.signer(scope)
		return !ok
	})
	if len(k.health.failing) == 0 {
		// Nothing is signed again, so the journal is not told so; it is told of what fails next, in its own time.
		k.health.since, k.health.pending = time.Time{}, false
	}
	out := Health{Failing: len(k.health.failing), Since: k.health.since, Failures: k.health.failures, Ends: map[string]time.Time{}}
	k.health.Unlock()
	// The last list of a CA that is retired ends, and nobody is to do anything about it.
	k.lists.Lock()
	defer k.lists.Unlock()
	for _, issuer := range slices.Concat(k.config.Issuers(), k.config.Roots()) {
		scope := revocation.Whole(issuer.IssuerKeyID())
		if list, ok := k.lists.byScope[scope]; ok {
			out.Ends[scope.Issuer] = list.NextUpdate
		}
	}
	for _, root := range k.config.OfflineRoots() {
		id, err := pki.KeyIDOf(root.PublicKey)
		if h, ok := k.lists.handed[revocation.IssuerName(id)]; ok && err == nil {
			out.Ends[revocation.IssuerName(id)] = h.list.NextUpdate
		}
	}
	return out
}

// journal records something in the issuing journal. Nobody waits for it: a store that cannot be written is told elsewhere.
func (k *Keeper) journal(what string) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), recordTime)
		defer cancel()
		if err := k.config.Store.RecordEvent(ctx, journal.Event{Kind: "revocation", What: what}); err != nil {
			k.config.Log.Error("the issuing journal could not be told", "what", what, "error", err)
		}
	}()
}

// tendInterval is how often somebody looks whether a list is due, besides after every change.
const tendInterval = time.Minute

// TendLists makes the whole list of every issuer and root after every change and when it is due, and tries again what failed, until
// ctx ends: that a key does not sign is told before anybody asks for a list.
func (k *Keeper) TendLists(ctx context.Context) error {
	for {
		next := tendInterval
		for _, issuer := range slices.Concat(k.config.Issuers(), k.config.Roots()) {
			scope := revocation.Whole(issuer.IssuerKeyID())
			if _, err := k.List(ctx, scope); err != nil && ctx.Err() == nil {
				k.config.Log.Debug("a certificate revocation list cannot be made ahead", "list", scope.Path(), "error", err)
			}
		}
		if k.Health().Failing > 0 {
			next = retrySigning
		}
		wait := time.NewTimer(next)
		select {
		case <-k.tend:
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil
		}
		wait.Stop()
	}
}

// tendSoon asks for lists of what is in force now. It never blocks.
func (k *Keeper) tendSoon() {
	select {
	case k.tend <- struct{}{}:
	default:
	}
}
