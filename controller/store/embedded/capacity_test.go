package embedded_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/controller/store/embedded"
	"github.com/bailiwick-net/bailiwick/pki/journal"
)

// A record that cannot be written is refused, and those that were to be written with it are not.
func TestBadRecordHarmsNoOther(t *testing.T) {
	e := start(t, t.TempDir())
	defer e.Close()
	s := store.New(e.Client(), store.Options{MaxOps: embedded.MaxTxnOps})
	const good = 40
	var running sync.WaitGroup
	for range good {
		running.Go(func() {
			if err := s.RecordEvent(t.Context(), journal.Event{Kind: "rotation", What: "prepared"}); err != nil {
				t.Errorf("a good record beside a bad one: %v", err)
			}
		})
		running.Go(func() {
			bad := journal.Event{Kind: "rotation", What: strings.Repeat("x", 1<<20)}
			if err := s.RecordEvent(t.Context(), bad); !errors.Is(err, journal.ErrJournal) {
				t.Errorf("a text of 1 MiB gave %v, want ErrJournal", err)
			}
		})
	}
	running.Wait()
	if head := audit(t, s).Head(); head.Number != good {
		t.Errorf("the journal has %d records, want %d", head.Number, good)
	}
}

// The embedded etcd has the quota that is documented, and says how much of it is used.
func TestCapacity(t *testing.T) {
	e := start(t, t.TempDir())
	defer e.Close()
	s := store.New(e.Client(), store.Options{MaxOps: embedded.MaxTxnOps})
	c, err := s.Capacity(t.Context())
	if err != nil || c.Used <= 0 || c.Quota != embedded.Quota || c.Short() {
		t.Errorf("capacity %+v, error %v; want something of %d used", c, err, int64(embedded.Quota))
	}
	for used, short := range map[int64]bool{0: false, 79: false, 81: true, 120: true} {
		if got := (store.Capacity{Used: used, Quota: 100}).Short(); got != short {
			t.Errorf("of 100 %d are used: short is %v, want %v", used, got, short)
		}
	}
	if (store.Capacity{Used: 1 << 40}).Short() {
		t.Error("a store without a quota is short")
	}
}
