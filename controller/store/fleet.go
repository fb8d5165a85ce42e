package store

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// fleet is what holds for all of it.
type fleet struct {
	TrustDomain string `json:"trustDomain"`
}

func (s *Store) fleetKey() string { return s.key("fleet") }

// TrustDomain reads the trust domain that the fleet was made with; the error wraps ErrNotFound before that.
func (s *Store) TrustDomain(ctx context.Context) (string, error) {
	f, _, err := get[fleet](ctx, s, "trust domain", s.fleetKey())
	return f.TrustDomain, err
}

// SetTrustDomain keeps the trust domain, once: the error wraps ErrConflict when there is one.
func (s *Store) SetTrustDomain(ctx context.Context, domain string) error {
	value, err := encode("trust domain", fleet{TrustDomain: domain})
	if err != nil {
		return err
	}
	_, err = s.commit(ctx, "keeping the trust domain",
		[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(s.fleetKey()), "=", 0)},
		[]clientv3.Op{clientv3.OpPut(s.fleetKey(), value)})
	return err
}

// Seed writes the documents if none were ever written, and reports whether it did.
func (s *Store) Seed(ctx context.Context, change DocumentChange) (bool, error) {
	docs, err := s.Documents(ctx)
	if err != nil {
		return false, err
	}
	// The head outlives the documents: a fleet whose documents were all deleted stays empty.
	if docs.Revision != 0 {
		return false, nil
	}
	if _, err := s.ChangeDocuments(ctx, 0, change); err != nil {
		return false, fmt.Errorf("writing the predefined documents: %w", err)
	}
	return true, nil
}
