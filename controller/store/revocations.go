package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/journal"
)

// A Revocation is the record of a certificate, or of a key, that must not be believed any more.
type Revocation struct {
	// Serial names the certificate, as in the issuing journal; it is empty where a key alone is revoked.
	Serial string `json:"serial,omitempty"`
	// Issuer is the key that signed the certificate.
	Issuer pki.KeyID `json:"issuer,omitzero"`
	// Key is the key of the certificate, or the key that is revoked.
	Key pki.KeyID `json:"key"`
	// Block says that the key is not believed in any other certificate either.
	Block bool `json:"block,omitempty"`
	// Profile, Subject and NotAfter are those of the certificate.
	Profile  string    `json:"profile,omitempty"`
	Subject  string    `json:"subject,omitempty"`
	NotAfter time.Time `json:"notAfter,omitzero"`
	// Reason is the CRLReason of RFC 5280 5.3.1, by its name there.
	Reason string `json:"reason"`
	// At is when it was revoked, By is who did it.
	At time.Time `json:"at"`
	By string    `json:"by"`
	// Automatic says that the state of the directory is the cause, and not a person.
	Automatic bool `json:"automatic,omitempty"`

	// revision is that of the last change, 0 for a record that was not read from the store.
	revision int64
}

// ID names the record: the serial number, or "key-" and the name of the key.
func (r Revocation) ID() string {
	if r.Serial == "" {
		return "key-" + r.Key.String()
	}
	return r.Serial
}

// A RevocationEvent is one line of the history of revocations. Events are only ever added, and removed when what they
// tell of is long over.
type RevocationEvent struct {
	// Number counts the changes of revocations; those of one change share it.
	Number uint64 `json:"number"`
	// Released says that a certificate was put on hold before and counts again.
	Released   bool       `json:"released,omitempty"`
	At         time.Time  `json:"at"`
	By         string     `json:"by"`
	Revocation Revocation `json:"revocation"`
}

// Revocations are all records as they were at one time.
type Revocations struct {
	// Number grows with every change; 0 before the first.
	Number  uint64
	Records []Revocation
}

// A RevocationChange is what one transaction does.
type RevocationChange struct {
	// Base is the number of the state that the change was worked out from.
	Base uint64
	// Put is added, or replaces the record of the same name. Release is removed.
	Put, Release []Revocation
	At           time.Time
	By           string
}

// MaxRevocationChange is how many records one change may have: the names of all fit into one event of the journal.
const MaxRevocationChange = 9

type revocationHead struct {
	Number uint64 `json:"number"`
}

func (s *Store) revocationKey(id string) string { return s.key("revocations", id) }

func (s *Store) revocationHeadKey() string { return s.key("revocation-head") }

// Revocations reads all records. The number may be older than the records, never newer: what is worked out from them
// fails on the next change rather than overwriting it.
func (s *Store) Revocations(ctx context.Context) (Revocations, error) {
	head, _, err := get[revocationHead](ctx, s, "the number of revocations", s.revocationHeadKey())
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Revocations{}, err
	}
	all := Revocations{Number: head.Number}
	err = list(ctx, s, "revocations", s.key("revocations", ""), func(r Revocation, revision int64) {
		r.revision = revision
		all.Records = append(all.Records, r)
	})
	return all, err
}

