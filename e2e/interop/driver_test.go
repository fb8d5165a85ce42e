package interop_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// udp carries IKE over two plain sockets.
type udp struct {
	sockets   map[uint16]*net.UDPConn
	datagrams chan ike.Datagram
}

func newUDP(t *testing.T, h *lab.Host, at netip.Addr) *udp {
	t.Helper()
	u := &udp{sockets: make(map[uint16]*net.UDPConn), datagrams: make(chan ike.Datagram, 256)}
	err := h.Do(func() error {
		for _, port := range []uint16{500, 4500} {
			c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, port)))
			if err != nil {
				return err
			}
			u.sockets[port] = c
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for port, c := range u.sockets {
		t.Cleanup(func() { _ = c.Close() })
		go func() {
			buffer := make([]byte, 65536)
			for {
				n, from, err := c.ReadFromUDPAddrPort(buffer)
				if err != nil {
					return
				}
				b := slices.Clone(buffer[:n])
				if port == 4500 {
					if len(b) < 4 || string(b[:4]) != "\x00\x00\x00\x00" { // ESP or a keepalive
						continue
					}
					b = b[4:]
				}
				from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
				u.datagrams <- ike.Datagram{Local: netip.AddrPortFrom(at, port), Remote: from, Bytes: b}
			}
		}()
	}
	return u
}

func (u *udp) Datagrams() <-chan ike.Datagram { return u.datagrams }

func (u *udp) WriteIKE(local, remote netip.AddrPort, b []byte) error {
	if local.Port() == 4500 {
		b = append([]byte{0, 0, 0, 0}, b...)
	}
	_, err := u.sockets[local.Port()].WriteToUDPAddrPort(b, remote)
	return err
}

func (u *udp) WriteKeepalive(local, remote netip.AddrPort) error {
	_, err := u.sockets[local.Port()].WriteToUDPAddrPort([]byte{0xff}, remote)
	return err
}

// recorder is a datapath that remembers.
type recorder struct {
	events chan ike.Event
	mu     struct {
		sync.Mutex
		children map[sa.SPI]sa.Child
		current  []sa.SPI
		refused  []ike.Flow
		trace    []string
		failing  string // the step that the datapath refuses
	}
}

func newRecorder() *recorder {
	r := &recorder{events: make(chan ike.Event, 16)}
	r.mu.children = make(map[sa.SPI]sa.Child)
	return r
}

// errNoRoom is what a datapath says that takes no more.
var errNoRoom = errors.New("no room for another SA")

// fail lets a step be refused from now on; "" lets all succeed.
func (r *recorder) fail(step string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.failing = step
}

func (r *recorder) refuses(step string) error {
	if r.mu.failing == step {
		return errNoRoom
	}
	return nil
}

func (r *recorder) InstallIn(c sa.Child) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.refuses("inbound"); err != nil {
		return err
	}
	r.mu.children[c.In.SPI] = c
	return nil
}

func (r *recorder) InstallOut(sa.Child) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refuses("outbound")
}

func (r *recorder) SwitchOut(c sa.Child) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.refuses("switch"); err != nil {
		return err
	}
	r.mu.current = append(r.mu.current, c.In.SPI)
	return nil
}

func (r *recorder) Move(sa.SPI, netip.AddrPort, netip.AddrPort, bool) error { return nil }

func (r *recorder) Remove(in sa.SPI) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.children, in)
	return nil
}

func (r *recorder) Fallback(ike.Flow, time.Duration) error { return nil }

func (r *recorder) Refuse(f ike.Flow) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.refused = append(r.mu.refused, f)
	return nil
}

func (r *recorder) observe(a ike.Action) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch a := a.(type) {
	case *ike.Trace:
		r.mu.trace = append(r.mu.trace, a.String())
	case ike.Down:
		r.mu.trace = append(r.mu.trace, fmt.Sprintf("down %s %s", a.Reason, a.Detail))
	case ike.Refuse:
		r.mu.trace = append(r.mu.trace, fmt.Sprintf("refuse %s %s", a.Reason, a.Detail))
	}
}

func (r *recorder) only() (sa.Child, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.mu.children) != 1 {
		return sa.Child{}, false
	}
	for _, c := range r.mu.children {
		return c, slices.Contains(r.mu.current, c.In.SPI)
	}
	return sa.Child{}, false
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.mu.children)
}

// told reports whether the driver has told of something.
func (r *recorder) told(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.mu.trace, func(line string) bool { return strings.Contains(line, text) })
}
