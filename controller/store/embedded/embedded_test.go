package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/controller/store/embedded"
	"github.com/bailiwick-net/bailiwick/controller/store/storetest"
)

func start(t *testing.T, dir string) *embedded.Etcd {
	t.Helper()
	e, err := embedded.Start(t.Context(), embedded.Config{Dir: dir})
	if err != nil {
		t.Fatalf("starting etcd: %v", err)
	}
	return e
}

func TestContract(t *testing.T) {
	e := start(t, t.TempDir())
	defer e.Close()
	var n atomic.Int32
	storetest.Run(t, func(*testing.T) *store.Store {
		return store.New(e.Client(), store.Options{Prefix: fmt.Sprintf("/test/%d/", n.Add(1)), MaxOps: embedded.MaxTxnOps})
	})
}

func TestRestartKeepsState(t *testing.T) {
	dir := t.TempDir()
	change := store.DocumentChange{Put: []store.Document{{DocumentKey: store.DocumentKey{Kind: "Policy", Name: "a"}, Content: []byte("x")}}}
	e := start(t, dir)
	revision, err := store.New(e.Client(), store.Options{}).ChangeDocuments(t.Context(), 0, change)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatalf("closing: %v", err)
	}
	e = start(t, dir)
	defer e.Close()
	docs, err := store.New(e.Client(), store.Options{}).Documents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if docs.Revision != revision || len(docs.List) != 1 {
		t.Errorf("after the restart the revision is %d with %d documents, wanted %d with 1", docs.Revision, len(docs.List), revision)
	}
}

func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	e := start(t, dir)
	defer e.Close()
	if _, err := embedded.Start(context.Background(), embedded.Config{Dir: dir}); !errors.Is(err, embedded.ErrInUse) {
		t.Errorf("a second start in the same directory gave %v, wanted ErrInUse", err)
	}
}

func TestClosedStoreGivesErrors(t *testing.T) {
	e := start(t, t.TempDir())
	s := store.New(e.Client(), store.Options{})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if docs, err := s.Documents(t.Context()); err == nil {
		t.Errorf("a stopped store read as %d documents at revision %d", len(docs.List), docs.Revision)
	}
}
