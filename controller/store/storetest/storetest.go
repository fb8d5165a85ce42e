// Package storetest is the contract of store.Store as a test suite: it holds for every etcd that the controller may be
// given. It makes no etcd of its own.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

var epoch = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

// Run runs the suite. open returns a Store over an empty key space of its own at each call.
func Run(t *testing.T, open func(t *testing.T) *store.Store) {
	for name, test := range map[string]func(*testing.T, *store.Store){
		"documents keep every octet":            documentsRoundTrip,
		"a change is whole or not at all":       documentsAtomic,
		"a change against an old revision":      documentsConflict,
		"deleting what is not there":            documentsDeleteMissing,
		"too many documents for a transaction":  documentsTooMany,
		"a watch hints at a change":             documentsWatch,
		"exactly one of many redeems a token":   tokenRace,
		"a token is created once":               tokenTwice,
		"expired tokens are pruned":             tokenPrune,
		"an unread token cannot be redeemed":    tokenUnread,
		"an intention is recorded once":         journal,
		"ended issuances are pruned":            journalPrune,
		"issuances without an end are kept":     journalEndless,
		"revocations are changed as a whole":    revocations,
		"numbers of lists are drawn once":       crlNumbers,
		"lists of roots are replaced":           rootLists,
		"barred machines are remembered":        holdings,
		"the journal is found by its index":     journalIndex,
		"node records are replaced":             nodes,
		"a secret is written once per revision": secrets,
		"the accepted directory is replaced":    accepted,
		"a large directory is stored in chunks": acceptedLarge,
		"every vanished machine is kept":        everyTombstone,
		"directories are kept apart":            apart,
		"directory events are only added":       events,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func put(docs ...store.Document) store.DocumentChange {
	return store.DocumentChange{Put: docs, By: "root", At: epoch}
}

func doc(kind, name, content string) store.Document {
	return store.Document{DocumentKey: store.DocumentKey{Kind: kind, Name: name}, Content: []byte(content)}
}

func mustDocuments(t *testing.T, s *store.Store) store.Documents {
	t.Helper()
	docs, err := s.Documents(t.Context())
	if err != nil {
		t.Fatalf("reading the documents: %v", err)
	}
	return docs
}

func mustChange(t *testing.T, s *store.Store, base int64, c store.DocumentChange) int64 {
	t.Helper()
	revision, err := s.ChangeDocuments(t.Context(), base, c)
	if err != nil {
		t.Fatalf("changing documents: %v", err)
	}
	return revision
}

func documentsRoundTrip(t *testing.T, s *store.Store) {
	if docs := mustDocuments(t, s); docs.Revision != 0 || len(docs.List) != 0 {
		t.Fatalf("empty store has revision %d and %d documents", docs.Revision, len(docs.List))
	}
	want := []store.Document{
		doc("FilterAction", "a/b %2F ../c", "# über\nname: \"x\"\n\n"),
		doc("Policy", "Client (Respond Only)", "tab:\there\r\n"),
	}
	revision := mustChange(t, s, 0, put(want...))
	docs := mustDocuments(t, s)
	if docs.Revision != revision {
		t.Errorf("documents are at revision %d, the change returned %d", docs.Revision, revision)
	}
	for i := range want {
		want[i].Revision, want[i].Changed, want[i].By = revision, epoch, "root"
	}
	if diff := cmp.Diff(want, docs.List); diff != "" {
		t.Errorf("documents read back (-want +got):\n%s", diff)
	}
	if _, ok := docs.Get(store.DocumentKey{Kind: "Policy", Name: "none"}); ok {
		t.Error("a document that does not exist was found")
	}
}

func documentsAtomic(t *testing.T, s *store.Store) {
	revision := mustChange(t, s, 0, put(doc("Policy", "a", "1"), doc("Policy", "b", "1")))
	change := put(doc("Policy", "a", "2"), doc("Policy", "c", "2"))
	change.Delete = []store.DocumentKey{{Kind: "Policy", Name: "b"}}
	mustChange(t, s, revision, change)
	got := map[string]string{}
	for _, d := range mustDocuments(t, s).List {
		got[d.Name] = string(d.Content)
	}
	if diff := cmp.Diff(map[string]string{"a": "2", "c": "2"}, got); diff != "" {
		t.Errorf("after the change (-want +got):\n%s", diff)
	}
}

func documentsConflict(t *testing.T, s *store.Store) {
	revision := mustChange(t, s, 0, put(doc("Policy", "a", "1")))
	mustChange(t, s, revision, put(doc("Policy", "b", "1")))
	_, err := s.ChangeDocuments(t.Context(), revision, put(doc("Policy", "a", "lost update")))
	if !errors.Is(err, store.ErrConflict) {
		t.Errorf("a change against an old revision gave %v, wanted ErrConflict", err)
	}
	_, err = s.ChangeDocuments(t.Context(), 0, put(doc("Policy", "a", "lost update")))
	if !errors.Is(err, store.ErrConflict) {
		t.Errorf("a change against the empty store gave %v, wanted ErrConflict", err)
	}
	if d, _ := mustDocuments(t, s).Get(store.DocumentKey{Kind: "Policy", Name: "a"}); string(d.Content) != "1" {
		t.Errorf("document a is %q, wanted the first content", d.Content)
	}
}

func documentsDeleteMissing(t *testing.T, s *store.Store) {
	revision := mustChange(t, s, 0, put(doc("Policy", "a", "1")))
	change := put(doc("Policy", "b", "1"))
	change.Delete = []store.DocumentKey{{Kind: "Policy", Name: "none"}}
	if _, err := s.ChangeDocuments(t.Context(), revision, change); !errors.Is(err, store.ErrConflict) {
		t.Errorf("deleting a missing document gave %v, wanted ErrConflict", err)
	}
	if got := mustDocuments(t, s); got.Revision != revision {
		t.Errorf("the refused change moved the revision from %d to %d", revision, got.Revision)
	}
}

func documentsTooMany(t *testing.T, s *store.Store) {
	var docs []store.Document
	for i := range 20_000 {
		docs = append(docs, doc("Policy", fmt.Sprint(i), "1"))
	}
	if _, err := s.ChangeDocuments(t.Context(), 0, put(docs...)); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("20,000 documents at once gave %v, wanted ErrTooLarge", err)
	}
	large := doc("Policy", "large", string(bytes.Repeat([]byte("x"), 2<<20)))
	if _, err := s.ChangeDocuments(t.Context(), 0, put(large)); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("a document of 2 MiB gave %v, wanted ErrTooLarge", err)
	}
	if got := mustDocuments(t, s); len(got.List) != 0 {
		t.Errorf("%d documents were stored by refused changes", len(got.List))
	}
}

