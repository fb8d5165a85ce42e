package store

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/journal"
)

// A RootList is the revocation list of a root that is kept off line, as it was handed in.
type RootList struct {
	// Root is the root's key.
	Root pki.KeyID `json:"root"`
	// DER is the list, with its signature.
	DER []byte `json:"der"`

	// Revision is that of the last change, 0 for a list that was not read from the store.
	Revision int64 `json:"-"`
}

const rootListsFolder = "root-lists"

// RootLists reads all lists that were handed in, one of each root.
func (s *Store) RootLists(ctx context.Context) ([]RootList, error) {
	var all []RootList
	err := list(ctx, s, "revocation lists of roots", s.key(rootListsFolder, ""), func(l RootList, revision int64) {
		l.Revision = revision
		all = append(all, l)
	})
	return all, err
}

// PutRootList writes a list if that of its root is still at the revision in it, 0 for the first one; else the error wraps
// ErrConflict. The event goes into the journal in the same transaction.
func (s *Store) PutRootList(ctx context.Context, l RootList, e journal.Event) error {
	what := "writing the revocation list of the root " + l.Root.String()[:16]
	value, err := encode(what, l)
	if err != nil {
		return err
	}
	key := s.key(rootListsFolder, l.Root.String())
	_, err = s.record(ctx, what, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", l.Revision)},
		[]clientv3.Op{clientv3.OpPut(key, value)}, journal.Record{Event: &e})
	return err
}
