package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
)

// The issuing journal is indexed by subject and by key: empty values under names that end in the serial number. They are
// written and removed in the transactions that write and remove the entry.

func (s *Store) issuedToPrefix(subject string) string { return s.key("issued-to", subject, "") }

func (s *Store) issuedKeyPrefix(key pki.KeyID) string { return s.key("issued-key", key.String(), "") }

// indexKeys are the names under which an intention is found.
func (s *Store) indexKeys(i ca.Intention) []string {
	var keys []string
	if i.Subject != "" {
		keys = append(keys, s.issuedToPrefix(i.Subject)+i.Serial)
	}
	if !i.Key.IsZero() {
		keys = append(keys, s.issuedKeyPrefix(i.Key)+i.Serial)
	}
	return keys
}

// indexOps write the index of an intention.
func (s *Store) indexOps(i ca.Intention) []clientv3.Op {
	var ops []clientv3.Op
	for _, k := range s.indexKeys(i) {
		ops = append(ops, clientv3.OpPut(k, ""))
	}
	return ops
}

// Issuance reads one entry of the issuing journal.
func (s *Store) Issuance(ctx context.Context, serial string) (ca.Entry, error) {
	entry, _, err := get[ca.Entry](ctx, s, "certificate "+serial, s.issuanceKey(serial))
	return entry, err
}

// IssuancesTo lists the certificates of a subject, named by its identity URI, by serial number.
func (s *Store) IssuancesTo(ctx context.Context, subject string) ([]ca.Entry, error) {
	return s.indexed(ctx, s.issuedToPrefix(subject))
}

// IssuancesOf lists the certificates of a key, by serial number.
func (s *Store) IssuancesOf(ctx context.Context, key pki.KeyID) ([]ca.Entry, error) {
	return s.indexed(ctx, s.issuedKeyPrefix(key))
}

func (s *Store) indexed(ctx context.Context, prefix string) ([]ca.Entry, error) {
	var entries []ca.Entry
	err := s.names(ctx, prefix, func(serial string) error {
		e, err := s.Issuance(ctx, serial)
		if errors.Is(err, ErrNotFound) {
			return nil // pruned between the two reads
		}
		if err == nil {
			entries = append(entries, e)
		}
		return err
	})
	return entries, err
}

// names calls each with what follows the prefix in every key below it.
func (s *Store) names(ctx context.Context, prefix string, each func(string) error) error {
	from, end, at := prefix, clientv3.GetPrefixRangeEnd(prefix), int64(0)
	for {
		resp, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(pageSize), clientv3.WithRev(at))
		if err != nil {
			return fmt.Errorf("reading the index of the issuing journal: %w", err)
		}
		at = resp.Header.Revision
		for _, kv := range resp.Kvs {
			if err := each(strings.TrimPrefix(string(kv.Key), prefix)); err != nil {
				return err
			}
		}
		if !resp.More {
			return nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// IssuedSubjects lists the identity URIs of all that certificates were issued to and that begin like this, in ascending order.
func (s *Store) IssuedSubjects(ctx context.Context, beginning string) ([]string, error) {
	var subjects []string
	err := s.names(ctx, s.key("issued-to", beginning), func(name string) error {
		slash := strings.LastIndexByte(name, '/')
		if slash <= 0 {
			return nil
		}
		if subject := beginning + name[:slash]; len(subjects) == 0 || subjects[len(subjects)-1] != subject {
			subjects = append(subjects, subject)
		}
		return nil
	})
	return subjects, err
}

// IssuancePage lists up to limit entries whose serial numbers follow after, and reports whether there are more.
func (s *Store) IssuancePage(ctx context.Context, after string, limit int) (entries []ca.Entry, more bool, err error) {
	prefix := s.issuanceKey("")
	from := prefix
	if after != "" {
		from += after + "\x00"
	}
	resp, err := s.client.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithLimit(int64(limit)))
	if err != nil {
		return nil, false, fmt.Errorf("listing the issuing journal: %w", err)
	}
	for _, kv := range resp.Kvs {
		e, err := decode[ca.Entry]("entry of the issuing journal "+string(kv.Key), kv.Value)
		if err != nil {
			return nil, false, err
		}
		entries = append(entries, e)
	}
	return entries, resp.More, nil
}

// IndexIssuances writes the index of a journal that was begun without one. It does so once.
func (s *Store) IndexIssuances(ctx context.Context) error {
	done := s.key("issued-indexed")
	resp, err := s.client.Get(ctx, done, clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("looking for the index of the issuing journal: %w", err)
	}
	if resp.Count > 0 {
		return nil
	}
	const what = "writing the index of the issuing journal"
	entries, err := s.Issuances(ctx)
	if err != nil {
		return err
	}
	var ops []clientv3.Op
	flush := func() error {
		if len(ops) == 0 {
			return nil
		}
		_, err := s.commit(ctx, what, nil, ops)
		ops = nil
		return err
	}
	for _, e := range entries {
		if ops = append(ops, s.indexOps(e.Intention)...); len(ops) >= pruneBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	ops = append(ops, clientv3.OpPut(done, ""))
	return flush()
}
