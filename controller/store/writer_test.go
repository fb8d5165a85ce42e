package store_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
)

// shortest is about the least that etcd grants.
const shortest = 2 * time.Second

func claim(t *testing.T, s *store.Store, host string) *store.Claim {
	t.Helper()
	c, err := s.Claim(t.Context(), store.Writer{Host: host, Since: time.Now()}, shortest)
	if err != nil {
		t.Fatalf("%s claims the store: %v", host, err)
	}
	return c
}

func TestSecondWriterIsRefusedByName(t *testing.T) {
	server, client := external(t)
	first := claim(t, store.New(client, store.Options{}), "alpha")
	second := store.New(connect(t, server), store.Options{})
	_, err := second.Claim(t.Context(), store.Writer{Host: "beta", Since: time.Now()}, shortest)
	if !errors.Is(err, store.ErrHeld) || !strings.Contains(err.Error(), "alpha") {
		t.Errorf("beside alpha the claim gave %v, want ErrHeld and that alpha holds it", err)
	}
	// Another prefix is another store.
	claim(t, store.New(connect(t, server), store.Options{Prefix: "/other/"}), "gamma").Release()
	first.Release()
	claim(t, second, "beta").Release()
}

func TestExactlyOneOfManyClaims(t *testing.T) {
	server, _ := external(t)
	clients := []*clientv3.Client{connect(t, server), connect(t, server), connect(t, server), connect(t, server)}
	claims := make([]*store.Claim, len(clients))
	var wg sync.WaitGroup
	for i, client := range clients {
		wg.Go(func() {
			c, err := store.New(client, store.Options{}).Claim(t.Context(), store.Writer{Process: i, Since: time.Now()}, shortest)
			if err != nil && !errors.Is(err, store.ErrHeld) {
				t.Errorf("claim %d gave %v, want none or ErrHeld", i, err)
			}
			claims[i] = c
		})
	}
	wg.Wait()
	won := 0
	for _, c := range claims {
		if c != nil {
			won++
			c.Release()
		}
	}
	if won != 1 {
		t.Errorf("%d writers claimed one store, want 1", won)
	}
}

// end ends the lease of whoever holds the store, as a pause longer than it would.
func end(t *testing.T, client *clientv3.Client) {
	t.Helper()
	held, err := client.Get(t.Context(), store.DefaultPrefix+"writer")
	if err != nil || len(held.Kvs) != 1 {
		t.Fatalf("nobody holds the store: %v", err)
	}
	if _, err := client.Revoke(t.Context(), clientv3.LeaseID(held.Kvs[0].Lease)); err != nil {
		t.Fatal(err)
	}
}

func TestWriterThatSleptCannotWriteBesideTheNext(t *testing.T) {
	server, client := external(t)
	old, next := store.New(client, store.Options{}), store.New(connect(t, server), store.Options{})
	sleeper, err := old.Claim(t.Context(), store.Writer{Host: "alpha", Since: time.Now()}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer sleeper.Release()
	presented, record := token(1)
	if err := old.CreateToken(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	directoryOf := func(n byte) store.AcceptedDirectory {
		return store.AcceptedDirectory{Digest: directory.Digest{n}, Entries: []byte{n}}
	}
	if err := old.Directory("default").SetAcceptedDirectory(t.Context(), directoryOf(1)); err != nil {
		t.Fatal(err)
	}
	read, err := old.Token(t.Context(), presented.ID)
	if err != nil {
		t.Fatal(err)
	}
	end(t, client)
	taken := claim(t, next, "beta")
	defer taken.Release()
	for what, err := range map[string]error{
		"redeeming":          old.RedeemToken(t.Context(), read, epoch, keyID),
		"deleting a token":   old.DeleteToken(t.Context(), presented.ID),
		"accepting":          old.Directory("default").SetAcceptedDirectory(t.Context(), directoryOf(2)),
		"changing documents": second(old.ChangeDocuments(t.Context(), 0, change("a"))),
		"node records":       old.PutNodes(t.Context(), []store.NodeRecord{{Name: "sql1"}}),
	} {
		if !errors.Is(err, store.ErrNotWriter) {
			t.Errorf("%s beside the next writer gave %v, want ErrNotWriter", what, err)
		}
	}
	if got, err := next.Directory("default").AcceptedDirectory(t.Context()); err != nil || got.Digest != directoryOf(1).Digest {
		t.Errorf("the accepted directory is %v, %v; want the one before the take-over", got, err)
	}
	if err := next.RedeemToken(t.Context(), read, epoch, keyID); err != nil {
		t.Errorf("the next writer cannot redeem the token: %v", err)
	}
}

func second(_ int64, err error) error { return err }

func TestTakenOverWriterIsTold(t *testing.T) {
	server, client := external(t)
	loser := claim(t, store.New(client, store.Options{}), "alpha")
	defer loser.Release()
	// A take-over that alpha's next renewal finds: the lease is over and the revision is another.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	other := connect(t, server)
	if _, err := other.Put(ctx, store.DefaultPrefix+"writer-epoch", "somebody else"); err != nil {
		t.Fatal(err)
	}
	end(t, other)
	select {
	case err := <-loser.Lost():
		if !errors.Is(err, store.ErrNotWriter) {
			t.Errorf("told %v, want ErrNotWriter", err)
		}
	case <-ctx.Done():
		t.Fatalf("the writer was not told within %v that it was replaced", patience)
	}
}

// An etcd that is away for longer than the lease costs nothing when nobody else came in between.
func TestClaimOutlivesTheLease(t *testing.T) {
	server, client := external(t)
	s := store.New(client, store.Options{})
	c := claim(t, s, "alpha")
	defer c.Release()
	end(t, client)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for watch := client.Watch(ctx, store.DefaultPrefix+"writer", clientv3.WithRev(1), clientv3.WithPrefix()); ; {
		if held, err := client.Get(ctx, store.DefaultPrefix+"writer"); err != nil {
			t.Fatal(err)
		} else if len(held.Kvs) == 1 {
			break
		}
		<-watch
	}
	if _, err := s.ChangeDocuments(ctx, 0, change("a")); err != nil {
		t.Errorf("writing after the claim was renewed: %v", err)
	}
	_, err := store.New(connect(t, server), store.Options{}).Claim(ctx, store.Writer{Host: "beta", Since: time.Now()}, shortest)
	if !errors.Is(err, store.ErrHeld) {
		t.Errorf("beside the renewed claim another gave %v, want ErrHeld", err)
	}
	select {
	case err := <-c.Lost():
		t.Errorf("the claim was lost: %v", err)
	default:
	}
}

// A writer that crashed is waited for, no longer than its lease.
func TestClaimAfterACrash(t *testing.T) {
	server, client := external(t)
	crashed := connect(t, server)
	c := claim(t, store.New(crashed, store.Options{}), "alpha")
	if err := crashed.Close(); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	defer c.Release()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	next, err := store.New(client, store.Options{}).Claim(ctx, store.Writer{Host: "beta", Since: time.Now()}, 5*time.Second)
	if err != nil {
		t.Fatalf("after the crash: %v", err)
	}
	next.Release()
}
