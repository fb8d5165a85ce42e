package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/controller/store/embedded"
	"github.com/bailiwick-net/bailiwick/controller/store/storetest"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/journal"
)

// A transaction of the journal whose answer is lost is made once, whatever became of it, and whoever else writes meanwhile.
func TestJournalWithoutAnAnswer(t *testing.T) {
	e := start(t, t.TempDir())
	defer e.Close()
	kv := e.Client().KV
	var held clientv3.Txn
	for n, c := range []struct {
		name string
		// lose is what becomes of the first transaction, and then of the next one.
		lose, next func(clientv3.Txn) (*clientv3.TxnResponse, error)
		other      bool // writes in between
	}{
		{"it was made", func(x clientv3.Txn) (*clientv3.TxnResponse, error) {
			_, err := x.Commit()
			return nil, errors.Join(err, context.DeadlineExceeded)
		}, clientv3.Txn.Commit, false},
		{"it was made, and the leader lost", func(x clientv3.Txn) (*clientv3.TxnResponse, error) {
			_, err := x.Commit()
			return nil, errors.Join(err, rpctypes.ErrLeaderChanged)
		}, clientv3.Txn.Commit, false},
		{"it was made, and another one after it", func(x clientv3.Txn) (*clientv3.TxnResponse, error) {
			_, err := x.Commit()
			return nil, errors.Join(err, context.DeadlineExceeded)
		}, clientv3.Txn.Commit, true},
		{"it was not made", func(clientv3.Txn) (*clientv3.TxnResponse, error) {
			return nil, rpctypes.ErrNoLeader
		}, clientv3.Txn.Commit, false},
		{"it was not made, and another one was", func(clientv3.Txn) (*clientv3.TxnResponse, error) {
			return nil, context.DeadlineExceeded
		}, clientv3.Txn.Commit, true},
		{"it is made late", func(x clientv3.Txn) (*clientv3.TxnResponse, error) {
			held = x
			return nil, context.DeadlineExceeded
		}, func(x clientv3.Txn) (*clientv3.TxnResponse, error) {
			if _, err := held.Commit(); err != nil {
				return nil, err
			}
			return x.Commit()
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			options := store.Options{Prefix: fmt.Sprintf("/lost/%d/", n), MaxOps: embedded.MaxTxnOps, Now: func() time.Time { return intention("").NotBefore }}
			other := store.New(e.Client(), options)
			calls := 0
			client := clientv3.NewCtxClient(t.Context())
			client.KV = &storetest.Transactions{KV: kv, Ending: "/journal/head", Commit: func(x clientv3.Txn) (*clientv3.TxnResponse, error) {
				calls++
				switch calls {
				case 1:
					resp, err := c.lose(x)
					if c.other {
						if err := other.RecordEvent(t.Context(), journal.Event{Kind: "rotation", What: "of another controller"}); err != nil {
							t.Error(err)
						}
					}
					return resp, err
				case 2:
					return c.next(x)
				}
				return x.Commit()
			}}
			s := store.New(client, options)
			if err := s.Record(t.Context(), intention("a1")); err != nil {
				t.Fatal(err)
			}
			// What was recorded has its revision, so it can be completed; and it is there once.
			if err := s.Complete(t.Context(), "a1", []byte("der")); err != nil {
				t.Fatal(err)
			}
			if err := s.Record(t.Context(), intention("a1")); !errors.Is(err, ca.ErrSerialRecorded) {
				t.Errorf("the serial number again gave %v, want ErrSerialRecorded", err)
			}
			want := uint64(2)
			if c.other {
				want++
			}
			if head := audit(t, s).Head(); head.Number != want {
				t.Errorf("the journal has %d records, want %d", head.Number, want)
			}
		})
	}
}

// What nobody waits for any more, when the journal comes to it, is not written.
func TestJournalOfWhoGaveUp(t *testing.T) {
	e := start(t, t.TempDir())
	defer e.Close()
	arrived, proceed := make(chan struct{}), make(chan struct{})
	first := true
	client := clientv3.NewCtxClient(t.Context())
	client.KV = &storetest.Transactions{KV: e.Client().KV, Ending: "/journal/head", Commit: func(x clientv3.Txn) (*clientv3.TxnResponse, error) {
		if first {
			first = false
			close(arrived)
			<-proceed
		}
		return x.Commit()
	}}
	s := store.New(client, store.Options{MaxOps: embedded.MaxTxnOps})
	done := make(chan error, 1)
	go func() { done <- s.Record(t.Context(), intention("a1")) }()
	<-arrived
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Record(ctx, intention("a2")); !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up was told %v", err)
	}
	close(proceed)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := s.Record(t.Context(), intention("a3")); err != nil {
		t.Fatal(err)
	}
	if head := audit(t, s).Head(); head.Number != 2 {
		t.Errorf("the journal has %d records, want that of who waited and the next one", head.Number)
	}
}
