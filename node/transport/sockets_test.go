package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCloseEndsReadIKE(t *testing.T) {
	n := newNamespace(t)
	s := n.listen(t, Config{})
	ended := make(chan error, 1)
	go func() {
		_, _, _, err := s.ReadIKE(make([]byte, 100))
		ended <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, want %v", err, ErrClosed)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("ReadIKE still waits after Close")
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	again := n.listen(t, Config{}) // the ports are free
	if !again.IPv6() {
		t.Error("no IPv6")
	}
}

func TestSocketOptions(t *testing.T) {
	n := newNamespace(t)
	s := n.listen(t, Config{Mark: 0x42, ReceiveBuffer: 3 << 20, Queues: 2})
	var all []*socket
	all = append(all, s.ike...)
	for i := range 2 {
		all = append(all, s.Queue(i).all...)
	}
	if len(all) != 2*shares+2*2+2*2 {
		t.Errorf("%d sockets, want %d IKE, four NAT and four raw", len(all), 2*shares)
	}
	for _, sock := range all {
		for _, o := range []struct {
			name                string
			level, option, want int
		}{
			{"mark", unix.SOL_SOCKET, unix.SO_MARK, 0x42},
			{"receive buffer, which the kernel doubles", unix.SOL_SOCKET, unix.SO_RCVBUF, 6 << 20},
		} {
			if got, err := unix.GetsockoptInt(sock.fd, o.level, o.option); err != nil || got != o.want {
				t.Errorf("%+v: %s: got %d, %v, want %d", sock, o.name, got, err, o.want)
			}
		}
	}
	var err error
	n.do(func() { _, err = Listen(Config{}) })
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("second Listen: got %v, want that the port is taken", err)
	}
	only4 := newNamespace(t).listen(t, Config{NoIPv6: true, NoRawESP: true})
	if got := len(only4.Queue(0).FDs()); got != 1 || only4.IPv6() {
		t.Errorf("IPv4 without raw ESP: %d descriptors", got)
	}
	m := &Message{Remote: addr("[::1]:4500"), Encap: true, Payload: []byte("12345678")}
	if err := only4.Queue(0).SendESP(m); !errors.Is(err, ErrNoSocket) {
		t.Errorf("IPv6: got %v, want %v", err, ErrNoSocket)
	}
	m = &Message{Remote: addr("127.0.0.1:0"), Payload: []byte("12345678")}
	if err := only4.Queue(0).SendESP(m); !errors.Is(err, ErrNoSocket) {
		t.Errorf("raw ESP: got %v, want %v", err, ErrNoSocket)
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	s := newNamespace(t).listen(t, Config{})
	q, b := s.Queue(0), NewBatch(4)
	loopback, payload := addr("127.0.0.1:4500"), esp(5, 500)
	allocated := testing.AllocsPerRun(50, func() {
		m := Message{Local: loopback, Remote: loopback, Encap: true, Payload: payload, SegmentLen: 500, TrafficClass: 1}
		if err := q.SendESP(&m); err != nil {
			t.Fatal(err)
		}
		if err := q.ReceiveESP(b); err != nil {
			t.Fatal(err)
		}
		for i := range b.Datagrams {
			for ok := true; ok; {
				_, _, ok = b.Datagrams[i].Next()
			}
		}
	})
	if allocated != 0 {
		t.Errorf("%v allocations, want 0", allocated)
	}
}

// A device without checksum offload makes UDP_SEGMENT fail with EIO on older kernels: the packets go one by one, then
// and from then on. This kernel never fails so, so the flag is what is tested.
func TestWithoutSegmentationPacketsGoOneByOne(t *testing.T) {
	s := newNamespace(t).listen(t, Config{})
	q := s.Queue(0)
	for _, sock := range q.all {
		sock.gso.Store(false)
	}
	m := &Message{Local: addr("127.0.0.1:4500"), Remote: addr("127.0.0.1:4500"), Encap: true, Payload: esp(7, 300), SegmentLen: 300}
	if err := q.SendESP(m); err != nil {
		t.Fatal(err)
	}
	if got, _ := receive(t, s, 7); got[6].octets != string(m.Payload[1800:]) {
		t.Errorf("last packet: got %x", got[6].octets)
	}
}

func TestPoller(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	p, err := NewPoller(pipe[0])
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Wait(0); err != nil || p.Ready(0) {
		t.Errorf("nothing written: ready %v, %v", p.Ready(0), err)
	}
	p.Wake()
	p.Wake()
	if err := p.Wait(-1); err != nil || p.Ready(0) {
		t.Errorf("woken before: ready %v, %v", p.Ready(0), err)
	}
	if err := p.Wait(time.Millisecond); err != nil || p.Ready(0) {
		t.Errorf("a wake-up counts once: ready %v, %v", p.Ready(0), err)
	}
	woken := make(chan error, 1)
	go func() { woken <- p.Wait(-1) }()
	p.Wake()
	if err := <-woken; err != nil {
		t.Error(err)
	}
	if _, err := unix.Write(pipe[1], []byte{1}); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(5 * time.Second); err != nil || !p.Ready(0) {
		t.Errorf("written: ready %v, %v", p.Ready(0), err)
	}
}

// Who wakes a thread that has just closed its Poller does not write to the file that got the descriptor next.
func TestClosedPollerIsNotWoken(t *testing.T) {
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	other, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	p.wake = other.wake // as it is where nobody else opened a file in between
	p.Wake()
	var counter [8]byte
	if _, err := unix.Read(other.wake, counter[:]); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a closed Poller woke another one: %v", err)
	}
}

// What build makes, with the receive names, parseControl reads; and it survives anything.
func FuzzParseControl(f *testing.F) {
	var c controlBuffer
	for _, local := range []netip.Addr{{}, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")} {
		f.Add(bytes.Clone(c.build(local.Is6(), local, 0xb8, 255, 1400)))
	}
	b, data := extend(make([]byte, 0, controlSize), unix.IPPROTO_UDP, unix.UDP_GRO, 4)
	binary.NativeEndian.PutUint32(data, 1400)
	f.Add(bytes.Clone(b))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c controlBuffer // parseControl reads structures, so the octets must be aligned as the kernel's are
		r := parseControl(c.octets[:copy(c.octets[:], b)])
		if r.local.IsValid() && !r.local.Is4() && !r.local.Is6() {
			t.Errorf("local address %v", r.local)
		}
	})
}

func TestControlRoundTrip(t *testing.T) {
	var c controlBuffer
	if got := parseControl(c.build(true, netip.MustParseAddr("2001:db8::1"), 0xb8, 7, 0)); got.hops != 7 || got.local != netip.MustParseAddr("2001:db8::1") || got.class != 0xb8 {
		t.Errorf("got %+v", got)
	}
	if got := parseControl(c.build(false, netip.MustParseAddr("192.0.2.1"), 0xb8, 255, 0)); got.class != 0xb8 || got.hops != 255 {
		t.Errorf("got %+v", got)
	}
	if got := c.build(true, netip.Addr{}, 0, 0, 0); len(got) != 0 {
		t.Errorf("nothing to say: got %x", got)
	}
}
