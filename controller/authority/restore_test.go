package authority_test

import (
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/controller/authority"
)

// backup copies everything that the store of a space holds into another space: what a restore from a backup of this moment
// gives back.
func (s *space) backup() *space {
	s.t.Helper()
	resp, err := server.Client().Get(s.t.Context(), s.prefix, clientv3.WithPrefix())
	if err != nil {
		s.t.Fatal(err)
	}
	restored := newSpace(s.t)
	restored.now = s.now
	for _, kv := range resp.Kvs {
		key := restored.prefix + strings.TrimPrefix(string(kv.Key), s.prefix)
		if _, err := server.Client().Put(s.t.Context(), key, string(kv.Value)); err != nil {
			s.t.Fatal(err)
		}
	}
	return restored
}

// A store that comes back from a backup has forgotten what was numbered since. Nothing of it is numbered again: no serial
// number, no revocation list, and no trust bundle that nodes would refuse as older than theirs.
func TestNothingIsNumberedTwiceAfterARestore(t *testing.T) {
	s := newSpace(t)
	k := s.open()
	restored := s.backup()

	serials, numbers := map[string]bool{}, map[uint64]bool{}
	use := func(s *space, k *authority.Keeper) {
		t.Helper()
		for range 20 {
			serial := mustIssue(t, s, k).Leaf.SerialNumber.Text(16)
			if serials[serial] {
				t.Errorf("the serial number %s was used twice", serial)
			}
			serials[serial] = true
			s.now = s.now.Add(time.Second)
			number, err := s.store().NextCRLNumber(t.Context())
			if err != nil || numbers[number] {
				t.Errorf("the number %d of a revocation list was drawn twice, or %v", number, err)
			}
			for before := range numbers {
				if before > number {
					t.Fatalf("a revocation list has the number %d after one with %d", number, before)
				}
			}
			numbers[number] = true
		}
	}
	use(s, k)
	for range 5 { // five revisions that the backup does not know
		next, err := k.PrepareNext(t.Context(), authority.Preparation{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Retire(t.Context(), next.ID, false, ""); err != nil {
			t.Fatal(err)
		}
	}
	heard := k.Trust().Revision()

	restored.now = s.now.Add(time.Minute)
	again := restored.open()
	if again.Trust().Revision() >= heard {
		t.Fatal("the backup is as new as what was restored over")
	}
	use(restored, again)
	if _, err := again.PrepareNext(t.Context(), authority.Preparation{}); err != nil {
		t.Fatal(err)
	}
	if got := again.Trust().Revision(); got <= heard {
		t.Errorf("after the restore the trust bundle is numbered %d, nodes have heard of %d and refuse it", got, heard)
	}
}
