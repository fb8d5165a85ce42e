package store_test

import (
	"bytes"
	"context"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/controller/store/storetest"
	"github.com/bailiwick-net/bailiwick/directory"
)

// late keeps the first write of an accepted directory's head back, as a slow server does: the writer gives up, and it comes to
// be written just before the next one.
func late(kv clientv3.KV) clientv3.KV {
	var first clientv3.Txn
	done := false
	return &storetest.Transactions{KV: kv, Ending: "/accepted", Commit: func(x clientv3.Txn) (*clientv3.TxnResponse, error) {
		switch {
		case first == nil:
			first = x
			return nil, context.DeadlineExceeded
		case !done:
			done = true
			if _, err := first.Commit(); err != nil {
				return nil, err
			}
		}
		return x.Commit()
	}}
}

// TestHeadThatComesLate: what is stored is whole, whichever of two attempts it is of.
func TestHeadThatComesLate(t *testing.T) {
	_, client := external(t)
	client.KV = late(client.KV)
	d := store.New(client, store.Options{Prefix: "/late/"}).Directory(store.DefaultDirectory)
	of := func(n byte) store.AcceptedDirectory {
		return store.AcceptedDirectory{Digest: directory.Digest{n}, Entries: bytes.Repeat([]byte{n}, 600<<10)}
	}
	stored := func(n byte) {
		t.Helper()
		got, err := d.AcceptedDirectory(t.Context())
		if err != nil || got.Digest != of(n).Digest || !bytes.Equal(got.Entries, of(n).Entries) {
			t.Errorf("digest %v with %d octets is stored, want that of %d with its own: %v", got.Digest.Short(), len(got.Entries), n, err)
		}
	}
	if err := d.SetAcceptedDirectory(t.Context(), of(1)); err == nil {
		t.Fatal("a write that was given up succeeded")
	}
	if err := d.SetAcceptedDirectory(t.Context(), of(2)); err == nil {
		t.Fatal("a write succeeded although another one came between")
	}
	stored(1)
	if err := d.SetAcceptedDirectory(t.Context(), of(3)); err != nil {
		t.Fatal(err)
	}
	stored(3)
}
