package transport

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace that lives as long as its thread, on which do runs functions.
type namespace struct {
	path string
	work chan func()
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making network namespaces and raw sockets needs root")
	}
	n := &namespace{work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, and the namespace, end with this goroutine
		n.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range n.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { close(n.work) })
	n.ip(t, "link set lo up")
	return n
}

func (n *namespace) do(f func()) {
	done := make(chan struct{})
	n.work <- func() { defer close(done); f() }
	<-done
}

func (n *namespace) ip(t *testing.T, command string) {
	t.Helper()
	n.do(func() {
		if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Errorf("ip %s: %v: %s", command, err, out)
		}
	})
}

// link joins two namespaces by a veth pair with addresses .1/::1 and .2/::2.
func link(t *testing.T) (a, b *namespace) {
	t.Helper()
	a, b = newNamespace(t), newNamespace(t)
	a.ip(t, "link add bwtx-a type veth peer name bwtx-b")
	a.ip(t, "link set bwtx-b netns "+b.path)
	for host, n := range []*namespace{a, b} {
		dev := string("ab"[host])
		n.ip(t, fmt.Sprintf("addr add 10.77.8.%d/24 dev bwtx-%s", host+1, dev))
		n.ip(t, fmt.Sprintf("addr add fd77:8::%d/64 dev bwtx-%s nodad", host+1, dev))
		n.ip(t, "link set bwtx-"+dev+" up")
	}
	return a, b
}

