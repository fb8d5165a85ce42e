package revocation

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

const (
	// DefaultListLifetime is how long a list is good for. It is made anew after half of that.
	DefaultListLifetime = 24 * time.Hour
	// DefaultResponseLifetime is how long an OCSP response is good for.
	DefaultResponseLifetime = time.Hour
)

var (
	// ErrNoList is wrapped when there is no such list.
	ErrNoList = errors.New("no such certificate revocation list")
	// ErrSilent is wrapped when the key of a CA did not sign in time.
	ErrSilent = errors.New("the key of the CA does not sign in time")
)

// Issuer is a CA as lists need it.
type Issuer interface {
	IssuerKeyID() pki.KeyID
	Issuing() *x509.Certificate
	SignCRL(list revocation.List) ([]byte, error)
}

// Responder signs OCSP responses for the CA that issued its certificate.
type Responder struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
}

// lists are the signed lists. A round is one number and one state; its lists are made when they are asked for, and those of
// the round before are given out until then.
type lists struct {
	sync.Mutex
	number   uint64 // 0 before the first round
	of       uint64 // the number of the state
	made     time.Time
	byScope  map[revocation.Scope]SignedList
	signing  map[revocation.Scope]*signature
	handed   map[string]handed // of roots that are kept off line, by their names in paths
	failed   error
	failedAt time.Time
}

// A signature is a list that is being signed, or was not. Exactly one exists of each scope, however many wait for it: a token
// that hangs holds one goroutine and not one for each stranger. The lists guard it.
type signature struct {
	done chan struct{} // closed when there is an outcome
	err  error         // why there was none so far
	at   time.Time     // of err
}

// A SignedList is a list as it is given away.
type SignedList struct {
	DER                    []byte
	Number                 uint64
	ThisUpdate, NextUpdate time.Time

	// entries are those of a list that was signed here, and round is the number of the last round of which it is known that its
	// list would have the same.
	entries []revocation.Entry
	round   uint64
}

// says reports whether a list has the same entries, in whatever order.
func (s SignedList) says(content revocation.List) bool {
	same := func(a revocation.Entry) bool {
		return slices.ContainsFunc(content.Entries, func(b revocation.Entry) bool {
			return a.Serial.Cmp(b.Serial) == 0 && a.At.Equal(b.At) && a.Reason == b.Reason
		})
	}
	return len(s.entries) == len(content.Entries) && !slices.ContainsFunc(s.entries, func(a revocation.Entry) bool { return !same(a) })
}

// good reports whether the list may still be given out.
func (s SignedList) good(now time.Time) bool { return s.DER != nil && now.Before(s.NextUpdate) }

// List returns the present list of a scope, or the one before while that is good and no new one can be made. The error wraps
// ErrNoList when it is of no issuer here.
func (k *Keeper) List(ctx context.Context, scope revocation.Scope) (SignedList, error) {
	issuer, root, ok := k.signer(scope)
	if !ok {
		return k.handedList(scope)
	}
	k.lists.Lock()
	present, wait, err := k.present(ctx, issuer, root, scope)
	k.lists.Unlock()
	if wait == nil {
		return present, err
	}
	// The list is everybody's: whoever asked first may have hung up.
	patience := time.NewTimer(signingTime)
	defer patience.Stop()
	select {
	case <-wait.done:
	case <-patience.C:
		k.notSigned(wait, scope, ErrSilent, false)
	}
	k.lists.Lock()
	defer k.lists.Unlock()
	// Whatever came of it, what is kept now is the best that there is.
	if kept := k.lists.byScope[scope]; kept.good(k.config.Now()) {
		return kept, nil
	}
	return SignedList{}, fmt.Errorf("signing the list %s: %w", scope.Path(), wait.err)
}

// present returns a list that can be given out at once, or the signature to wait for. The lists are locked.
func (k *Keeper) present(ctx context.Context, issuer Issuer, root bool, scope revocation.Scope) (SignedList, *signature, error) {
	l := &k.lists
	now, state := k.config.Now(), k.current.Load()
	var err error
	if l.number == 0 || l.of != state.number || now.Sub(l.made) >= k.config.ListLifetime/2 || now.Before(l.made) {
		err = k.begin(ctx, now, state)
	}
	kept := l.byScope[scope]
	age := now.Sub(kept.ThisUpdate) // below 0 once the clock was set back
	fresh := age >= 0 && age < k.config.ListLifetime/2
	switch {
	case kept.good(now) && kept.round == l.number && (kept.Number == l.number || fresh):
		return kept, nil, nil
	// A list of a round that could not be begun would hold what is newer than its number, or be over.
	case l.number == 0 || l.of != state.number || !now.Before(l.made.Add(k.config.ListLifetime)):
		if kept.good(now) {
			return kept, nil, nil
		}
		return SignedList{}, nil, fmt.Errorf("making the list %s: %w", scope.Path(), err)
	}
	present, before := l.signing[scope]
	if before {
		switch failedFor := now.Sub(present.at); {
		case present.at.IsZero():
			return SignedList{}, present, nil
		// It failed just now, or hangs still: whoever asks gets what there is at once.
		case failedFor >= 0 && failedFor < retrySigning || !ended(present):
			if kept.good(now) {
				return kept, nil, nil
			}
			return SignedList{}, nil, fmt.Errorf("signing the list %s: %w", scope.Path(), present.err)
		}
	}
	content := k.compose(issuer, scope, SignedList{Number: l.number, ThisUpdate: l.made, NextUpdate: l.made.Add(k.config.ListLifetime)}, state)
	// A root's key is opened for each signature, and what is revoked every day is not on its list.
	if root && !before && kept.good(now) && fresh && kept.says(content) {
		kept.round = l.number
		l.byScope[scope] = kept
		return kept, nil, nil
	}
	next := &signature{done: make(chan struct{})}
	l.signing[scope] = next
	go k.sign(issuer, scope, next, content)
	return SignedList{}, next, nil
}

