package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// A Token is the record of a join token: what redeems it, and who it is for in words.
type Token struct {
	enroll.Stored
	// MachineName and MachineDN are what the machine was called when the token was made.
	MachineName string `json:"machineName"`
	MachineDN   string `json:"machineDN"`
	// By is who made it.
	By string `json:"by,omitempty"`

	// revision is that of the last change, 0 for a token that was not read from the store.
	revision int64
}

func (s *Store) tokenKey(id enroll.TokenID) string { return s.key("tokens", id.String()) }

// CreateToken stores the record of a new token.
func (s *Store) CreateToken(ctx context.Context, t Token) error {
	value, err := encode("join token "+t.ID.String(), t)
	if err != nil {
		return err
	}
	key := s.tokenKey(t.ID)
	_, err = s.commit(ctx, "storing join token "+t.ID.String(),
		[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)},
		[]clientv3.Op{clientv3.OpPut(key, value)})
	return err
}

// Token reads the record of a token.
func (s *Store) Token(ctx context.Context, id enroll.TokenID) (Token, error) {
	t, revision, err := get[Token](ctx, s, "join token "+id.String(), s.tokenKey(id))
	t.revision = revision
	return t, err
}

// Tokens lists all records, used and expired ones included, by id.
func (s *Store) Tokens(ctx context.Context) ([]Token, error) {
	var tokens []Token
	err := list(ctx, s, "join tokens", s.key("tokens", ""), func(t Token, revision int64) {
		t.revision = revision
		tokens = append(tokens, t)
	})
	return tokens, err
}

// DeleteToken removes a record: the token is then unknown.
func (s *Store) DeleteToken(ctx context.Context, id enroll.TokenID) error {
	key := s.tokenKey(id)
	_, err := s.commit(ctx, "deleting join token "+id.String(),
		[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), ">", 0)},
		[]clientv3.Op{clientv3.OpDelete(key)})
	if errors.Is(err, ErrConflict) {
		return fmt.Errorf("join token %s: %w", id, ErrNotFound)
	}
	return err
}

// RedeemToken marks the token as used for a key, if its record is still as it was read. Of several callers with the
// same token exactly one succeeds; the others' errors wrap ErrConflict.
func (s *Store) RedeemToken(ctx context.Context, t Token, now time.Time, key pki.KeyID) error {
	if t.revision == 0 {
		return fmt.Errorf("redeeming join token %s, which was not read from the store: %w", t.ID, ErrConflict)
	}
	used := t
	used.Stored = t.MarkUsed(now, key)
	value, err := encode("join token "+t.ID.String(), used)
	if err != nil {
		return err
	}
	at := s.tokenKey(t.ID)
	_, err = s.together(ctx, "redeeming join token "+t.ID.String(),
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(at), "=", t.revision)},
		[]clientv3.Op{clientv3.OpPut(at, value)}, nil)
	return err
}

// PruneTokens removes the records of tokens that ended before the given time, used or not, in batches. A record that
// changes meanwhile is left for the next time.
func (s *Store) PruneTokens(ctx context.Context, before time.Time) (int, error) {
	return prune(ctx, s, "ended join tokens", s.key("tokens", ""), func(t Token) bool { return t.NotAfter.Before(before) })
}