func (n *namespace) listen(t *testing.T, cfg Config) *Sockets {
	t.Helper()
	var s *Sockets
	var err error
	n.do(func() { s, err = Listen(cfg) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// arrival is an ESP packet as a test compares it.
type arrival struct {
	octets        string
	local, remote netip.AddrPort
	encap         bool
	class         uint8
}

// receive waits for n ESP packets on queue 0.
func receive(t *testing.T, s *Sockets, n int) (packets []arrival, calls int) {
	t.Helper()
	return s.Queue(0).wait(t, n)
}

// wait waits for n ESP packets.
func (q *Queue) wait(t *testing.T, n int) (packets []arrival, calls int) {
	t.Helper()
	s, b := q.sockets, NewBatch(64)
	p, err := NewPoller(q.FDs()...)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for deadline := time.Now().Add(5 * time.Second); len(packets) < n; {
		err := q.ReceiveESP(b)
		if errors.Is(err, ErrWouldBlock) {
			if time.Now().After(deadline) {
				t.Fatalf("%d ESP packets came, want %d (%+v)", len(packets), n, s.Stats())
			}
			err = p.Wait(time.Until(deadline))
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Datagrams {
			d := &b.Datagrams[i]
			calls++
			for start, end, ok := d.Next(); ok; start, end, ok = d.Next() {
				packets = append(packets, arrival{string(d.Buffer[start:end]), d.Local, d.Remote, d.Encap, d.TrafficClass})
			}
		}
		b.Datagrams = nil
	}
	return packets, calls
}

// nothing checks that no ESP packet waits, and takes what is no ESP off the sockets.
func nothing(t *testing.T, s *Sockets) {
	t.Helper()
	b := NewBatch(8)
	for s.Queue(0).ReceiveESP(b) == nil {
		for i := range b.Datagrams {
			if start, end, ok := b.Datagrams[i].Next(); ok {
				t.Errorf("an ESP packet came: %x", b.Datagrams[i].Buffer[start:end])
			}
		}
	}
}

// esp returns n distinct packets of size octets, one after the other.
func esp(n, size int) []byte {
	var all []byte
	for k := range n {
		p := bytes.Repeat([]byte{byte(k + 1)}, size)
		copy(p, fmt.Sprintf("%08d", k+1))
		all = append(all, p...)
	}
	return all
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestSegmentsAreSentAndReceivedInBulk(t *testing.T) {
	a, b := link(t)
	for _, noOffload := range []bool{false, true} {
		from := a.listen(t, Config{NoOffload: noOffload})
		to := b.listen(t, Config{})
		for _, c := range []struct{ local, remote string }{
			{"10.77.8.1:4500", "10.77.8.2:4500"}, {"[fd77:8::1]:4500", "[fd77:8::2]:4500"},
		} {
			for _, size := range []int{64, 1400} {
				const count = 200 // more than one call takes, by segments or by octets
				payload := esp(count, size)
				payload = payload[:len(payload)-10]
				m := &Message{
					Local: addr(c.local), Remote: addr(c.remote), Encap: true, TrafficClass: 0xb9, Payload: payload, SegmentLen: size,
				}
				if err := from.Queue(0).SendESP(m); err != nil {
					t.Fatal(err)
				}
				got, calls := receive(t, to, count)
				for k, p := range got {
					want := arrival{
						string(payload[k*size : min((k+1)*size, len(payload))]), addr(c.remote), addr(c.local), true, 0xb9,
					}
					if p != want {
						t.Fatalf("noOffload=%v, packet %d: got %+v, want %+v", noOffload, k, p, want)
					}
				}
				if !noOffload && calls > count/10 {
					t.Errorf("%d packets of %d octets came in %d datagrams: offload does not work", count, size, calls)
				}
			}
		}
		if err := from.Close(); err != nil {
			t.Error(err)
		}
		if err := to.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRawESP(t *testing.T) {
	a, b := link(t)
	from, to := a.listen(t, Config{}), b.listen(t, Config{})
	for _, c := range []struct{ local, remote string }{
		{"10.77.8.1:0", "10.77.8.2:0"}, {"[fd77:8::1]:0", "[fd77:8::2]:0"},
	} {
		const count = 150 // more than one call takes
		payload := esp(count, 100)
		// The kernel chooses the local address.
		m := &Message{Remote: addr(c.remote), TrafficClass: 0xb9, Payload: payload, SegmentLen: 100}
		if err := from.Queue(0).SendESP(m); err != nil {
			t.Fatal(err)
		}
		got, _ := receive(t, to, count)
		for k, p := range got {
			if want := (arrival{string(payload[k*100 : k*100+100]), addr(c.remote), addr(c.local), false, 0xb9}); p != want {
				t.Errorf("packet %d: got %+v, want %+v", k, p, want)
			}
		}
	}
}

func TestPathMTUIsReported(t *testing.T) {
	a, b := link(t)
	from, to := a.listen(t, Config{}), b.listen(t, Config{})
	local, remote := addr("10.77.8.1:4500"), addr("10.77.8.2:4500")
	for _, m := range []*Message{
		{Local: local, Remote: remote, Encap: true, Payload: esp(1, 1473)},
		{Local: local, Remote: remote, Encap: true, Payload: esp(5, 1473), SegmentLen: 1473},
		{Local: addr("10.77.8.1:0"), Remote: addr("10.77.8.2:0"), Payload: esp(1, 1481)},
	} {
		if err := from.Queue(0).SendESP(m); !errors.Is(err, ErrTooBig) {
			t.Errorf("packets of %d octets: got %v, want %v", m.SegmentLen, err, ErrTooBig)
		}
	}
	if got := from.Stats().TooBig; got != 3 {
		t.Errorf("counted %d, want 3", got)
	}
	if err := from.Queue(0).SendESP(&Message{Local: local, Remote: remote, Encap: true, Payload: esp(1, 1472)}); err != nil {
		t.Errorf("a packet of exactly the MTU: %v", err)
	}
	if got, _ := receive(t, to, 1); len(got[0].octets) != 1472 {
		t.Errorf("got %d octets", len(got[0].octets))
	}
	// Where the datapath says so, IP fragments: a whole packet that was larger than the MTU before it was sealed.
	for _, m := range []*Message{
		{Local: local, Remote: remote, Encap: true, Payload: esp(2, 4000), SegmentLen: 4000, MayFragment: true},
		{Local: addr("10.77.8.1:0"), Remote: addr("10.77.8.2:0"), Payload: esp(2, 4000), SegmentLen: 4000, MayFragment: true},
		{Remote: addr("[fd77:8::2]:4500"), Encap: true, Payload: esp(2, 4000), SegmentLen: 4000, MayFragment: true},
		{Remote: addr("[fd77:8::2]:0"), Payload: esp(2, 4000), SegmentLen: 4000, MayFragment: true},
	} {
		if err := from.Queue(0).SendESP(m); err != nil {
			t.Fatal(err)
		}
		if got, _ := receive(t, to, 2); got[1].octets != string(m.Payload[4000:]) {
			t.Errorf("fragmented: got %d octets", len(got[1].octets))
		}
	}
	a.do(func() {
		if mtu, err := from.PathMTU(netip.Addr{}, remote.Addr()); err != nil || mtu != 1500 {
			t.Errorf("path MTU: got %d, %v, want 1500", mtu, err)
		}
		if mtu, err := from.PathMTU(local.Addr(), netip.MustParseAddr("203.0.113.1")); err == nil {
			t.Errorf("path MTU without a route: got %d", mtu)
		}
	})
	// An IKE message may be fragmented, on either port; ESP afterwards still may not.
	long := bytes.Repeat([]byte{7}, 4000)
	for _, port := range []uint16{500, 4500} {
		at := netip.AddrPortFrom(local.Addr(), port)
		if err := from.WriteIKE(at, netip.AddrPortFrom(remote.Addr(), port), long); err != nil {
			t.Fatal(err)
		}
		if port == 4500 {
			pump(t, to)
		}
		buf := make([]byte, 5000)
		n, _, got, err := to.ReadIKE(buf)
		if err != nil || !bytes.Equal(buf[:n], long) || got != at {
			t.Errorf("port %d: got %d octets from %s, %v", port, n, got, err)
		}
	}
	if err := from.Queue(0).SendESP(&Message{Local: local, Remote: remote, Encap: true, Payload: esp(1, 1473)}); !errors.Is(err, ErrTooBig) {
		t.Errorf("ESP after a fragmented IKE message: got %v, want %v", err, ErrTooBig)
	}
}

// pump does what a packet thread does with what is no ESP, once something has come.
func pump(t *testing.T, s *Sockets) {
	t.Helper()
	p, err := NewPoller(s.Queue(0).FDs()...)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Wait(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	nothing(t, s)
}

func TestTheAddressAskedIsTheAddressThatAnswers(t *testing.T) {
	a, b := link(t)
	b.ip(t, "addr add 10.77.8.3/24 dev bwtx-b")
	from, to := a.listen(t, Config{}), b.listen(t, Config{})
	for _, c := range []struct{ local, remote string }{
		{"10.77.8.1:500", "10.77.8.3:500"}, {"10.77.8.1:4500", "10.77.8.3:4500"}, {"[fd77:8::1]:4500", "[fd77:8::2]:4500"},
	} {
		if err := from.WriteIKE(addr(c.local), addr(c.remote), []byte("question")); err != nil {
			t.Fatal(err)
		}
		if addr(c.local).Port() == 4500 {
			pump(t, to)
		}
		buf := make([]byte, 100)
		n, local, remote, err := to.ReadIKE(buf)
		if err != nil || string(buf[:n]) != "question" || local != addr(c.remote) || remote != addr(c.local) {
			t.Fatalf("got %q at %s from %s, %v", buf[:n], local, remote, err)
		}
		if err := to.WriteIKE(local, remote, []byte("answer")); err != nil {
			t.Fatal(err)
		}
		if addr(c.local).Port() == 4500 {
			pump(t, from)
		}
		n, local, remote, err = from.ReadIKE(buf)
		if err != nil || string(buf[:n]) != "answer" || local != addr(c.local) || remote != addr(c.remote) {
			t.Errorf("got %q at %s from %s, %v", buf[:n], local, remote, err)
		}
	}
	if err := from.WriteIKE(addr("10.77.8.99:500"), addr("10.77.8.2:500"), []byte("x")); err == nil {
		t.Error("a message left from an address that is not ours")
	}
	if err := from.WriteIKE(addr("10.77.8.1:501"), addr("10.77.8.2:500"), []byte("x")); !errors.Is(err, ErrNoSocket) {
		t.Errorf("from another port: got %v, want %v", err, ErrNoSocket)
	}
}

func TestMarkersTellIKEFromESP(t *testing.T) {
	a, b := link(t)
	from, to := a.listen(t, Config{}), b.listen(t, Config{})
	local, remote := addr("10.77.8.1:4500"), addr("10.77.8.2:4500")
	// Of one length and back to back, so that UDP_GRO joins them.
	ike := append([]byte{0, 0, 0, 0}, bytes.Repeat([]byte{'i'}, 96)...)
	payload := slices.Concat(esp(2, 100), ike, esp(1, 100))
	m := &Message{Local: local, Remote: remote, Encap: true, Payload: payload, SegmentLen: 100}
	if err := from.Queue(0).SendESP(m); err != nil {
		t.Fatal(err)
	}
	got, _ := receive(t, to, 3)
	if got[2].octets != string(payload[300:]) {
		t.Errorf("third packet: got %x", got[2].octets)
	}
	buf := make([]byte, 200)
	if n, at, peer, err := to.ReadIKE(buf); err != nil || !bytes.Equal(buf[:n], ike[4:]) || at != remote || peer != local {
		t.Errorf("IKE among ESP: got %x at %s from %s, %v", buf[:n], at, peer, err)
	}
	if err := from.WriteKeepalive(local, remote); err != nil {
		t.Fatal(err)
	}
	for _, junk := range []string{"\x00", "\x00\x00\x00", "\xff\xff", "\xfe"} {
		if err := from.Queue(0).SendESP(&Message{Local: local, Remote: remote, Encap: true, Payload: []byte(junk)}); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); to.Stats().Short < 4; {
		if time.Now().After(deadline) {
			break
		}
		nothing(t, to)
	}
	if s := to.Stats(); s.Keepalives != 1 || s.Short != 4 || s.IKEDropped != 0 {
		t.Errorf("got counters %+v, want 1 keepalive and 4 too short", s)
	}
	if err := from.WriteKeepalive(addr("10.77.8.1:500"), remote); !errors.Is(err, ErrNoSocket) {
		t.Errorf("keepalive from port 500: got %v, want %v", err, ErrNoSocket)
	}
}

func TestAFloodOfIKEDoesNotHoldUpESP(t *testing.T) {
	a, b := link(t)
	from, to := a.listen(t, Config{}), b.listen(t, Config{IKEQueue: 4})
	local, remote := addr("10.77.8.1:4500"), addr("10.77.8.2:4500")
	for range 50 {
		if err := from.WriteIKE(local, remote, []byte("flood")); err != nil {
			t.Fatal(err)
		}
	}
	if err := from.Queue(0).SendESP(&Message{Local: local, Remote: remote, Encap: true, Payload: esp(1, 100)}); err != nil {
		t.Fatal(err)
	}
	receive(t, to, 1)
	if got := to.Stats().IKEDropped; got != 46 {
		t.Errorf("%d messages dropped, want 46", got)
	}
	buf := make([]byte, 100)
	for range 4 {
		if n, _, _, err := to.ReadIKE(buf); err != nil || string(buf[:n]) != "flood" {
			t.Errorf("got %q, %v", buf[:n], err)
		}
	}
}

func TestIKEOnly(t *testing.T) {
	a, b := link(t)
	from, to := a.listen(t, Config{}), b.listen(t, Config{IKEOnly: true, NoRawESP: true})
	local, remote := addr("10.77.8.1:4500"), addr("10.77.8.2:4500")
	if err := from.Queue(0).SendESP(&Message{Local: local, Remote: remote, Encap: true, Payload: esp(1, 100)}); err != nil {
		t.Fatal(err)
	}
	if err := from.WriteIKE(local, remote, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, _, _, err := to.ReadIKE(buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("got %q, %v", buf[:n], err)
	}
	if err := from.WriteIKE(local, remote, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := to.ReadIKE(buf[:4]); !errors.Is(err, ErrTooShort) {
		t.Errorf("5 octets into 4: got %v, want %v", err, ErrTooShort)
	}
}

// A user of the sockets may have chosen to let routers fragment. What goes out longer than the path must not change that.
func TestFragmentingLeavesPathMTUDiscoveryAlone(t *testing.T) {
	a, b := link(t)
	from, to := a.listen(t, Config{}), b.listen(t, Config{})
	local, remote := addr("10.77.8.1:4500"), addr("10.77.8.2:4500")
	sock := from.find(4500, true)
	mode := func() int {
		got, err := unix.GetsockoptInt(sock.fd, unix.SOL_IP, unix.IP_MTU_DISCOVER)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for _, want := range []int{unix.IP_PMTUDISC_DO, unix.IP_PMTUDISC_OMIT} {
		if err := unix.SetsockoptInt(sock.fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, want); err != nil {
			t.Fatal(err)
		}
		m := &Message{Local: local, Remote: remote, Encap: true, Payload: esp(2, 4000), SegmentLen: 4000, MayFragment: want == unix.IP_PMTUDISC_DO}
		if err := from.Queue(0).SendESP(m); err != nil {
			t.Errorf("mode %d: segments beyond the path MTU: %v", want, err)
			continue
		}
		if got, _ := receive(t, to, 2); got[1].octets != string(m.Payload[4000:]) {
			t.Errorf("mode %d: got %d octets", want, len(got[1].octets))
		}
		if err := from.WriteIKE(local, remote, bytes.Repeat([]byte{7}, 4000)); err != nil {
			t.Error(err)
		}
		if got := mode(); got != want {
			t.Errorf("path MTU discovery was %d and is %d", want, got)
		}
	}
}
