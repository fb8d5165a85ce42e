package store

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
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
	// Guard is what the mass-change guard knows beside the snapshot, in its own encoding; the store does not look into it.
	Guard    []byte
	Accepted time.Time
}

// acceptedHead points at the chunks of the entries and, after them, of the tombstones and of what the guard knows.
type acceptedHead struct {
	Digest         string    `json:"digest"`
	Accepted       time.Time `json:"accepted"`
	Generation     int64     `json:"generation"`
	Chunks         int       `json:"chunks"`
	Size           int       `json:"size"`
	TombstoneParts int       `json:"tombstoneChunks,omitempty"`
	TombstoneSize  int       `json:"tombstoneSize,omitempty"`
	GuardParts     int       `json:"guardChunks,omitempty"`
	GuardSize      int       `json:"guardSize,omitempty"`
	// Tombstones stood here when a head had room for few.
	Tombstones []Tombstone `json:"tombstones,omitempty"`
}

// chunkSize keeps a chunk well under the size of one request.
const chunkSize = 512 << 10

// DefaultDirectory is the name of the directory of a controller that has one.
const DefaultDirectory = "default"

// A DirectoryState is what is kept of one directory, by its name.
type DirectoryState struct {
	store *Store
	root  string
	name  string
}

// Directory returns the state of the directory of that name, which holds no slash.
func (s *Store) Directory(name string) DirectoryState {
	d := DirectoryState{store: s, root: s.key("directory", "sources", name) + "/", name: name}
	if name == DefaultDirectory {
		d.root = s.key("directory") + "/"
	}
	return d
}

// Directories lists the names of the directories of which a state is kept, sorted.
func (s *Store) Directories(ctx context.Context) ([]string, error) {
	prefix := s.key("directory", "sources", "")
	resp, err := s.client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, fmt.Errorf("listing the accepted directories: %w", err)
	}
	var names []string
	for _, kv := range resp.Kvs {
		if name, ok := strings.CutSuffix(strings.TrimPrefix(string(kv.Key), prefix), "/accepted"); ok && !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	if _, revision, err := s.Directory(DefaultDirectory).head(ctx); err != nil {
		return nil, err
	} else if revision != 0 {
		names = append(names, DefaultDirectory)
	}
	slices.Sort(names)
	return names, nil
}

func (d DirectoryState) headKey() string { return d.root + "accepted" }

func (d DirectoryState) chunkPrefix() string { return d.root + "entries/" }

func (d DirectoryState) chunkKey(generation int64, chunk int) string {
	// Padded, so that keys order as numbers do.
	return fmt.Sprintf("%s%020d/%06d", d.chunkPrefix(), generation, chunk)
}

// SetAcceptedDirectory replaces the accepted directory. The chunks are written first and the head, which points at
// them, last: a crash between leaves the previous one in place.
func (d DirectoryState) SetAcceptedDirectory(ctx context.Context, a AcceptedDirectory) error {
	old, revision, err := d.head(ctx)
	if err != nil {
		return err
	}
	head := acceptedHead{
		Digest: a.Digest.String(), Accepted: a.Accepted.UTC(), Size: len(a.Entries), GuardSize: len(a.Guard),
		// A number of this attempt alone: the head of one that was given up may still come to be written, and must find its
		// own chunks.
		Generation: max(old.Generation+1, time.Now().UnixNano()),
	}
	if head.Chunks, err = d.putChunks(ctx, head.Generation, 0, a.Entries); err != nil {
		return err
	}
	if len(a.Tombstones) > 0 {
		tombstones, err := json.Marshal(a.Tombstones)
		if err != nil {
			return fmt.Errorf("encoding the vanished machines: %w", err)
		}
		head.TombstoneSize = len(tombstones)
		if head.TombstoneParts, err = d.putChunks(ctx, head.Generation, head.Chunks, tombstones); err != nil {
			return err
		}
	}
	if head.GuardParts, err = d.putChunks(ctx, head.Generation, head.Chunks+head.TombstoneParts, a.Guard); err != nil {
		return err
	}
	value, err := encode("accepted directory", head)
	if err != nil {
		return err
	}
	_, err = d.store.commit(ctx, "storing the accepted directory",
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(d.headKey()), "=", revision)},
		[]clientv3.Op{clientv3.OpPut(d.headKey(), value)})
	if err != nil {
		return err
	}
	// Everything below the generation just written is garbage, also what a crash left.
	garbage := clientv3.OpDelete(d.chunkPrefix(), clientv3.WithRange(d.chunkKey(head.Generation, 0)))
	_, err = d.store.commit(ctx, "removing the previous accepted directory", nil, []clientv3.Op{garbage})
	return err
}

