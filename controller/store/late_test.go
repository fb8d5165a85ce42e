package store_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
)

// lateKV keeps the first write of an accepted directory's head back, as a slow server does: the writer gives up, and it comes
// to be written just before the next one.
type lateKV struct {
	clientv3.KV
	late clientv3.Txn
	done bool
}

type lateTxn struct {
	clientv3.Txn
	kv   *lateKV
	head bool
}

func (k *lateKV) Txn(ctx context.Context) clientv3.Txn {
	return &lateTxn{k.KV.Txn(context.WithoutCancel(ctx)), k, false}
}

func (x *lateTxn) If(c ...clientv3.Cmp) clientv3.Txn {
	x.Txn = x.Txn.If(c...)
	return x
}

func (x *lateTxn) Else(ops ...clientv3.Op) clientv3.Txn {
	x.Txn = x.Txn.Else(ops...)
	return x
}

func (x *lateTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	for _, o := range ops {
		x.head = x.head || strings.HasSuffix(string(o.KeyBytes()), "/accepted")
	}
	x.Txn = x.Txn.Then(ops...)
	return x
}

func (x *lateTxn) Commit() (*clientv3.TxnResponse, error) {
	switch {
	case x.head && x.kv.late == nil:
		x.kv.late = x.Txn
		return nil, context.DeadlineExceeded
	case x.head && !x.kv.done:
		x.kv.done = true
		if _, err := x.kv.late.Commit(); err != nil {
			return nil, err
		}
	}
	return x.Txn.Commit()
}

// TestHeadThatComesLate: what is stored is whole, whichever of two attempts it is of.
func TestHeadThatComesLate(t *testing.T) {
	_, client := external(t)
	client.KV = &lateKV{KV: client.KV}
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
