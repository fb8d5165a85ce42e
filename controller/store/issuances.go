package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/journal"
)

// Store is the journal of a CA that several replicas may share.
var _ ca.Journal = (*Store)(nil)

func (s *Store) issuanceKey(serial string) string { return s.key("issuances", serial) }

// Record implements ca.Journal: it keeps the intention durably, once per serial number.
func (s *Store) Record(ctx context.Context, intention ca.Intention) error {
	if intention.Serial == "" {
		return fmt.Errorf("intention without a serial number: %w", ca.ErrJournal)
	}
	what := "recording the intention " + intention.Serial
	value, err := encode(what, ca.Entry{Intention: intention})
	if err != nil {
		return fmt.Errorf("%w: %w", ca.ErrJournal, err)
	}
	key := s.issuanceKey(intention.Serial)
	revision, err := s.record(ctx, what,
		[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)},
		append([]clientv3.Op{clientv3.OpPut(key, value)}, s.indexOps(intention)...), journal.Record{Intention: &journal.Intention{
			Serial: intention.Serial, Issuer: intention.Issuer, Profile: intention.Profile, Subject: intention.Subject, Key: intention.Key,
			NotBefore: intention.NotBefore.UTC(), NotAfter: intention.NotAfter.UTC(), TBS: journal.Sum(intention.TBS),
		}})
	switch {
	case errors.Is(err, ErrConflict):
		return fmt.Errorf("serial number %s: %w: %w", intention.Serial, ca.ErrJournal, ca.ErrSerialRecorded)
	case err != nil:
		return fmt.Errorf("%w: %w", ca.ErrJournal, err)
	}
	s.intended.put(intention, revision)
	return nil
}

// Complete implements ca.Journal: it keeps the certificate of a recorded intention.
func (s *Store) Complete(ctx context.Context, serial string, certificate []byte) error {
	what := "recording the certificate " + serial
	var entry ca.Entry
	intention, revision, known := s.intended.take(serial)
	if entry.Intention = intention; !known {
		var err error
		if entry, revision, err = get[ca.Entry](ctx, s, "intention "+serial, s.issuanceKey(serial)); err != nil {
			return fmt.Errorf("%w: %w", ca.ErrJournal, err)
		}
	}
	if entry.Certificate != nil {
		return fmt.Errorf("certificate with the serial number %s is complete already: %w", serial, ca.ErrJournal)
	}
	entry.Certificate = certificate
	value, err := encode(what, entry)
	if err != nil {
		return fmt.Errorf("%w: %w", ca.ErrJournal, err)
	}
	key := s.issuanceKey(serial)
	_, err = s.record(ctx, what,
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", revision)},
		[]clientv3.Op{clientv3.OpPut(key, value)}, journal.Record{Certificate: &journal.Certificate{Serial: serial, Digest: journal.Sum(certificate)}})
	if err != nil {
		return fmt.Errorf("%w: %w", ca.ErrJournal, err)
	}
	return nil
}

// maxIntended bounds the intentions that are remembered.
const maxIntended = 1024

// intended remembers the intentions of a moment ago, with the revision of each, so that they need not be read back to be
// completed. Whoever writes compares the revision: what changed meanwhile is not overwritten. Its zero value is ready.
type intended struct {
	sync.Mutex
	bySerial map[string]intentionAt
}

type intentionAt struct {
	ca.Intention
	revision int64
}

func (i *intended) put(intention ca.Intention, revision int64) {
	i.Lock()
	defer i.Unlock()
	if i.bySerial == nil || len(i.bySerial) >= maxIntended {
		// Whatever was never completed goes with the rest: it can be read.
		i.bySerial = map[string]intentionAt{}
	}
	i.bySerial[intention.Serial] = intentionAt{intention, revision}
}

func (i *intended) take(serial string) (ca.Intention, int64, bool) {
	i.Lock()
	defer i.Unlock()
	found, ok := i.bySerial[serial]
	delete(i.bySerial, serial)
	return found.Intention, found.revision, ok
}

// Issuances lists the journal by serial number.
func (s *Store) Issuances(ctx context.Context) ([]ca.Entry, error) {
	var entries []ca.Entry
	err := list(ctx, s, "the issuing journal", s.key("issuances", ""), func(e ca.Entry, _ int64) { entries = append(entries, e) })
	return entries, err
}

// PruneIssuances removes the entries whose certificate ended before the given time, in batches. Intentions without a
// certificate count by the end of what may have been signed.
func (s *Store) PruneIssuances(ctx context.Context, before time.Time) (int, error) {
	return pruneIndexed(ctx, s, "ended entries of the issuing journal", s.key("issuances", ""), func(e ca.Entry) bool {
		// No certificate is valid beyond the intention's end, which is part of what is signed.
		return !e.Intention.NotAfter.IsZero() && e.Intention.NotAfter.Before(before)
	}, 2, func(e ca.Entry) []string { return s.indexKeys(e.Intention) })
}
