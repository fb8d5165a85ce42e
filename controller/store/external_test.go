package store_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/controller/store/storetest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/etcd"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// patience bounds every wait: reached only by a test that fails.
const patience = 60 * time.Second

var (
	epoch = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	keyID = pki.KeyID{7}
)

func token(n byte) (enroll.Token, store.Token) {
	t := enroll.NewToken([enroll.EntropySize]byte{n}, pki.KeyID{1})
	return t, store.Token{Stored: enroll.NewStored(epoch, t, pki.UUID{n}, time.Hour), MachineName: "sql1"}
}

// external starts an etcd server of its own for the test, and a client.
func external(t *testing.T) (*etcd.Server, *clientv3.Client) {
	t.Helper()
	server, err := etcd.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server, connect(t, server)
}

func connect(t *testing.T, server *etcd.Server) *clientv3.Client {
	t.Helper()
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func change(name string) store.DocumentChange {
	return store.DocumentChange{Put: []store.Document{{DocumentKey: store.DocumentKey{Kind: "Policy", Name: name}, Content: []byte(name)}}}
}

// The contract holds for the etcd of the distribution, with its own limits, over TLS.
func TestExternalContract(t *testing.T) {
	_, client := external(t)
	var n atomic.Int32
	storetest.Run(t, func(*testing.T) *store.Store {
		return store.New(client, store.Options{Prefix: fmt.Sprintf("/test/%d/", n.Add(1))})
	})
}

func TestExternalWantsAClientCertificate(t *testing.T) {
	server, _ := external(t)
	anonymous, err := clientv3.New(clientv3.Config{
		Endpoints: []string{server.Endpoint}, TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: server.TLS.RootCAs}, Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer anonymous.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := store.New(anonymous, store.Options{}).Ping(ctx); err == nil {
		t.Error("etcd answered a client without a certificate")
	}
}

// A server that is killed loses nothing that it acknowledged; the same client goes on, and its watch too.
func TestExternalKilledAndRestarted(t *testing.T) {
	server, client := external(t)
	s := store.New(client, store.Options{RereadInterval: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	hints := s.WatchDocuments(ctx)
	<-hints
	revision, err := s.ChangeDocuments(ctx, 0, change("a"))
	if err != nil {
		t.Fatal(err)
	}
	server.Kill()
	away, stop := context.WithTimeout(ctx, time.Second)
	if docs, err := s.Documents(away); err == nil {
		t.Errorf("without a server %d documents were read", len(docs.List))
	}
	stop()
	if err := server.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	docs, err := s.Documents(ctx)
	if err != nil || docs.Revision != revision || len(docs.List) != 1 {
		t.Fatalf("after the restart: revision %d with %d documents, %v; want %d with 1", docs.Revision, len(docs.List), err, revision)
	}
	if _, err := s.ChangeDocuments(ctx, revision, change("b")); err != nil {
		t.Fatal(err)
	}
	awaitDocuments(t, s, hints, 2)
}

// awaitDocuments reads at every hint until there are as many documents as wanted.
func awaitDocuments(t *testing.T, s *store.Store, hints <-chan struct{}, want int) {
	t.Helper()
	for range hints {
		docs, err := s.Documents(t.Context())
		if err == nil && len(docs.List) == want {
			return
		}
	}
	t.Fatalf("no hint led to %d documents within %v", want, patience)
}

// A watch that was cut off while its history was compacted away is set up anew, and what it missed is read.
func TestExternalWatchSurvivesCompaction(t *testing.T) {
	server, client := external(t)
	var cut atomic.Bool
	gated, err := clientv3.New(clientv3.Config{
		Endpoints: []string{server.Endpoint}, TLS: server.TLS, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			if cut.Load() {
				return nil, errors.New("cut off")
			}
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer gated.Close()
	watching := store.New(gated, store.Options{RereadInterval: time.Hour})
	writing := store.New(client, store.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	hints := watching.WatchDocuments(ctx)
	<-hints
	base, err := writing.ChangeDocuments(ctx, 0, change("before"))
	if err != nil {
		t.Fatal(err)
	}
	awaitDocuments(t, watching, hints, 1)
	cut.Store(true)
	if err := server.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		if base, err = writing.ChangeDocuments(ctx, base, change(fmt.Sprint("missed", n))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.Compact(ctx, base, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	cut.Store(false)
	awaitDocuments(t, watching, hints, 6)
	if _, err := writing.ChangeDocuments(ctx, base, change("later")); err != nil {
		t.Fatal(err)
	}
	awaitDocuments(t, watching, hints, 7)
}

// A value that cannot be read is reported and left alone; it does not keep the others from being pruned.
func TestPruningSparesWhatCannotBeRead(t *testing.T) {
	_, client := external(t)
	s := store.New(client, store.Options{})
	for n := range byte(3) {
		_, record := token(n)
		if err := s.CreateToken(t.Context(), record); err != nil {
			t.Fatal(err)
		}
	}
	strange := store.DefaultPrefix + "tokens/!"
	if _, err := client.Put(t.Context(), strange, "{"); err != nil {
		t.Fatal(err)
	}
	pruned, err := s.PruneTokens(t.Context(), epoch.Add(2*time.Hour))
	if pruned != 3 || !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), strange) {
		t.Errorf("pruned %d tokens, error %v; want 3 and the key that cannot be read", pruned, err)
	}
	left, err := client.Get(t.Context(), store.DefaultPrefix+"tokens/", clientv3.WithPrefix())
	if err != nil || len(left.Kvs) != 1 || string(left.Kvs[0].Key) != strange {
		t.Errorf("left are %d records, %v; want the one that cannot be read", left.Count, err)
	}
}
