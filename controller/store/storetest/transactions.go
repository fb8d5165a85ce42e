package storetest

import (
	"context"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Transactions is a clientv3.KV that lets Commit carry out every transaction that writes a key with the ending, as a server or a
// network would that is slow or broken. It is for one writer at a time. A transaction outlives the context of its writer.
type Transactions struct {
	clientv3.KV
	Ending string
	Commit func(clientv3.Txn) (*clientv3.TxnResponse, error)
}

// Txn implements clientv3.KV.
func (k *Transactions) Txn(ctx context.Context) clientv3.Txn {
	return &transaction{k.KV.Txn(context.WithoutCancel(ctx)), k, false}
}

type transaction struct {
	clientv3.Txn
	kv   *Transactions
	ours bool
}

func (x *transaction) If(c ...clientv3.Cmp) clientv3.Txn {
	x.Txn = x.Txn.If(c...)
	return x
}

func (x *transaction) Else(ops ...clientv3.Op) clientv3.Txn {
	x.Txn = x.Txn.Else(ops...)
	return x
}

func (x *transaction) Then(ops ...clientv3.Op) clientv3.Txn {
	for _, o := range ops {
		x.ours = x.ours || strings.HasSuffix(string(o.KeyBytes()), x.kv.Ending)
	}
	x.Txn = x.Txn.Then(ops...)
	return x
}

func (x *transaction) Commit() (*clientv3.TxnResponse, error) {
	if x.ours {
		return x.kv.Commit(x.Txn)
	}
	return x.Txn.Commit()
}
