package store

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/pki/journal"
	"github.com/bailiwick-net/bailiwick/pki/slots"
)

func (s *Store) authoritiesKey() string { return s.key("authorities") }

// Authorities reads the CAs of the fleet, which every controller of it shares. Their keys are sealed, or only named. The
// revision is for PutAuthorities. Without any the error wraps ErrNotFound.
func (s *Store) Authorities(ctx context.Context) (slots.State, int64, error) {
	return get[slots.State](ctx, s, "the CAs of the fleet", s.authoritiesKey())
}

// PutAuthorities writes the CAs if they are still at the revision, 0 where there must be none yet; else the error wraps
// ErrConflict. The event goes into the journal in the same transaction, so that no step is without its record.
func (s *Store) PutAuthorities(ctx context.Context, state slots.State, revision int64, e journal.Event) error {
	value, err := encode("the CAs of the fleet", state)
	if err != nil {
		return err
	}
	key := s.authoritiesKey()
	_, err = s.record(ctx, "writing the CAs of the fleet",
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", revision)},
		[]clientv3.Op{clientv3.OpPut(key, value)}, journal.Record{Event: &e})
	return err
}

// WatchAuthorities hints that the CAs of the fleet may have changed; see the package comment.
func (s *Store) WatchAuthorities(ctx context.Context) <-chan struct{} {
	return s.watch(ctx, s.authoritiesKey())
}
