package mirror

import (
	"errors"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
)

// FuzzRestore unpacks any octets as the entries of the accepted directory. What can be unpacked is packed again to the same
// directory; the rest is corrupt, and never an empty directory.
func FuzzRestore(f *testing.F) {
	good, err := encode(&View{Snapshot: tree(f, 3)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Entries, "cn=gone,dc=bank,dc=example")
	f.Add(good.Entries[:len(good.Entries)/2], "")
	f.Add([]byte{}, "dc=x")
	f.Fuzz(func(t *testing.T, entries []byte, dn string) {
		view, err := restore(store.AcceptedDirectory{Entries: entries, Tombstones: []store.Tombstone{{Name: "gone", DN: dn}}}, time.Hour)
		if err != nil {
			if !errors.Is(err, store.ErrCorrupt) {
				t.Fatalf("error %v does not wrap ErrCorrupt", err)
			}
			return
		}
		packed, err := encode(view)
		if err != nil {
			t.Fatal(err)
		}
		again, err := restore(packed, time.Hour)
		if err != nil || again.Snapshot.Digest() != view.Snapshot.Digest() {
			t.Fatalf("what was restored is packed to something else: %v", err)
		}
	})
}
