package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/pki"
)

// A RequestState is what became of a request for a certificate that came without a token.
type RequestState string

// The states. An approved request is answered with a certificate whenever its key asks, until it ends.
//
//	pending -- approve --> approved
//	   '------ deny ----> denied
const (
	RequestPending  RequestState = "pending"
	RequestApproved RequestState = "approved"
	RequestDenied   RequestState = "denied"
)

// A JoinRequest is the record of a request for a certificate that somebody has to approve. The key to be certified
// names it: whoever asks again with the same key asks about the same request.
type JoinRequest struct {
	Key     pki.KeyID `json:"key"`
	Machine pki.UUID  `json:"machine"`
	// DNSName, MachineName and MachineDN are what the machine was called when the request came.
	DNSName     string `json:"dnsName"`
	MachineName string `json:"machineName"`
	MachineDN   string `json:"machineDN"`
	// From is the address that the request came from, and Via how: "node" or "est".
	From string `json:"from,omitempty"`
	Via  string `json:"via"`
	// Created and NotAfter bound its life, whatever its state.
	Created  time.Time    `json:"created"`
	NotAfter time.Time    `json:"notAfter"`
	State    RequestState `json:"state"`
	// Decided is when it was approved or denied, By who did that: a person, or the rule of the configuration.
	Decided time.Time `json:"decided,omitzero"`
	By      string    `json:"by,omitempty"`
	// Reason is what the person said.
	Reason string `json:"reason,omitempty"`

	// revision is that of the last change, 0 for a request that was not read from the store.
	revision int64
}

func (s *Store) joinRequestKey(k pki.KeyID) string { return s.key("requests", k.String()) }

func describeRequest(k pki.KeyID) string { return "request " + k.String()[:16] }

// CreateJoinRequest stores a new request; the error wraps ErrConflict where there is one of the same key.
func (s *Store) CreateJoinRequest(ctx context.Context, r JoinRequest) error {
	what := "storing " + describeRequest(r.Key)
	value, err := encode(what, r)
	if err != nil {
		return err
	}
	key := s.joinRequestKey(r.Key)
	_, err = s.commit(ctx, what,
		[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)},
		[]clientv3.Op{clientv3.OpPut(key, value)})
	return err
}

// JoinRequest reads one request.
func (s *Store) JoinRequest(ctx context.Context, k pki.KeyID) (JoinRequest, error) {
	r, revision, err := get[JoinRequest](ctx, s, describeRequest(k), s.joinRequestKey(k))
	r.revision = revision
	return r, err
}

// JoinRequests lists all requests, whatever their state, by key.
func (s *Store) JoinRequests(ctx context.Context) ([]JoinRequest, error) {
	var requests []JoinRequest
	err := list(ctx, s, "requests for certificates", s.key("requests", ""), func(r JoinRequest, revision int64) {
		r.revision = revision
		requests = append(requests, r)
	})
	return requests, err
}

// UpdateJoinRequest replaces a request that was read from the store, if it is still as it was read; else the error wraps
// ErrConflict.
func (s *Store) UpdateJoinRequest(ctx context.Context, r JoinRequest) error {
	what := "changing " + describeRequest(r.Key)
	if r.revision == 0 {
		return fmt.Errorf("%s, which was not read from the store: %w", what, ErrConflict)
	}
	value, err := encode(what, r)
	if err != nil {
		return err
	}
	key := s.joinRequestKey(r.Key)
	_, err = s.commit(ctx, what,
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", r.revision)},
		[]clientv3.Op{clientv3.OpPut(key, value)})
	return err
}

// DeleteJoinRequest removes a request that was read from the store, if it is still as it was read. That it is gone
// already is no error.
func (s *Store) DeleteJoinRequest(ctx context.Context, r JoinRequest) error {
	key := s.joinRequestKey(r.Key)
	_, err := s.commit(ctx, "removing "+describeRequest(r.Key),
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", r.revision)},
		[]clientv3.Op{clientv3.OpDelete(key)})
	if !errors.Is(err, ErrConflict) {
		return err
	}
	if _, readErr := s.JoinRequest(ctx, r.Key); errors.Is(readErr, ErrNotFound) {
		return nil
	}
	return err
}