func ended(s *signature) bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// sign signs a list, for as long as that takes, and keeps it.
func (k *Keeper) sign(issuer Issuer, scope revocation.Scope, s *signature, content revocation.List) {
	der, err := issuer.SignCRL(content)
	if err != nil {
		k.notSigned(s, scope, err, true)
		return
	}
	list := SignedList{DER: der, Number: content.Number, ThisUpdate: content.ThisUpdate, NextUpdate: content.NextUpdate, round: content.Number, entries: content.Entries}
	l := &k.lists
	l.Lock()
	if list.Number > l.byScope[scope].Number {
		l.byScope[scope] = list
	}
	delete(l.signing, scope)
	close(s.done)
	l.Unlock()
	k.health.signed(k, scope)
}

// notSigned keeps a failure and tells of it, unless the signature has come meanwhile, or another who waited for it has told that
// it does not. over says that it will not come.
func (k *Keeper) notSigned(s *signature, scope revocation.Scope, err error, over bool) {
	k.lists.Lock()
	if ended(s) || !over && !s.at.IsZero() {
		k.lists.Unlock()
		return
	}
	s.err, s.at = err, k.config.Now()
	if over {
		close(s.done)
	}
	kept := k.lists.byScope[scope]
	k.lists.Unlock()
	k.health.failed(k, scope, err, kept)
}

const (
	// signingTime is how long whoever asks for a list waits for its signature.
	signingTime = 5 * time.Second
	// retrySigning is how long a key that did not sign is left alone.
	retrySigning = 5 * time.Second
	// retryRound is how long a store that gave no number is left alone.
	retryRound = time.Second
	// roundWork bounds the wait for that number.
	roundWork = 5 * time.Second
)

// begin begins a round. The lists are locked.
func (k *Keeper) begin(ctx context.Context, now time.Time, state *state) error {
	l := &k.lists
	if l.failed != nil && now.Sub(l.failedAt) < retryRound && !now.Before(l.failedAt) {
		return l.failed
	}
	// Whoever asked may hang up, a stranger on purpose: the next round is everybody's, and must not end with that.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), roundWork)
	defer cancel()
	number, err := k.config.Store.NextCRLNumber(ctx)
	if err != nil {
		l.failed, l.failedAt = err, now
		k.config.Log.Error("no new certificate revocation lists can be made, the present ones are given out while they are good", "error", err)
		return err
	}
	l.number, l.of, l.made, l.failed = number, state.number, now.UTC().Truncate(time.Second), nil
	maps.DeleteFunc(l.byScope, func(_ revocation.Scope, s SignedList) bool { return !s.good(now) })
	return nil
}

// compose gathers what belongs into a list.
func (k *Keeper) compose(issuer Issuer, scope revocation.Scope, s SignedList, state *state) revocation.List {
	list := revocation.List{Number: s.Number, ThisUpdate: s.ThisUpdate, NextUpdate: s.NextUpdate}
	if !scope.Whole() {
		list.DistributionPoint = k.config.Pointers.Place(scope)
	}
	id := issuer.IssuerKeyID()
	for _, r := range state.records {
		if r.Serial == "" || r.Issuer != id {
			continue
		}
		// RFC 5280 3.3: an entry stays until it was on a list from after the certificate's end.
		if !r.NotAfter.IsZero() && s.ThisUpdate.After(r.NotAfter.Add(k.config.ListLifetime)) {
			continue
		}
		serial, ok := new(big.Int).SetString(r.Serial, 16)
		reason, err := revocation.ParseReason(r.Reason)
		if !ok || !scope.Contains(id, serial) {
			continue
		}
		if err != nil {
			reason = revocation.Unspecified // written by a newer version: revoked all the same
		}
		list.Entries = append(list.Entries, revocation.Entry{Serial: serial, At: r.At, Reason: reason})
	}
	return list
}

// signer is who signs the lists of a scope: a CA, or a root, which has no parts.
func (k *Keeper) signer(scope revocation.Scope) (by Issuer, root, ok bool) {
	named := func(i Issuer) bool { return revocation.IssuerName(i.IssuerKeyID()) == scope.Issuer }
	if issuer, ok := k.issuer(named); ok {
		return issuer, false, true
	}
	roots := k.config.Roots()
	if i := slices.IndexFunc(roots, named); i >= 0 && scope.Whole() {
		return roots[i], true, true
	}
	return nil, false, false
}

func (k *Keeper) issuer(is func(Issuer) bool) (Issuer, bool) {
	for _, i := range k.config.Issuers() {
		if is(i) {
			return i, true
		}
	}
	return nil, false
}
