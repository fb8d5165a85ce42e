package ldap

import (
	"errors"
	"slices"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// FuzzAnswers lets a server answer a search of the tree by any octets, while it is polled and while it is synchronized.
// What comes of it is a snapshot that can be built again, or an error that says so; a server that talks nonsense must not
// end the controller.
func FuzzAnswers(f *testing.F) {
	a := newActor(f, small)
	var page, refresh []byte
	for _, e := range a.entries {
		page = append(page, entryMessage(3, e.Entry)...)
		refresh = append(refresh, syncEntryMessage(2, e, goldap.SyncStateAdd, "")...)
	}
	f.Add(slices.Concat(page, ends(0)(3)), true)
	f.Add(slices.Concat(page, ends(0, &goldap.ControlPaging{Cookie: []byte("3")})(3)), true)
	f.Add(slices.Concat(page[:100], reference(3)), true)
	f.Add(slices.Concat(refresh, refreshDone(2, a.cookie(0))), false)
	f.Add(slices.Concat(presentMessage(2, []directory.UUID{{15: 1}}), ends(resultSyncRefreshRequired)(2)), false)
	f.Fuzz(func(t *testing.T, octets []byte, polls bool) {
		a := newActor(t, small)
		a.search = func(c *actorConn, id int64, _ *ber.Packet, _ string) bool {
			c.send(renumbered(octets, id))
			c.send(nil)
			return true
		}
		s := a.reader(t, func(c *Config) { c.PollOnly, c.DoubtTime, c.Timeout = polls, -1, time.Second })
		defer a.close()
		defer s.Close()
		snap, err := s.Next(t.Context())
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("error %v is no *Error", err)
		}
		if err == nil {
			if c, _, _ := snap.Len(); c == 0 {
				t.Fatal("an empty snapshot")
			}
		}
	})
}

// renumbered makes the messages that can be told apart those of a request.
func renumbered(octets []byte, id int64) []byte {
	var out []byte
	for len(octets) > 0 {
		p, err := ber.DecodePacketErr(octets)
		if err != nil || len(p.Children) == 0 || len(p.Bytes()) == 0 || len(p.Bytes()) > len(octets) {
			return append(out, octets...)
		}
		n := len(p.Bytes())
		again := ber.NewSequence("")
		again.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, ""))
		for _, c := range p.Children[1:] {
			again.AppendChild(c)
		}
		out, octets = append(out, again.Bytes()...), octets[n:]
	}
	return out
}
