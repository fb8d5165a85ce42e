package ldap

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap/contentsync"
)

// TestNothingIsLostOfAFullBuffer has more entries wait than are applied at once: each is applied.
func TestNothingIsLostOfAFullBuffer(t *testing.T) {
	const entries = 3*streamBuffer + 7
	f := &follower{stream: &stream{events: make(chan event, entries)}, session: contentsync.Start(false)}
	for i := range entries {
		var u directory.UUID
		binary.BigEndian.PutUint32(u[:], uint32(i+1))
		item := contentsync.Item{DN: directory.MustParseDN(fmt.Sprintf("cn=m%d,dc=bank,dc=example", i))}
		f.stream.events <- event{message: contentsync.EntryState{State: contentsync.Add, UUID: u, Item: item}}
	}
	for len(f.stream.events) > 0 {
		if err := f.take(<-f.stream.events, true); err != nil {
			t.Fatal(err)
		}
	}
	if f.messages != entries {
		t.Errorf("%d of %d entries were applied", f.messages, entries)
	}
}
