package store

import (
	"context"
	"errors"
	"fmt"
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
	err = s.record(ctx, what,
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
	return nil
}

// Complete implements ca.Journal: it keeps the certificate of a recorded intention.
func (s *Store) Complete(ctx context.Context, serial string, certificate []byte) error {
	what := "recording the certificate " + serial
	entry, revision, err := get[ca.Entry](ctx, s, "intention "+serial, s.issuanceKey(serial))
	if err != nil {
		return fmt.Errorf("%w: %w", ca.ErrJournal, err)
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
	err = s.record(ctx, what,
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", revision)},
		[]clientv3.Op{clientv3.OpPut(key, value)}, journal.Record{Certificate: &journal.Certificate{Serial: serial, Digest: journal.Sum(certificate)}})
	if err != nil {
		return fmt.Errorf("%w: %w", ca.ErrJournal, err)
	}
	return nil
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