func documentsWatch(t *testing.T, s *store.Store) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	hints := s.WatchDocuments(ctx)
	// The first hint comes by itself; from then on a change must lead to a hint after which it is read.
	<-hints
	mustChange(t, s, 0, put(doc("Policy", "a", "1")))
	for range hints {
		if len(mustDocuments(t, s).List) == 1 {
			break
		}
	}
	cancel()
	for range hints {
	}
}

func token(n byte) (enroll.Token, store.Token) {
	t := enroll.NewToken([enroll.EntropySize]byte{n}, pki.KeyID{1})
	return t, store.Token{
		Stored: enroll.NewStored(epoch, t, pki.UUID{n}, time.Hour), MachineName: "sql1", MachineDN: "cn=sql1,dc=bank", By: "root",
	}
}

func tokenRace(t *testing.T, s *store.Store) {
	presented, record := token(1)
	if err := s.CreateToken(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	const callers = 32
	var won atomic.Int32
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			read, err := s.Token(t.Context(), presented.ID)
			if err != nil {
				t.Errorf("reading the token: %v", err)
				return
			}
			if enroll.Verify(epoch, read.Stored, presented) != nil {
				return // somebody was faster before this one read
			}
			switch err := s.RedeemToken(t.Context(), read, epoch, pki.KeyID{7}); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, store.ErrConflict):
				t.Errorf("redeeming too late gave %v, wanted ErrConflict", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d callers redeemed one token", won.Load())
	}
	after, err := s.Token(t.Context(), presented.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := enroll.Verify(epoch, after.Stored, presented); !errors.Is(err, enroll.ErrTokenUsed) {
		t.Errorf("the redeemed token verifies as %v, wanted ErrTokenUsed", err)
	}
}

func tokenTwice(t *testing.T, s *store.Store) {
	_, record := token(1)
	if err := s.CreateToken(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateToken(t.Context(), record); !errors.Is(err, store.ErrConflict) {
		t.Errorf("creating a token twice gave %v, wanted ErrConflict", err)
	}
	if err := s.DeleteToken(t.Context(), record.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteToken(t.Context(), record.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("deleting a token twice gave %v, wanted ErrNotFound", err)
	}
	if _, err := s.Token(t.Context(), record.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("reading a deleted token gave %v, wanted ErrNotFound", err)
	}
}

func tokenPrune(t *testing.T, s *store.Store) {
	_, first := token(1)
	_, second := token(2)
	second.NotAfter = epoch.Add(48 * time.Hour)
	for _, record := range []store.Token{first, second} {
		if err := s.CreateToken(t.Context(), record); err != nil {
			t.Fatal(err)
		}
	}
	pruned, err := s.PruneTokens(t.Context(), epoch.Add(2*time.Hour))
	if err != nil || pruned != 1 {
		t.Fatalf("pruned %d tokens, error %v; wanted 1", pruned, err)
	}
	left, err := s.Tokens(t.Context())
	if err != nil || len(left) != 1 || left[0].ID != second.ID {
		t.Errorf("left are %v, error %v; wanted the second alone", left, err)
	}
}

func tokenUnread(t *testing.T, s *store.Store) {
	_, record := token(1)
	if err := s.CreateToken(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	if err := s.RedeemToken(t.Context(), record, epoch, pki.KeyID{7}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("redeeming a record that was not read gave %v, wanted ErrConflict", err)
	}
}

func journal(t *testing.T, s *store.Store) {
	intention := ca.Intention{Serial: "0a1b", Profile: "machine", Subject: "bailiwick://bank.example/machine/x", Prepared: epoch, TBS: []byte{0x30, 0}}
	if err := s.Complete(t.Context(), intention.Serial, []byte{1}); err == nil {
		t.Error("a certificate that was never intended was completed")
	}
	if err := s.Record(t.Context(), intention); err != nil {
		t.Fatal(err)
	}
	if err := s.Record(t.Context(), intention); !errors.Is(err, ca.ErrSerialRecorded) {
		t.Errorf("recording an intention twice gave %v, wanted ErrSerialRecorded", err)
	}
	if err := s.Complete(t.Context(), intention.Serial, []byte{1, 2}); err != nil {
		t.Fatal(err)
	}
	if err := s.Complete(t.Context(), intention.Serial, []byte{3}); !errors.Is(err, ca.ErrJournal) {
		t.Errorf("completing an intention twice gave %v, wanted ErrJournal", err)
	}
	got, err := s.Issuances(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]ca.Entry{{Intention: intention, Certificate: []byte{1, 2}}}, got); diff != "" {
		t.Errorf("journal (-want +got):\n%s", diff)
	}
}

// journalPrune holds more than two batches, complete and not, of which two of three are over.
func journalPrune(t *testing.T, s *store.Store) {
	var want []string
	for i := range 330 {
		intention := ca.Intention{Serial: fmt.Sprintf("%04x", i), Prepared: epoch, NotAfter: epoch.Add(time.Hour)}
		if i%3 == 0 {
			intention.NotAfter = epoch.Add(48 * time.Hour)
			want = append(want, intention.Serial)
		}
		if err := s.Record(t.Context(), intention); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := s.Complete(t.Context(), intention.Serial, []byte{1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, step := range []struct {
		before time.Time
		pruned int
	}{{epoch.Add(time.Hour), 0}, {epoch.Add(time.Hour + time.Nanosecond), 220}, {epoch.Add(24 * time.Hour), 0}} {
		if pruned, err := s.PruneIssuances(t.Context(), step.before); err != nil || pruned != step.pruned {
			t.Errorf("before %v pruned %d entries, error %v; wanted %d", step.before, pruned, err, step.pruned)
		}
	}
	left, err := s.Issuances(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range left {
		got = append(got, e.Intention.Serial)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("left in the journal (-want +got):\n%s", diff)
	}
}

// journalEndless: an entry that says nothing of its end is kept.
func journalEndless(t *testing.T, s *store.Store) {
	if err := s.Record(t.Context(), ca.Intention{Serial: "01"}); err != nil {
		t.Fatal(err)
	}
	if pruned, err := s.PruneIssuances(t.Context(), epoch.AddDate(100, 0, 0)); err != nil || pruned != 0 {
		t.Errorf("pruned %d entries without an end, error %v; wanted none", pruned, err)
	}
}

func nodes(t *testing.T, s *store.Store) {
	var records []store.NodeRecord
	for i := range 300 {
		records = append(records, store.NodeRecord{Machine: directory.UUID{1, byte(i >> 8), byte(i)}, Revision: 1, Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})})
	}
	if err := s.PutNodes(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	records[7].Revision, records[7].Error = 2, "no offer"
	if err := s.PutNodes(t.Context(), records[7:8]); err != nil {
		t.Fatal(err)
	}
	got, err := s.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(records, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("records read back (-want +got):\n%s", diff)
	}
}
