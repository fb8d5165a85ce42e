package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// tryTime is how long the first attempt waits for a member before another one is asked, and each further one waits twice as long
// as the one before: a store that is slow gets the time that it needs. A member that does not answer is not always known to be
// gone: its process may be stopped, or its machine.
const tryTime = time.Second

// maxReads is how often a read is tried.
const maxReads = 5

// Connect makes a client of an external etcd: of one member or of several, which it asks in turn. It does not wait until one of
// them answers. A member that says nothing is found out in two seconds once it is read from, or a record is written to
// it, and asked again once it takes connections.
func Connect(endpoints []string, config *tls.Config, log *zap.Logger) (*clientv3.Client, error) {
	m := &members{endpoints: endpoints}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: config, Logger: log,
		DialTimeout: 10 * time.Second, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(m.watchCall)},
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to etcd at %v: %w", endpoints, err)
	}
	m.client.Store(client)
	client.KV = turning{client.KV}
	return client, nil
}

// members finds out which members say nothing. Connections tell that themselves after 15 s at the earliest, which is the least
// that members bear, and a third of all calls would be lost until then.
type members struct {
	endpoints []string
	client    atomic.Pointer[clientv3.Client]
	asking    atomic.Bool
}

// watchCall suspects the members when a call ends without an answer.
func (m *members) watchCall(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
	start := time.Now()
	err := call(ctx, method, request, reply, conn, options...)
	if client := m.client.Load(); client != nil && status.Code(err) == codes.DeadlineExceeded && time.Since(start) > tryTime/2 && len(m.endpoints) > 1 && m.asking.CompareAndSwap(false, true) {
		go func() {
			defer m.asking.Store(false)
			m.leave(client)
		}()
	}
	return err
}

// leave asks every member over a connection of its own, and leaves the connections to those that do not answer while others do.
// Calls that are under way are not disturbed, and new ones go to members whose connection is up.
func (m *members) leave(client *clientv3.Client) {
	ctx, cancel := context.WithTimeout(client.Ctx(), tryTime)
	defer cancel()
	answers := make([]bool, len(m.endpoints))
	var asking sync.WaitGroup
	for i, e := range m.endpoints {
		asking.Go(func() {
			_, err := client.Status(ctx, e)
			answers[i] = err == nil
		})
	}
	asking.Wait()
	var answering []string
	for i, e := range m.endpoints {
		if answers[i] {
			answering = append(answering, e)
		}
	}
	if len(answering) == 0 || len(answering) == len(m.endpoints) {
		return
	}
	client.SetEndpoints(answering...)
	client.SetEndpoints(m.endpoints...)
}

// turning asks another member where one says nothing. What is read twice does no harm; writes are left to their callers.
type turning struct{ clientv3.KV }

// Get implements clientv3.KV.
func (k turning) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	for allowed, n := tryTime, 1; ; allowed, n = 2*allowed, n+1 {
		try, cancel := context.WithTimeout(ctx, allowed)
		resp, err := k.KV.Get(try, key, opts...)
		silent := err != nil && try.Err() != nil
		cancel()
		if !silent || ctx.Err() != nil || n == maxReads {
			return resp, err
		}
	}
}

// uncertain reports whether a write that failed may have been made, or may be made yet: no answer came, or it is one of a member
// that lost its leader meanwhile. It is also true of some that were not made.
func uncertain(err error) bool {
	var refused rpctypes.EtcdError
	if errors.As(err, &refused) {
		return refused.Code() == codes.Unavailable || refused.Code() == codes.DeadlineExceeded
	}
	code := status.Code(err)
	return errors.Is(err, context.DeadlineExceeded) || code == codes.Unavailable || code == codes.DeadlineExceeded
}
