package store

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// A Tombstone is a machine that vanished from the directory. It keeps its policy until the grace time ends.
type Tombstone struct {
	Machine  directory.UUID `json:"machine"`
	Name     string         `json:"name"`
	DN       string         `json:"dn"`
	DNSName  string         `json:"dnsName,omitempty"`
	Disabled bool           `json:"disabled,omitempty"`
	// Since is when it vanished.
	Since time.Time `json:"since"`
}

// An AcceptedDirectory is the directory as it was last accepted: the encoded entries and the machines that vanished.
type AcceptedDirectory struct {
	// Digest is that of the snapshot.
	Digest directory.Digest
	// Entries is the encoding of the snapshot; the store does not look into it.
	Entries    []byte
	Tombstones []Tombstone
	Accepted   time.Time
}

// acceptedHead points at the chunks of the entries.
type acceptedHead struct {
	Digest     string      `json:"digest"`
	Accepted   time.Time   `json:"accepted"`
	Generation int64       `json:"generation"`
	Chunks     int         `json:"chunks"`
	Size       int         `json:"size"`
	Tombstones []Tombstone `json:"tombstones,omitempty"`
}

// chunkSize keeps a chunk well under the size of one request.
const chunkSize = 512 << 10

// maxTombstones bounds the head; more vanish only with an administrator's consent, and the oldest are dropped.
const maxTombstones = 4096

func (s *Store) acceptedKey() string { return s.key("directory", "accepted") }

func (s *Store) chunkKey(generation int64, chunk int) string {
	// Padded, so that keys order as numbers do.
	return s.key("directory", "entries", fmt.Sprintf("%020d", generation), fmt.Sprintf("%06d", chunk))
}

// SetAcceptedDirectory replaces the accepted directory. The chunks are written first and the head, which points at
// them, last: a crash between leaves the previous one in place.
func (s *Store) SetAcceptedDirectory(ctx context.Context, a AcceptedDirectory) error {
	if len(a.Tombstones) > maxTombstones {
		a.Tombstones = a.Tombstones[len(a.Tombstones)-maxTombstones:]
	}
	old, revision, err := s.acceptedHead(ctx)
	if err != nil {
		return err
	}
	head := acceptedHead{
		Digest: a.Digest.String(), Accepted: a.Accepted.UTC(), Generation: old.Generation + 1, Size: len(a.Entries), Tombstones: a.Tombstones,
	}
	for rest := a.Entries; len(rest) > 0; head.Chunks++ {
		n := min(len(rest), chunkSize)
		put := clientv3.OpPut(s.chunkKey(head.Generation, head.Chunks), string(rest[:n]))
		if _, err := s.commit(ctx, "storing the accepted directory", nil, []clientv3.Op{put}); err != nil {
			return err
		}
		rest = rest[n:]
	}
	value, err := encode("accepted directory", head)
	if err != nil {
		return err
	}
	_, err = s.commit(ctx, "storing the accepted directory",
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(s.acceptedKey()), "=", revision)},
		[]clientv3.Op{clientv3.OpPut(s.acceptedKey(), value)})
	if err != nil {
		return err
	}
	// Everything below the generation just written is garbage, also what a crash left.
	garbage := clientv3.OpDelete(s.key("directory", "entries", ""), clientv3.WithRange(s.chunkKey(head.Generation, 0)))
	_, err = s.commit(ctx, "removing the previous accepted directory", nil, []clientv3.Op{garbage})
	return err
}

func (s *Store) acceptedHead(ctx context.Context) (acceptedHead, int64, error) {
	resp, err := s.client.Get(ctx, s.acceptedKey())
	if err != nil {
		return acceptedHead{}, 0, fmt.Errorf("reading the accepted directory: %w", err)
	}
	if len(resp.Kvs) == 0 {
		return acceptedHead{}, 0, nil
	}
	var head acceptedHead
	if err := json.Unmarshal(resp.Kvs[0].Value, &head); err != nil {
		return acceptedHead{}, 0, fmt.Errorf("accepted directory: %w: %w", ErrCorrupt, err)
	}
	return head, resp.Kvs[0].ModRevision, nil
}

// AcceptedDirectory reads the accepted directory; the error wraps ErrNotFound when none was ever accepted.
func (s *Store) AcceptedDirectory(ctx context.Context) (AcceptedDirectory, error) {
	head, revision, err := s.acceptedHead(ctx)
	if err != nil {
		return AcceptedDirectory{}, err
	}
	if revision == 0 {
		return AcceptedDirectory{}, fmt.Errorf("accepted directory: %w", ErrNotFound)
	}
	a := AcceptedDirectory{Tombstones: head.Tombstones, Accepted: head.Accepted}
	if n, err := hex.Decode(a.Digest[:], []byte(head.Digest)); err != nil || n != len(a.Digest) || len(head.Digest) != 2*n {
		return AcceptedDirectory{}, fmt.Errorf("accepted directory: digest %q: %w", head.Digest, ErrCorrupt)
	}
	for chunk := range head.Chunks {
		resp, err := s.client.Get(ctx, s.chunkKey(head.Generation, chunk))
		if err != nil {
			return AcceptedDirectory{}, fmt.Errorf("reading the accepted directory: %w", err)
		}
		if len(resp.Kvs) == 0 {
			return AcceptedDirectory{}, fmt.Errorf("accepted directory: part %d of %d is missing: %w", chunk+1, head.Chunks, ErrCorrupt)
		}
		a.Entries = append(a.Entries, resp.Kvs[0].Value...)
	}
	if len(a.Entries) != head.Size {
		return AcceptedDirectory{}, fmt.Errorf("accepted directory has %d octets, wanted %d: %w", len(a.Entries), head.Size, ErrCorrupt)
	}
	return a, nil
}
