package revocation

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
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

// ErrNoList is wrapped when there is no such list.
var ErrNoList = errors.New("no such certificate revocation list")

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

// lists are the signed lists of the present round: one number, one state, made when they are asked for.
type lists struct {
	sync.Mutex
	number   uint64 // 0 before the first round
	of       uint64 // the number of the state
	made     time.Time
	byScope  map[revocation.Scope][]byte
	failed   error
	failedAt time.Time
}

// A SignedList is a list as it is given away.
type SignedList struct {
	DER                    []byte
	Number                 uint64
	ThisUpdate, NextUpdate time.Time
}

// List returns the present list of a scope. The error wraps ErrNoList when it is of no issuer here.
func (k *Keeper) List(ctx context.Context, scope revocation.Scope) (SignedList, error) {
	issuer, ok := k.issuer(func(i Issuer) bool { return revocation.IssuerName(i.IssuerKeyID()) == scope.Issuer })
	if !ok {
		return SignedList{}, fmt.Errorf("issuer %s: %w", scope.Issuer, ErrNoList)
	}
	l := &k.lists
	l.Lock()
	defer l.Unlock()
	now, state := k.config.Now(), k.current.Load()
	stale := l.number == 0 || l.of != state.number || now.Sub(l.made) >= k.config.ListLifetime/2 || now.Before(l.made)
	if stale {
		if err := k.begin(ctx, now, state); err != nil && (l.number == 0 || !now.Before(l.made.Add(k.config.ListLifetime))) {
			return SignedList{}, err
		}
	}
	signed := SignedList{Number: l.number, ThisUpdate: l.made, NextUpdate: l.made.Add(k.config.ListLifetime)}
	if signed.DER, ok = l.byScope[scope]; ok {
		return signed, nil
	}
	// A list that was not signed in its round, when no round can be begun, would hold what is newer than its number.
	if l.of != state.number {
		return SignedList{}, fmt.Errorf("making the list %s: %w", scope.Path(), l.failed)
	}
	var err error
	if signed.DER, err = issuer.SignCRL(k.compose(issuer, scope, signed, state)); err != nil {
		return SignedList{}, err
	}
	l.byScope[scope] = signed.DER
	return signed, nil
}

const (
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
	l.number, l.of, l.made, l.byScope, l.failed = number, state.number, now.UTC().Truncate(time.Second), map[revocation.Scope][]byte{}, nil
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

func (k *Keeper) issuer(is func(Issuer) bool) (Issuer, bool) {
	for _, i := range k.config.Issuers() {
		if is(i) {
			return i, true
		}
	}
	return nil, false
}
