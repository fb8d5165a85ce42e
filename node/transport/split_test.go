package transport

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Each kind of IKE message comes to the socket that is for it.
func TestSplit(t *testing.T) {
	n := newNamespace(t)
	from := n.listen(t, Config{IKEPort: 501, NATPort: 4501, IKEOnly: true})
	header := func(responder, first byte) []byte {
		b := bytes.Repeat([]byte{1}, 28)
		copy(b[8:16], make([]byte, 8))
		b[15], b[16] = responder, first
		return b
	}
	for family, at := range []struct{ from, to string }{{"127.0.0.1:501", "127.0.0.1:500"}, {"[::1]:501", "[::1]:500"}} {
		s := &Sockets{}
		s.cfg.setDefaults()
		var all []*socket
		var err error
		n.do(func() { all, err = s.openIKE(family == 1) })
		if err != nil {
			t.Fatal(err)
		}
		var fds []unix.PollFd
		for _, sock := range all {
			t.Cleanup(func() { _ = unix.Close(sock.fd) })
			fds = append(fds, unix.PollFd{Fd: int32(sock.fd), Events: unix.POLLIN})
		}
		if len(all) != shares {
			t.Fatalf("%d sockets, want %d", len(all), shares)
		}
		for _, c := range []struct {
			name    string
			message []byte
			share   int
		}{
			{"of an SA", header(7, 46), shareOthers},
			{"of an SA, with a notify first", header(1, 41), shareOthers},
			{"of an SA whose SPI ends with zeros", append(append(bytes.Repeat([]byte{1}, 12), 0, 0, 0, 0), header(0, 41)[16:]...), shareOthers},
			{"first with cookie", header(0, 41), shareCookies},
			{"first without cookie", header(0, 33), shareFirst},
			{"too short", []byte("short"), shareFirst},
		} {
			if err := from.WriteIKE(addr(at.from), addr(at.to), c.message); err != nil {
				t.Fatal(err)
			}
			if ready, err := unix.Poll(fds, int(5*time.Second/time.Millisecond)); err != nil || ready != 1 {
				t.Fatalf("%s: %d sockets are ready, %v", c.name, ready, err)
			}
			for share, fd := range fds {
				if fd.Revents == 0 {
					continue
				}
				if share != c.share {
					t.Errorf("%s to %s: share %d, want %d", c.name, at.to, share, c.share)
				}
				buffer := make([]byte, 100)
				if size, _, err := unix.Recvfrom(int(fd.Fd), buffer, unix.MSG_DONTWAIT); err != nil || !bytes.Equal(buffer[:size], c.message) {
					t.Errorf("%s: received %x, %v", c.name, buffer[:size], err)
				}
			}
		}
	}
}