// ChangeRevocations applies a change as a whole and writes its history; the error wraps ErrConflict when somebody changed
// revocations since Base. It returns the new number.
func (s *Store) ChangeRevocations(ctx context.Context, c RevocationChange) (uint64, error) {
	what := "changing revocations"
	if n := len(c.Put) + len(c.Release); n == 0 || n > MaxRevocationChange {
		return 0, fmt.Errorf("%s: %d at once, wanted 1 to %d: %w", what, n, MaxRevocationChange, ErrTooLarge)
	}
	headKey := s.revocationHeadKey()
	head, revision, err := get[revocationHead](ctx, s, "the number of revocations", headKey)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	if head.Number != c.Base {
		return 0, fmt.Errorf("%s: they are at %d, the change was made for %d: %w", what, head.Number, c.Base, ErrConflict)
	}
	next := head.Number + 1
	text, err := encode(what, revocationHead{next})
	if err != nil {
		return 0, err
	}
	ops := []clientv3.Op{clientv3.OpPut(headKey, text)}
	event := func(r Revocation, released bool) error {
		value, err := encode(what, RevocationEvent{Number: next, Released: released, At: c.At, By: c.By, Revocation: r})
		if err != nil {
			return err
		}
		ops = append(ops, clientv3.OpPut(s.key("revocation-events", fmt.Sprintf("%016x", next), r.ID()), value))
		return nil
	}
	for _, r := range c.Put {
		value, err := encode(what, r)
		if err != nil {
			return 0, err
		}
		ops = append(ops, clientv3.OpPut(s.revocationKey(r.ID()), value))
		if err := event(r, false); err != nil {
			return 0, err
		}
	}
	for _, r := range c.Release {
		ops = append(ops, clientv3.OpDelete(s.revocationKey(r.ID())))
		if err := event(r, true); err != nil {
			return 0, err
		}
	}
	_, err = s.record(ctx, what, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(headKey), "=", revision)}, ops,
		journal.Record{Event: c.event()})
	if err != nil {
		return 0, err
	}
	return next, nil
}

// event is the change as the issuing journal tells of it.
func (c RevocationChange) event() *journal.Event {
	var what []string
	for _, r := range c.Put {
		what = append(what, r.ID()+" revoked for "+r.Reason)
	}
	for _, r := range c.Release {
		what = append(what, r.ID()+" released")
	}
	e := &journal.Event{Kind: "revocation", What: strings.Join(what, ", "), By: c.By}
	if all := slices.Concat(c.Put, c.Release); len(all) == 1 {
		e.Serial, e.Key = all[0].Serial, all[0].Key
	}
	return e
}

// RevocationEvents lists the history, the oldest first.
func (s *Store) RevocationEvents(ctx context.Context) ([]RevocationEvent, error) {
	var events []RevocationEvent
	err := list(ctx, s, "the history of revocations", s.key("revocation-events", ""), func(e RevocationEvent, _ int64) { events = append(events, e) })
	return events, err
}

// PruneRevocations removes the records, and the history, of certificates that ended before the given time. A revoked key
// is revoked for good.
func (s *Store) PruneRevocations(ctx context.Context, before time.Time) (int, error) {
	over := func(r Revocation) bool { return r.Serial != "" && !r.NotAfter.IsZero() && r.NotAfter.Before(before) }
	pruned, err := prune(ctx, s, "revocations of ended certificates", s.key("revocations", ""), over)
	_, historyErr := prune(ctx, s, "history of revocations of ended certificates", s.key("revocation-events", ""),
		func(e RevocationEvent) bool { return over(e.Revocation) })
	return pruned, errors.Join(err, historyErr)
}

// crlHead is the number of the last CRL.
type crlHead struct {
	Number uint64 `json:"number"`
}

// NextCRLNumber draws the number of the next CRLs: each is drawn once (RFC 5280 5.2.3 wants them to increase). It is at least
// the seconds of the Unix epoch, so that a store that comes back from a backup does not draw again what was drawn since.
func (s *Store) NextCRLNumber(ctx context.Context) (uint64, error) {
	key := s.key("crl-head")
	head, revision, err := get[crlHead](ctx, s, "the number of the last CRL", key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	head.Number = max(head.Number+1, uint64(max(0, s.now().Unix())))
	value, err := encode("the number of the next CRL", head)
	if err != nil {
		return 0, err
	}
	_, err = s.commit(ctx, "drawing the number of the next CRL",
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", revision)},
		[]clientv3.Op{clientv3.OpPut(key, value)})
	return head.Number, err
}
