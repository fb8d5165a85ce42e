package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// DefaultPrefix is where the controller's keys live; the version is that of their layout.
const DefaultPrefix = "/bailiwick/v1/"

// DefaultMaxOps is what an etcd server allows in one transaction unless it was configured otherwise.
const DefaultMaxOps = 128

// maxValue bounds one value, below the 1.5 MiB that etcd takes in one request.
const maxValue = 1 << 20

// Options are the properties of the etcd behind a Store. The zero value is good for an etcd with default settings.
type Options struct {
	// Prefix of all keys; empty means DefaultPrefix. It ends with a slash.
	Prefix string
	// MaxOps is the number of operations that the server allows in one transaction; 0 means DefaultMaxOps.
	MaxOps int
	// RereadInterval is how often a watcher is told to read again although nothing was announced; 0 means 30 s.
	RereadInterval time.Duration
	// Now dates the records of the journal; nil means time.Now.
	Now func() time.Time
}

// A Store is safe for concurrent use. It does not own the client.
type Store struct {
	client  *clientv3.Client
	prefix  string
	maxOps  int
	refresh time.Duration
	// fence is the revision of the claim that writes are made under; 0 without one.
	fence   atomic.Int64
	now     func() time.Time
	journal appender
	// intended is what this Store recorded and did not complete yet.
	intended intended
}

// New makes a Store over a client.
func New(client *clientv3.Client, o Options) *Store {
	s := &Store{client: client, prefix: o.Prefix, maxOps: o.MaxOps, refresh: o.RereadInterval, now: o.Now}
	if s.now == nil {
		s.now = time.Now
	}
	if s.prefix == "" {
		s.prefix = DefaultPrefix
	}
	if s.maxOps == 0 {
		s.maxOps = DefaultMaxOps
	}
	if s.refresh == 0 {
		s.refresh = 30 * time.Second
	}
	return s
}

// Ping asks the store for an answer that a quorum agrees on.
func (s *Store) Ping(ctx context.Context) error {
	if _, err := s.client.Get(ctx, s.prefix, clientv3.WithCountOnly()); err != nil {
		return fmt.Errorf("asking the store: %w", err)
	}
	return nil
}

func (s *Store) key(parts ...string) string { return s.prefix + strings.Join(parts, "/") }

// get reads one JSON value; the revision is that of its last change.
func get[T any](ctx context.Context, s *Store, what, key string) (value T, revision int64, err error) {
	resp, err := s.client.Get(ctx, key)
	if err != nil {
		return value, 0, fmt.Errorf("reading %s: %w", what, err)
	}
	if len(resp.Kvs) == 0 {
		return value, 0, fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	value, err = decode[T](what, resp.Kvs[0].Value)
	return value, resp.Kvs[0].ModRevision, err
}

func decode[T any](what string, text []byte) (value T, err error) {
	if err := json.Unmarshal(text, &value); err != nil {
		return value, fmt.Errorf("%s: %w: %w", what, ErrCorrupt, err)
	}
	return value, nil
}

// pageSize bounds one answer: 1,000 values of the largest kind that is listed fit a message many times.
const pageSize = 1000

// list reads all JSON values under a prefix, all at one revision of the store.
func list[T any](ctx context.Context, s *Store, what, prefix string, each func(value T, revision int64)) error {
	from, end, at := prefix, clientv3.GetPrefixRangeEnd(prefix), int64(0)
	for {
		resp, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(at))
		if err != nil {
			return fmt.Errorf("listing %s: %w", what, err)
		}
		at = resp.Header.Revision
		for _, kv := range resp.Kvs {
			var value T
			if err := json.Unmarshal(kv.Value, &value); err != nil {
				return fmt.Errorf("listing %s: key %q: %w: %w", what, kv.Key, ErrCorrupt, err)
			}
			each(value, kv.ModRevision)
		}
		if !resp.More {
			return nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

func encode(what string, value any) (string, error) {
	b, err := json.Marshal(value)
	if err != nil {
		return "", fmt.Errorf("encoding %s: %w", what, err)
	}
	if len(b) > maxValue {
		return "", fmt.Errorf("%s has %d octets, more than %d: %w", what, len(b), maxValue, ErrTooLarge)
	}
	return string(b), nil
}

// commit runs a transaction and tells a failed comparison as ErrConflict, and the loss of the claim as ErrNotWriter. All
// writes but the claim itself go through here.
func (s *Store) commit(ctx context.Context, what string, compare []clientv3.Cmp, ops []clientv3.Op) (int64, error) {
	fence := s.fence.Load()
	var otherwise []clientv3.Op
	if fence != 0 {
		compare = append(slices.Clip(compare), clientv3.Compare(clientv3.ModRevision(s.epochKey()), "=", fence))
		otherwise = []clientv3.Op{clientv3.OpGet(s.epochKey())}
	}
	if n := max(len(ops), len(compare)); n > s.maxOps {
		return 0, fmt.Errorf("%s takes %d operations, the store allows %d: apply it in parts, or raise --max-txn-ops of etcd and store.max-txn-ops: %w",
			what, n, s.maxOps, ErrTooLarge)
	}
	resp, err := s.client.Txn(ctx).If(compare...).Then(ops...).Else(otherwise...).Commit()
	if err != nil {
		if errors.Is(err, rpctypes.ErrRequestTooLarge) || errors.Is(err, rpctypes.ErrTooManyOps) {
			return 0, fmt.Errorf("%s: %w: %w", what, ErrTooLarge, err)
		}
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	if !resp.Succeeded {
		if fence != 0 {
			if epoch := resp.Responses[0].GetResponseRange().Kvs; len(epoch) == 0 || epoch[0].ModRevision != fence {
				return 0, fmt.Errorf("%s: %w", what, ErrNotWriter)
			}
		}
		return 0, fmt.Errorf("%s: %w", what, ErrConflict)
	}
	return resp.Header.Revision, nil
}

// watch tells on the returned channel that something under the prefix may have changed: at once, after each change,
// after each loss of the watch, and at the reread interval. Hints that are not yet taken are merged into one. The
// channel is closed when ctx ends. The goroutine belongs to ctx.
func (s *Store) watch(ctx context.Context, prefix string) <-chan struct{} {
	hints := make(chan struct{}, 1)
	hint := func() {
		select {
		case hints <- struct{}{}:
		default:
		}
	}
	go func() {
		defer close(hints)
		tick := time.NewTicker(s.refresh)
		defer tick.Stop()
		for ctx.Err() == nil {
			watching, stop := context.WithCancel(ctx)
			changes := s.client.Watch(watching, prefix, clientv3.WithPrefix())
			// The watch begins at some revision after this point: what changed before it is only seen by reading now.
			hint()
			for open := true; open; {
				select {
				case resp, ok := <-changes:
					open = ok && resp.Err() == nil
					hint()
				case <-tick.C:
					hint()
				case <-ctx.Done():
					open = false
				}
			}
			stop()
			// A watch that cannot be had is tried again at leisure; the reread interval bounds what is missed.
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}()
	return hints
}
