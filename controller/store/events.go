package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A DirectoryEvent is something that happened to a directory, or that an administrator decided about one.
type DirectoryEvent struct {
	At     time.Time `json:"at"`
	Source string    `json:"source"`
	// Kind is a short word.
	Kind string `json:"kind"`
	// By is the administrator, "" for what came by itself.
	By string `json:"by,omitempty"`
	// Change is the held change that it is about, "" for none.
	Change string `json:"change,omitempty"`
	Text   string `json:"text"`
}

func (s *Store) eventKey(at time.Time, n int) string {
	// Padded, so that keys order as time does.
	return s.key("directory", "events", fmt.Sprintf("%020d-%04d", at.UnixNano(), n))
}

// maxEventNumber bounds how many events can have one time.
const maxEventNumber = 9999

// AppendDirectoryEvent adds an event. Events are only ever added, and removed when they are old: none is replaced.
func (s *Store) AppendDirectoryEvent(ctx context.Context, e DirectoryEvent) error {
	value, err := encode("directory event", e)
	if err != nil {
		return err
	}
	for n := range maxEventNumber {
		key := s.eventKey(e.At, n)
		_, err := s.commit(ctx, "recording a directory event",
			[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)}, []clientv3.Op{clientv3.OpPut(key, value)})
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("recording a directory event: %d have the time %s: %w", maxEventNumber, e.At.Format(time.RFC3339Nano), ErrConflict)
}

// DirectoryEvents returns the latest events, at most limit, the latest last. An empty source is every source.
func (s *Store) DirectoryEvents(ctx context.Context, source string, limit int) ([]DirectoryEvent, error) {
	from, to := s.key("directory", "events", ""), clientv3.GetPrefixRangeEnd(s.key("directory", "events", ""))
	var out []DirectoryEvent
	for at := int64(0); len(out) < limit; {
		resp, err := s.client.Get(ctx, from, clientv3.WithRange(to), clientv3.WithLimit(pageSize), clientv3.WithRev(at),
			clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
		if err != nil {
			return nil, fmt.Errorf("listing directory events: %w", err)
		}
		at = resp.Header.Revision
		for _, kv := range resp.Kvs {
			var e DirectoryEvent
			if err := json.Unmarshal(kv.Value, &e); err != nil {
				return nil, fmt.Errorf("listing directory events: key %q: %w: %w", kv.Key, ErrCorrupt, err)
			}
			if len(out) < limit && (source == "" || e.Source == source) {
				out = append(out, e)
			}
		}
		if !resp.More {
			break
		}
		to = string(resp.Kvs[len(resp.Kvs)-1].Key)
	}
	slices.Reverse(out)
	return out, nil
}

// PruneDirectoryEvents removes the events before a time, and tells how many also beside an error.
func (s *Store) PruneDirectoryEvents(ctx context.Context, before time.Time) (int, error) {
	return prune(ctx, s, "directory events", s.key("directory", "events", ""), func(e DirectoryEvent) bool { return e.At.Before(before) })
}
