package tun_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/tun"
)

// inNamespace moves the test to a thread with a network namespace of its own, which vanishes with the thread.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making network namespaces and TUN devices needs root")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
}

func openDevice(t *testing.T, cfg tun.Config) *tun.Device {
	t.Helper()
	cfg.Name = "bwtx%d"
	d, err := tun.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

// mirror answers for the peer of a point-to-point link: it writes back what it reads, addresses swapped, so that
// traffic to the peer comes back to this host as if from the peer. It ends when the device is closed.
type mirror struct {
	segments, super, failures atomic.Uint64
	writer                    *tun.Writer
	done                      chan struct{}
}

func startMirror(t *testing.T, q *tun.Queue, change func([]byte)) *mirror {
	m := &mirror{writer: tun.NewWriter(q), done: make(chan struct{})}
	go func() {
		defer close(m.done)
		buf := make([]byte, tun.BufferSize)
		var s tun.Splitter
		for {
			h, pkt, err := q.Read(buf)
			if errors.Is(err, tun.ErrWouldBlock) {
				err = q.Wait(-1)
				if err == nil {
					continue
				}
			}
			if err != nil {
				if !errors.Is(err, tun.ErrClosed) {
					t.Errorf("read: %v", err)
				}
				return
			}
			if err := s.Reset(h, pkt); err != nil {
				t.Errorf("split %+v %x: %v", h, pkt[:min(len(pkt), 60)], err)
				continue
			}
			if s.Count() > 1 {
				m.super.Add(1)
			}
			for segment, ok := s.Next(); ok; segment, ok = s.Next() {
				m.segments.Add(1)
				// The splitter goes on in the same memory, and the writer keeps what it is given.
				segment = slices.Clone(segment)
				swap(segment)
				if change != nil {
					change(segment)
				}
				if m.writer.Add(segment, false) != nil {
					m.failures.Add(1)
				}
			}
			if m.writer.Flush() != nil {
				m.failures.Add(1)
			}
		}
	}()
	return m
}

// swap exchanges source and destination, which changes no checksum.
func swap(pkt []byte) {
	at, n := 12, 4
	if pkt[0]>>4 == 6 {
		at, n = 8, 16
	}
	source := slices.Clone(pkt[at : at+n])
	copy(pkt[at:], pkt[at+n:at+2*n])
	copy(pkt[at+n:], source)
}

func TestTCPThroughTheDevice(t *testing.T) {
	for name, c := range map[string]struct {
		addresses []netip.Prefix
		listen    string
		dial      string
		noOffload bool
	}{
		"IPv4":            {[]netip.Prefix{netip.MustParsePrefix("10.77.9.1/24")}, "10.77.9.1:700", "10.77.9.2:700", false},
		"IPv6":            {[]netip.Prefix{netip.MustParsePrefix("fd77::1/64")}, "[fd77::1]:700", "[fd77::2]:700", false},
		"without offload": {[]netip.Prefix{netip.MustParsePrefix("10.77.9.1/24")}, "10.77.9.1:700", "10.77.9.2:700", true},
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t)
			d := openDevice(t, tun.Config{MTU: 1400, Addresses: c.addresses, NoOffload: c.noOffload})
			if !c.noOffload && d.Offloads()&(tun.OffloadChecksum|tun.OffloadTSO4|tun.OffloadTSO6) == 0 {
				t.Errorf("the kernel took no offload: %s", d.Offloads())
			}
			m := startMirror(t, d.Queue(0), nil)
			listener, err := net.Listen("tcp", c.listen)
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			sum := make(chan [32]byte, 1)
			go func() {
				conn, err := listener.Accept()
				if err != nil {
					t.Errorf("accept: %v", err)
					close(sum)
					return
				}
				defer conn.Close()
				hash := sha256.New()
				if _, err := io.Copy(hash, conn); err != nil {
					t.Errorf("receive: %v", err)
				}
				sum <- [32]byte(hash.Sum(nil))
			}()
			conn, err := net.DialTimeout("tcp", c.dial, 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			data := bytes.Repeat([]byte("0123456789abcdefg"), 8<<20/17)
			if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(data); err != nil {
				t.Fatal(err)
			}
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-sum:
				if got != sha256.Sum256(data) {
					t.Error("the octets that arrived are not those that were sent")
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the octets did not arrive in time")
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			<-m.done
			stats := m.writer.Stats()
			if m.failures.Load() != 0 || stats.Failed != 0 {
				t.Errorf("%d failures, counters %+v", m.failures.Load(), stats)
			}
			if c.noOffload {
				if m.super.Load() != 0 {
					t.Errorf("%d super-packets without offload", m.super.Load())
				}
				return
			}
			if m.super.Load() == 0 || stats.Writes*5 > stats.Packets {
				t.Errorf("%d super-packets read, %d packets in %d writes: offload does not work", m.super.Load(), stats.Packets, stats.Writes)
			}
		})
	}
}

