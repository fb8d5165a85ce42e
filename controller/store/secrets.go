package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A SecretRecord is a named secret as it is stored: sealed, under a key that is not in the store.
type SecretRecord struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Key names the key that sealed it, without telling anything about it.
	Key     string       `json:"key"`
	Current SealedSecret `json:"current"`
	// Previous is the value before, accepted until the time in it; nil without one.
	Previous *SealedSecret `json:"previous,omitempty"`
	Changed  time.Time     `json:"changed"`
	By       string        `json:"by,omitempty"`

	// Revision is that of the last change, 0 for a record that was not read from the store.
	Revision int64 `json:"-"`
}

// A SealedSecret is one value, encrypted and authenticated together with its name and circumstances.
type SealedSecret struct {
	Nonce  []byte    `json:"nonce"`
	Sealed []byte    `json:"sealed"`
	Until  time.Time `json:"until,omitzero"`
}

const secretsFolder = "secrets"

func (s *Store) secretKey(name string) string { return s.key(secretsFolder, name) }

// Secrets lists all records by name.
func (s *Store) Secrets(ctx context.Context) ([]SecretRecord, error) {
	var records []SecretRecord
	var misplaced error
	err := list(ctx, s, "secrets", s.key(secretsFolder, ""), func(r SecretRecord, revision int64) {
		r.Revision = revision
		if r.Name == "" {
			misplaced = fmt.Errorf("listing secrets: a record without a name: %w", ErrCorrupt)
		}
		records = append(records, r)
	})
	return records, errors.Join(err, misplaced)
}

// PutSecret writes a record if it is still at the revision in it, 0 for one that must not exist yet; else the error
// wraps ErrConflict.
func (s *Store) PutSecret(ctx context.Context, r SecretRecord) error {
	value, err := encode("secret "+r.Name, r)
	if err != nil {
		return err
	}
	key := s.secretKey(r.Name)
	_, err = s.commit(ctx, "storing secret "+r.Name,
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", r.Revision)},
		[]clientv3.Op{clientv3.OpPut(key, value)})
	return err
}

// DeleteSecret removes a record if it is still at the revision and the policy documents are at theirs, so that nobody
// begins to refer to the secret meanwhile; else the error wraps ErrConflict.
func (s *Store) DeleteSecret(ctx context.Context, name string, revision, documents int64) error {
	key := s.secretKey(name)
	_, err := s.commit(ctx, "deleting secret "+name,
		[]clientv3.Cmp{
			clientv3.Compare(clientv3.ModRevision(key), "=", revision),
			clientv3.Compare(clientv3.ModRevision(s.documentsHead()), "=", documents),
		},
		[]clientv3.Op{clientv3.OpDelete(key)})
	return err
}

// WatchSecrets hints that the secrets may have changed; see the package comment.
func (s *Store) WatchSecrets(ctx context.Context) <-chan struct{} {
	return s.watch(ctx, s.key(secretsFolder, ""))
}
