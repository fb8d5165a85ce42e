package nftable

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOwnerOutlivesTheProcess closes the table as a process does that dies, in the middle of a list, while somebody else
// holds the socket. Others cannot flush the rules away, and the next process goes on with them.
func TestOwnerOutlivesTheProcess(t *testing.T) {
	for _, mode := range []struct {
		name   string
		copies func() []*holding
	}{
		{"as the kernel can", nil},
		{"in two tables", func() []*holding { return twoCopies("bailiwick") }},
	} {
		t.Run(mode.name, func(t *testing.T) {
			w := newWire(t)
			var owner *os.File
			if err := w.host.Do(func() (err error) { owner, err = NewOwner(); return err }); err != nil {
				t.Fatal(err)
			}
			defer owner.Close()
			live := func() {
				t.Helper()
				if err := w.table.Close(); err != nil {
					t.Fatal(err)
				}
				if err := w.host.Do(func() (err error) { w.table, err = Open("bailiwick", owner); return err }); err != nil {
					t.Fatal(err)
				}
				if mode.copies != nil {
					held := w.table.copies[0].contents
					w.table.copies = mode.copies()
					w.table.copies[0].contents, w.table.copies[0].exists = held, len(held.chains) > 0
				}
			}
			live()
			if err := w.put(true); err != nil {
				t.Fatal(err)
			}
			w.traffic()
			defer w.end(t)
			other := w.opener(t)
			for range 5 {
				w.begin(t) // a list that is never read to its end
				live()
				if err := flushRuleset(other); err != nil {
					t.Fatal(err)
				}
				w.more(t)
				if err := w.put(true); err != nil {
					t.Fatal(err)
				}
				w.more(t)
			}
			if leaked, came := w.leaked.Load(), w.came.Load(); leaked != 0 || came != 0 {
				t.Errorf("%d packets left in clear that were to be protected, %d came in", leaked, came)
			}
			w.control(t, other)
		})
	}
}

// begin asks for all rules and does not read them.
func (w *wire) begin(t *testing.T) {
	t.Helper()
	x := &transaction{}
	x.begin(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP)
	x.end()
	binary.NativeEndian.PutUint32(x.b[8:], w.table.socket.serial+1)
	if err := w.table.socket.send(x.b); err != nil {
		t.Fatal(err)
	}
}

func TestOwnerIsASocketOfTheNamespace(t *testing.T) {
	w := newWire(t)
	defer func() {
		if err := errors.Join(w.in.Close(), w.out.Close(), w.table.Close(), w.card.Close()); err != nil {
			t.Error(err)
		}
	}()
	r, p, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer p.Close()
	if _, err := Open("bailiwick", r); err == nil {
		t.Error("a pipe was taken for the socket of nftables")
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	route := os.NewFile(uintptr(fd), "route")
	defer route.Close()
	if _, err := Open("bailiwick", route); err == nil {
		t.Error("a socket of rtnetlink was taken for one of nftables")
	}
	elsewhere, err := NewOwner()
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	err = w.host.Do(func() error { _, err := Open("bailiwick", elsewhere); return err })
	if err == nil {
		t.Error("a socket of another network namespace was taken")
	}
}