func TestUDPSegmentationThroughTheDevice(t *testing.T) {
	inNamespace(t)
	d := openDevice(t, tun.Config{MTU: 1400, Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.9.1/24")}})
	m := startMirror(t, d.Queue(0), nil)
	receiver, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.77.9.1:700")))
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	sender, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.77.9.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	var control [32]byte
	header := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	header.Level, header.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	header.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], 500)
	data := make([]byte, 500*10+1)
	for i := range data {
		data[i] = byte(i / 500)
	}
	if _, _, err := sender.WriteMsgUDPAddrPort(data, control[:unix.CmsgSpace(2)], netip.MustParseAddrPort("10.77.9.2:700")); err != nil {
		t.Fatal(err)
	}
	if err := receiver.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	for k := range 11 {
		n, err := receiver.Read(buf)
		want := data[k*500 : min(k*500+500, len(data))]
		if err != nil || !bytes.Equal(buf[:n], want) {
			t.Fatalf("datagram %d: got %d octets, %v, want %d", k, n, err, len(want))
		}
	}
	if d.Offloads()&tun.OffloadUSO != 0 && m.super.Load() != 1 {
		t.Errorf("%d super-packets read, want 1 (offloads %s)", m.super.Load(), d.Offloads())
	}
}

// A checksum that is wrong when it comes out of the tunnel must be found by the kernel, not hidden by offload.
func TestWrongChecksumIsDroppedByTheKernel(t *testing.T) {
	inNamespace(t)
	d := openDevice(t, tun.Config{MTU: 1400, Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.9.1/24")}})
	startMirror(t, d.Queue(0), func(pkt []byte) {
		if bytes.HasSuffix(pkt, []byte("damage me")) {
			pkt[len(pkt)-1] ^= 1
		}
	})
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.77.9.1:700")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, text := range []string{"damage me", "leave me"} {
		if _, err := conn.WriteToUDPAddrPort([]byte(text), netip.MustParseAddrPort("10.77.9.2:700")); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "leave me" {
		t.Errorf("got %q, %v, want only what was not damaged", buf[:n], err)
	}
}

func TestDeviceIsConfigured(t *testing.T) {
	inNamespace(t)
	addresses := []netip.Prefix{netip.MustParsePrefix("10.77.9.1/32"), netip.MustParsePrefix("fd77::1/128")}
	d := openDevice(t, tun.Config{MTU: 1379, Queues: 2, TxQueueLen: 700, Addresses: addresses})
	if d.Queues() != 2 || d.GSOMaxSize() != tun.GSOMaxSize {
		t.Errorf("got %d queues, GSO limit %d", d.Queues(), d.GSOMaxSize())
	}
	device, err := net.InterfaceByName(d.Name())
	if err != nil {
		t.Fatal(err)
	}
	if device.MTU != 1379 || device.Index != d.Index() || device.Flags&net.FlagUp == 0 {
		t.Errorf("got %+v", device)
	}
	have, err := device.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range have {
		got = append(got, a.String())
	}
	if want := []string{"10.77.9.1/32", "fd77::1/128"}; !slices.Equal(got, want) {
		t.Errorf("got addresses %v, want %v and no link-local one", got, want)
	}
	if err := d.SetMTU(1300); err != nil {
		t.Fatal(err)
	}
	if device, err = net.InterfaceByName(d.Name()); err != nil || device.MTU != 1300 {
		t.Errorf("after SetMTU: got %+v, %v", device, err)
	}
	name := d.Name()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if device, err := net.InterfaceByName(name); err == nil {
		t.Errorf("%s is still there after Close: %+v", name, device)
	}
	if _, _, err := d.Queue(0).Read(make([]byte, 100)); !errors.Is(err, tun.ErrClosed) {
		t.Errorf("read after Close: got %v, want %v", err, tun.ErrClosed)
	}
}

func TestATakenNameIsAnError(t *testing.T) {
	inNamespace(t)
	d := openDevice(t, tun.Config{})
	start := time.Now()
	if other, err := tun.Open(tun.Config{Name: d.Name()}); err == nil {
		_ = other.Close()
		t.Error("the same device was made twice")
	} else if !errors.Is(err, unix.EBUSY) || time.Since(start) < time.Second {
		t.Errorf("got %v after %s, want busy after some tries", err, time.Since(start))
	}
	if _, err := tun.Open(tun.Config{Name: "a-name-that-is-too-long"}); err == nil {
		t.Error("a name of 23 octets was taken")
	}
}

func TestCloseEndsWait(t *testing.T) {
	inNamespace(t)
	d := openDevice(t, tun.Config{})
	ended := make(chan error, 1)
	go func() {
		buf := make([]byte, tun.BufferSize)
		for {
			if _, _, err := d.Queue(0).Read(buf); err != nil && !errors.Is(err, tun.ErrWouldBlock) {
				ended <- err
				return
			}
			if err := d.Queue(0).Wait(-1); err != nil {
				ended <- err
				return
			}
		}
	}()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, tun.ErrClosed) {
			t.Errorf("got %v, want %v", err, tun.ErrClosed)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the reader still waits after Close")
	}
}

// A super-packet is never longer than the limit, so that one send call takes all its ESP packets.
func TestGSOLimitHolds(t *testing.T) {
	inNamespace(t)
	d := openDevice(t, tun.Config{MTU: 1400, GSOMaxSize: 20000, Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.9.1/24")}})
	var longest atomic.Uint64
	var s tun.Splitter
	q := d.Queue(0)
	w := tun.NewWriter(q)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, tun.BufferSize)
		for q.Wait(-1) == nil {
			h, pkt, err := q.Read(buf)
			if err != nil {
				continue
			}
			longest.Store(max(longest.Load(), uint64(len(pkt))))
			if s.Reset(h, pkt) != nil {
				continue
			}
			for segment, ok := s.Next(); ok; segment, ok = s.Next() {
				segment = slices.Clone(segment)
				swap(segment)
				_ = w.Add(segment, false)
			}
			_ = w.Flush()
		}
	}()
	listener, err := net.Listen("tcp", "10.77.9.1:700")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	received := make(chan int64, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			received <- -1
			return
		}
		defer conn.Close()
		n, _ := io.Copy(io.Discard, conn)
		received <- n
	}()
	conn, err := net.DialTimeout("tcp", "10.77.9.2:700", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(make([]byte, 2<<20)); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if n := <-received; n != 2<<20 {
		t.Fatalf("%d octets arrived", n)
	}
	_ = d.Close()
	<-done
	if got := longest.Load(); got > 20000+packet.IPv4HeaderLen+60 || got < 5000 {
		t.Errorf("longest super-packet has %d octets, limit is 20000", got)
	}
}
