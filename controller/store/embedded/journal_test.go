package embedded_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/controller/store/embedded"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/journal"
)

// audit reads the whole journal and fails the test where it does not hold together.
func audit(t *testing.T, s *store.Store, remembered ...journal.Head) *journal.Audit {
	t.Helper()
	a := &journal.Audit{}
	for _, h := range remembered {
		if err := a.Expect(h); err != nil {
			t.Fatal(err)
		}
	}
	head, err := s.ReadJournal(t.Context(), 1, func(line []byte) error {
		_, err := a.Add(line)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.End(); err != nil {
		t.Fatal(err)
	}
	if a.Head() != head {
		t.Fatalf("the records end at %v, the head is %v", a.Head(), head)
	}
	return a
}

func intention(serial string) ca.Intention {
	at := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	return ca.Intention{Serial: serial, Profile: "machine", Subject: "bailiwick://bank.example/machine/x", NotBefore: at, NotAfter: at.Add(time.Hour), Prepared: at, TBS: []byte(serial)}
}

// Two controllers that write at once make one chain, and of a serial number that both want one gets it.
func TestTwoWritersMakeOneJournal(t *testing.T) {
	e := start(t, t.TempDir())
	defer e.Close()
	stores := []*store.Store{
		store.New(e.Client(), store.Options{MaxOps: embedded.MaxTxnOps}), store.New(e.Client(), store.Options{MaxOps: 16}),
	}
	const writers, each = 8, 15
	var running sync.WaitGroup
	var guarded struct {
		sync.Mutex
		refused int
	}
	for w := range writers {
		for i, s := range stores {
			running.Go(func() {
				for n := range each {
					own := fmt.Sprintf("%x%02x%02x", i+10, w, n)
					if err := s.Record(t.Context(), intention(own)); err != nil {
						t.Errorf("recording %s: %v", own, err)
						continue
					}
					if err := s.Complete(t.Context(), own, []byte("der "+own)); err != nil {
						t.Errorf("completing %s: %v", own, err)
					}
					switch err := s.Record(t.Context(), intention(fmt.Sprintf("f%02x%02x", w, n))); {
					case errors.Is(err, ca.ErrSerialRecorded):
						guarded.Lock()
						guarded.refused++
						guarded.Unlock()
					case err != nil:
						t.Errorf("recording a serial number that both want: %v", err)
					}
				}
			})
		}
	}
	running.Wait()
	if guarded.refused != writers*each {
		t.Errorf("%d serial numbers were refused to the second who wanted them, want %d", guarded.refused, writers*each)
	}
	a := audit(t, stores[0])
	if want := uint64(5 * writers * each); a.Head().Number != want {
		t.Errorf("the journal has %d records, want %d", a.Head().Number, want)
	}
	head, err := stores[1].JournalHead(t.Context())
	if err != nil || head != a.Head() {
		t.Errorf("the other store sees the head %v, %v, want %v", head, err, a.Head())
	}
}

// Changes that are wanted at the same time go into one transaction, and hold or fail each by itself: one of many that redeem a
// token, one of two that are the first of a machine, and everything that nothing stands against.
func TestChangesOfAMomentHoldEachByItself(t *testing.T) {
	e := start(t, t.TempDir())
	defer e.Close()
	s := store.New(e.Client(), store.Options{MaxOps: embedded.MaxTxnOps})
	at := intention("").NotBefore
	presented := enroll.NewToken([enroll.EntropySize]byte{1}, pki.KeyID{1})
	if err := s.CreateToken(t.Context(), store.Token{Stored: enroll.NewStored(at, presented, pki.UUID{1}, time.Hour)}); err != nil {
		t.Fatal(err)
	}
	token, err := s.Token(t.Context(), presented.ID)
	if err != nil {
		t.Fatal(err)
	}
	const each = 20
	var running sync.WaitGroup
	var redeemed, held atomic.Int32
	once := func(counter *atomic.Int32, err error) {
		switch {
		case err == nil:
			counter.Add(1)
		case !errors.Is(err, store.ErrConflict):
			t.Errorf("what somebody else was faster with gave %v, want ErrConflict", err)
		}
	}
	for n := range each {
		serial, machine := fmt.Sprintf("c%02x", n), pki.UUID{2, byte(n)}
		running.Go(func() { once(&redeemed, s.RedeemToken(t.Context(), token, at, pki.KeyID{byte(n)})) })
		running.Go(func() { once(&held, s.PutHolding(t.Context(), store.Holding{Machine: pki.UUID{1}, Serial: serial})) })
		running.Go(func() {
			if err := s.PutHolding(t.Context(), store.Holding{Machine: machine, Serial: serial}); err != nil {
				t.Errorf("a machine that nobody else wrote: %v", err)
			}
		})
		running.Go(func() {
			if err := errors.Join(s.Record(t.Context(), intention(serial)), s.Complete(t.Context(), serial, []byte("der"))); err != nil {
				t.Errorf("certificate %s: %v", serial, err)
			}
			if err := s.Complete(t.Context(), serial, []byte("other")); !errors.Is(err, ca.ErrJournal) {
				t.Errorf("completing %s twice gave %v, want ErrJournal", serial, err)
			}
		})
	}
	running.Wait()
	if redeemed.Load() != 1 || held.Load() != 1 {
		t.Errorf("%d redeemed the token, and %d were the first of the machine; want one each", redeemed.Load(), held.Load())
	}
	all, err := s.Holdings(t.Context())
	if err != nil || len(all) != each+1 {
		t.Errorf("%d machines hold something, %v; want %d", len(all), err, each+1)
	}
	if a := audit(t, s); a.Head().Number != 2*each {
		t.Errorf("the journal has %d records, want %d", a.Head().Number, 2*each)
	}
}

// Whoever changes a record in the store is found out by the next audit, and whoever changes the head by the next record.
func TestJournalInTheStoreIsAudited(t *testing.T) {
	e := start(t, t.TempDir())
	defer e.Close()
	s := store.New(e.Client(), store.Options{MaxOps: embedded.MaxTxnOps})
	for n := range 3 {
		if err := s.Record(t.Context(), intention(fmt.Sprintf("a%d", n))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RecordEvent(t.Context(), journal.Event{Kind: "rotation", What: "prepared"}); err != nil {
		t.Fatal(err)
	}
	head := audit(t, s).Head()
	if head.Number != 4 {
		t.Fatalf("head %v, want record 4", head)
	}
	key := store.DefaultPrefix + "journal/records/0000000000000002"
	if _, err := e.Client().Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	var a journal.Audit
	_, err := s.ReadJournal(t.Context(), 1, func(line []byte) error {
		_, err := a.Add(line)
		return err
	})
	if !errors.Is(err, journal.ErrJournal) {
		t.Errorf("a record that was taken out gave %v", err)
	}
	// A head that was set back would have the next record written over one that exists.
	if _, err := e.Client().Put(t.Context(), store.DefaultPrefix+"journal/head", `{"number":2,"digest":"`+head.Digest.String()+`"}`); err != nil {
		t.Fatal(err)
	}
	again := store.New(e.Client(), store.Options{MaxOps: embedded.MaxTxnOps})
	if err := again.Record(t.Context(), intention("b0")); err == nil {
		t.Error("a record was written over another one")
	}
}
