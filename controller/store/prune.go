package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// pruneBatch bounds one page that is read and one transaction that deletes.
const pruneBatch = 100

// prune deletes the values under a prefix that are over, page by page, and returns how many. A page is one transaction,
// in which every value is still what was read; where one is not, the page is left as it is. A value that cannot be read
// is never deleted: the pruning goes on, and the error tells of the first.
func prune[T any](ctx context.Context, s *Store, what, prefix string, over func(T) bool) (int, error) {
	return pruneIndexed(ctx, s, what, prefix, over, 0, func(T) []string { return nil })
}

// pruneIndexed is prune of values that have up to most index keys each, which go in the same transaction.
func pruneIndexed[T any](ctx context.Context, s *Store, what, prefix string, over func(T) bool, most int, index func(T) []string) (int, error) {
	batch := min(pruneBatch, (s.maxOps-1)/(1+most)) // one comparison is the claim's
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	pruned := 0
	var problem error
	for {
		resp, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(int64(max(1, batch))))
		if err != nil {
			return pruned, fmt.Errorf("listing %s: %w", what, err)
		}
		var compare []clientv3.Cmp
		var ops []clientv3.Op
		for _, kv := range resp.Kvs {
			var value T
			if err := json.Unmarshal(kv.Value, &value); err != nil {
				if problem == nil {
					problem = fmt.Errorf("removing %s: key %q: %w: %w", what, kv.Key, ErrCorrupt, err)
				}
				continue
			}
			if over(value) {
				compare = append(compare, clientv3.Compare(clientv3.ModRevision(string(kv.Key)), "=", kv.ModRevision))
				ops = append(ops, clientv3.OpDelete(string(kv.Key)))
				for _, k := range index(value) {
					ops = append(ops, clientv3.OpDelete(k))
				}
			}
		}
		if len(ops) > 0 {
			switch _, err := s.commit(ctx, "removing "+what, compare, ops); {
			case err == nil:
				pruned += len(compare)
			case problem == nil && errors.Is(err, ErrConflict):
				problem = err
			case !errors.Is(err, ErrConflict):
				return pruned, err
			}
		}
		if !resp.More {
			return pruned, problem
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}
