package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
)

func accepted(t *testing.T, s *store.Store) {
	if _, err := s.Directory(store.DefaultDirectory).AcceptedDirectory(t.Context()); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("no directory was accepted, but the error is %v", err)
	}
	for n := range byte(12) {
		want := store.AcceptedDirectory{
			Digest: directory.Digest{n, 9}, Entries: []byte{n, 0, 255}, Accepted: epoch,
		}
		if n%2 == 0 {
			want.Tombstones = []store.Tombstone{{Machine: directory.UUID{n + 1}, Name: "ws1", Since: epoch}}
		}
		if n%3 == 0 {
			want.Guard = []byte{255, n}
		}
		if err := s.Directory(store.DefaultDirectory).SetAcceptedDirectory(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		got, err := s.Directory(store.DefaultDirectory).AcceptedDirectory(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("accepted directory %d (-want +got):\n%s", n, diff)
		}
	}
}

func acceptedLarge(t *testing.T, s *store.Store) {
	entries := bytes.Repeat([]byte("0123456789abcdef"), 3<<20/16)
	if err := s.Directory(store.DefaultDirectory).SetAcceptedDirectory(t.Context(), store.AcceptedDirectory{Entries: entries, Accepted: epoch}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Directory(store.DefaultDirectory).AcceptedDirectory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Entries, entries) {
		t.Errorf("%d octets read back, wanted the same %d", len(got.Entries), len(entries))
	}
}

// everyTombstone: however many machines vanished, each keeps its place.
func everyTombstone(t *testing.T, s *store.Store) {
	want := store.AcceptedDirectory{Entries: []byte("entries"), Guard: bytes.Repeat([]byte("recent"), 1<<18), Accepted: epoch}
	for i := range 20_000 {
		want.Tombstones = append(want.Tombstones, store.Tombstone{
			Machine: directory.UUID{1, byte(i >> 8), byte(i)}, Name: fmt.Sprintf("ws%05d", i), DN: fmt.Sprintf("cn=ws%05d,dc=bank,dc=example", i), Since: epoch,
		})
	}
	d := s.Directory("branch")
	if err := d.SetAcceptedDirectory(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	got, err := d.AcceptedDirectory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%d tombstones read back of %d", len(got.Tombstones), len(want.Tombstones))
	}
}

// apart: each directory has a state of its own, which can be forgotten without the others'.
func apart(t *testing.T, s *store.Store) {
	names := []string{"bank", "branch", store.DefaultDirectory}
	for i, name := range names {
		a := store.AcceptedDirectory{Digest: directory.Digest{byte(i)}, Entries: []byte(name), Accepted: epoch}
		if err := s.Directory(name).SetAcceptedDirectory(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	for _, forgotten := range append([]string{""}, names...) {
		if forgotten != "" {
			if err := s.Directory(forgotten).Forget(t.Context()); err != nil {
				t.Fatal(err)
			}
			names = slices.DeleteFunc(names, func(n string) bool { return n == forgotten })
			if _, err := s.Directory(forgotten).AcceptedDirectory(t.Context()); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s is forgotten, but reading it gave %v", forgotten, err)
			}
		}
		got, err := s.Directories(t.Context())
		if err != nil || !slices.Equal(got, names) {
			t.Errorf("directories %v, error %v, wanted %v", got, err, names)
		}
		for _, name := range names {
			if a, err := s.Directory(name).AcceptedDirectory(t.Context()); err != nil || string(a.Entries) != name {
				t.Errorf("directory %s holds %q, error %v", name, a.Entries, err)
			}
		}
	}
}

// events: they are kept in their order, also those of one moment, and the oldest go.
func events(t *testing.T, s *store.Store) {
	for i := range 5 {
		e := store.DirectoryEvent{At: epoch.Add(time.Duration(i/2) * time.Second), Source: []string{"bank", "branch"}[i%2], Kind: "held", By: "alice", Text: fmt.Sprint(i)}
		if err := s.AppendDirectoryEvent(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	texts := func(source string, limit int) (out string) {
		t.Helper()
		list, err := s.DirectoryEvents(t.Context(), source, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			out += e.Text
		}
		return out
	}
	for _, want := range []struct {
		source string
		limit  int
		texts  string
	}{{"", 100, "01234"}, {"", 2, "34"}, {"bank", 100, "024"}, {"branch", 1, "3"}, {"nobody", 5, ""}} {
		if got := texts(want.source, want.limit); got != want.texts {
			t.Errorf("the latest %d of %q are %q, wanted %q", want.limit, want.source, got, want.texts)
		}
	}
	if n, err := s.PruneDirectoryEvents(t.Context(), epoch.Add(time.Second)); n != 2 || err != nil {
		t.Errorf("pruned %d, %v, wanted 2", n, err)
	}
	if got := texts("", 100); got != "234" {
		t.Errorf("after pruning %q, wanted 234", got)
	}
}
