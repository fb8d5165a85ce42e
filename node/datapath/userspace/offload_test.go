package userspace_test

import (
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace"
	"github.com/bailiwick-net/bailiwick/node/esp/aesgcm"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

// Who looks for the reason of slow packets finds it in the status; where nothing is missing, nothing is said.
func TestStatusNamesMissingOffloads(t *testing.T) {
	l := labtest.New(t, "bwdpo-")
	h, err := l.Host("a")
	if err != nil {
		t.Fatal(err)
	}
	for _, without := range []bool{false, true} {
		var notes string
		err := h.Do(func() error {
			sockets, err := transport.Listen(transport.Config{Mark: userspace.MarkOwn, NoOffload: without})
			if err != nil {
				return err
			}
			defer sockets.Close()
			var b datapath.Backend
			if b, err = userspace.New(userspace.Config{Sockets: sockets}); err != nil {
				return err
			}
			notes = strings.Join(b.Status().Notes, " ")
			return b.Close(true)
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"UDP_SEGMENT", "UDP_GRO"} {
			if strings.Contains(notes, name) != without {
				t.Errorf("without offloads %v: notes are %q", without, notes)
			}
		}
		if !strings.Contains(notes, aesgcm.Chosen().String()) {
			t.Errorf("notes are %q and do not name the implementation of AES-GCM, %s", notes, aesgcm.Chosen())
		}
	}
}