// putChunks writes data from chunk number first on, and returns how many chunks it came to.
func (d DirectoryState) putChunks(ctx context.Context, generation int64, first int, data []byte) (n int, err error) {
	for ; len(data) > 0; n++ {
		size := min(len(data), chunkSize)
		put := clientv3.OpPut(d.chunkKey(generation, first+n), string(data[:size]))
		if _, err := d.store.commit(ctx, "storing the accepted directory", nil, []clientv3.Op{put}); err != nil {
			return n, err
		}
		data = data[size:]
	}
	return n, nil
}

func (d DirectoryState) head(ctx context.Context) (acceptedHead, int64, error) {
	resp, err := d.store.client.Get(ctx, d.headKey())
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
func (d DirectoryState) AcceptedDirectory(ctx context.Context) (AcceptedDirectory, error) {
	head, revision, err := d.head(ctx)
	if err != nil {
		return AcceptedDirectory{}, err
	}
	if revision == 0 {
		return AcceptedDirectory{}, fmt.Errorf("accepted directory %q: %w", d.name, ErrNotFound)
	}
	a := AcceptedDirectory{Tombstones: head.Tombstones, Accepted: head.Accepted}
	if n, err := hex.Decode(a.Digest[:], []byte(head.Digest)); err != nil || n != len(a.Digest) || len(head.Digest) != 2*n {
		return AcceptedDirectory{}, fmt.Errorf("accepted directory: digest %q: %w", head.Digest, ErrCorrupt)
	}
	if a.Entries, err = d.chunks(ctx, head.Generation, 0, head.Chunks, head.Size); err != nil {
		return AcceptedDirectory{}, err
	}
	if a.Guard, err = d.chunks(ctx, head.Generation, head.Chunks+head.TombstoneParts, head.GuardParts, head.GuardSize); err != nil || head.TombstoneParts == 0 {
		return a, err
	}
	tombstones, err := d.chunks(ctx, head.Generation, head.Chunks, head.TombstoneParts, head.TombstoneSize)
	if err != nil {
		return AcceptedDirectory{}, err
	}
	if err := json.Unmarshal(tombstones, &a.Tombstones); err != nil {
		return AcceptedDirectory{}, fmt.Errorf("accepted directory: vanished machines: %w: %w", ErrCorrupt, err)
	}
	return a, nil
}

// chunks reads n chunks from number first on, which hold size octets.
func (d DirectoryState) chunks(ctx context.Context, generation int64, first, n, size int) ([]byte, error) {
	var data []byte
	for chunk := range n {
		resp, err := d.store.client.Get(ctx, d.chunkKey(generation, first+chunk))
		if err != nil {
			return nil, fmt.Errorf("reading the accepted directory: %w", err)
		}
		if len(resp.Kvs) == 0 {
			return nil, fmt.Errorf("accepted directory: part %d of %d is missing: %w", chunk+1, n, ErrCorrupt)
		}
		data = append(data, resp.Kvs[0].Value...)
	}
	if len(data) != size {
		return nil, fmt.Errorf("accepted directory has %d octets, wanted %d: %w", len(data), size, ErrCorrupt)
	}
	return data, nil
}

// Forget removes the state of a directory.
func (d DirectoryState) Forget(ctx context.Context) error {
	_, err := d.store.commit(ctx, "removing the state of a directory", nil, []clientv3.Op{
		clientv3.OpDelete(d.headKey()), clientv3.OpDelete(d.chunkPrefix(), clientv3.WithPrefix()),
	})
	return err
}
