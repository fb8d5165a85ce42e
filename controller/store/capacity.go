package store

import (
	"context"
	"errors"
	"fmt"
)

// Capacity is how much of its quota an etcd server uses, in octets. Past its quota it takes no writes.
type Capacity struct {
	Used int64
	// Quota is 0 where the server does not tell it.
	Quota int64
}

// Short reports whether less than a fifth is left.
func (c Capacity) Short() bool { return c.Quota > 0 && c.Used > c.Quota/5*4 }

// Capacity asks every server, and returns that of the fullest one that answered. It is an error when none did.
func (s *Store) Capacity(ctx context.Context) (Capacity, error) {
	endpoints := s.client.Endpoints()
	if len(endpoints) == 0 {
		endpoints = []string{""} // a server in this process has no address
	}
	var fullest Capacity
	var failed []error
	for _, e := range endpoints {
		status, err := s.client.Status(ctx, e)
		if err != nil {
			failed = append(failed, fmt.Errorf("asking the store for its size: %w", err))
			continue
		}
		if status.DbSize >= fullest.Used {
			fullest = Capacity{status.DbSize, status.DbSizeQuota}
		}
	}
	if len(failed) == len(endpoints) {
		return Capacity{}, errors.Join(failed...)
	}
	return fullest, nil
}
