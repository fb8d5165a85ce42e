package userspace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/datapath/datapathtest"
	"github.com/bailiwick-net/bailiwick/node/datapath/waiting"
	"github.com/bailiwick-net/bailiwick/node/esp"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/transport"
	"github.com/bailiwick-net/bailiwick/node/tun"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// threadsBench is a world of packet threads that move nothing by themselves.
func threadsBench(t *testing.T, n int) *world {
	t.Helper()
	w := &world{
		sadb: newSADB(), ready: true, soft: map[softKey]time.Time{}, secured: map[softKey]bool{}, sources: map[string]flowSource{},
		events: make(chan ike.Event, 16), waiting: waiting.New(waiting.Limits{}.WithDefaults(), func(b []byte) int { return len(b) }, bytes.Clone),
	}
	for i := range n {
		w.loops = append(w.loops, &loop{
			world: w, index: i, logger: hclog.NewNullLogger(), outbox: newOutbox(&sent{t: t}), sockets: &transport.Queue{}, writer: tun.NewWriter(nil),
			cache: map[spd.Packet]*association{}, checked: map[checkedKey]bool{}, now: start,
		})
	}
	return w
}

// install puts an SA of the default response between two hosts into a world, by the commands that do so.
func (w *world) install(t *testing.T, spi, bundle sa.SPI) *association {
	t.Helper()
	local, remote := netip.MustParseAddrPort("192.0.2.1:4500"), netip.MustParseAddrPort("192.0.2.2:4500")
	child := sa.Child{
		Mode: sa.Transport, Encap: true, Suite: datapathtest.GCM128, Local: local, Remote: remote, Bundle: bundle,
		LocalTS: []sa.Selector{selector("192.0.2.1", 0, 0, 65535)}, RemoteTS: []sa.Selector{selector("192.0.2.2", 0, 0, 65535)},
		In: sa.Keys{SPI: spi, Encryption: sa.NewSecret(make([]byte, 20))}, Out: sa.Keys{SPI: spi, Encryption: sa.NewSecret(make([]byte, 20))},
	}
	in, err := esp.NewInbound(child)
	if err != nil {
		t.Fatal(err)
	}
	out, err := esp.NewOutbound(child)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []command{installIn{child: child, in: in, mtu: 1500}, installOut{spi, out}, switchOut{spi}} {
		if err := w.loops[0].command(c); err != nil {
			t.Fatal(err)
		}
	}
	return w.sadb.children[spi]
}

// datagram is a packet that the SAs of install carry.
func datagram(t *testing.T, port uint16, size int) []byte {
	t.Helper()
	h := packet.IP{
		Source: netip.MustParseAddr("192.0.2.1"), Destination: netip.MustParseAddr("192.0.2.2"), Protocol: packet.ProtocolUDP,
		HopLimit: 64, PayloadLen: size,
	}
	b := append(h.AppendHeader(nil), make([]byte, size)...)
	binary.BigEndian.PutUint16(b[20:], port)
	binary.BigEndian.PutUint16(b[24:], uint16(size))
	return b
}

// An SA whose packets arrive at another thread than the one that keeps house is probed too, and the peer may answer by any
// SA of the bundle.
func TestEveryPathOfABundleIsSearched(t *testing.T) {
	w := threadsBench(t, 2)
	first, second := w.install(t, 1024, 1024), w.install(t, 1025, 1024)
	w.loops[1].enter()
	w.loops[1].outbound(tun.Header{}, datagram(t, 7, 1400))
	w.loops[1].leave()
	if !second.path.search.active || first.path.search.active {
		t.Fatalf("a long packet of the second thread: the first path is searched %v, the second %v", first.path.search.active, second.path.search.active)
	}
	keeper := w.loops[0]
	keeper.now = start
	keeper.enter()
	keeper.alone()
	keeper.probe(second)
	keeper.share()
	keeper.leave()
	if n := keeper.counters[counterProbes]; n != 1 {
		t.Fatalf("%d probes, want 1", n)
	}
	answer := func(by *association, change func(*packet.Echo)) bool {
		e := packet.Echo{
			Source: second.probing.destination, Destination: second.probing.source, Reply: true, ID: uint16(second.child.In.SPI),
			Data: binary.BigEndian.AppendUint32(second.probing.secret[:], uint32(second.child.In.SPI)),
		}
		change(&e)
		pkt := packet.AppendEcho(nil, e, second.out.MaxPacket(1500, false))
		info, err := packet.Parse(pkt)
		if err != nil {
			t.Fatal(err)
		}
		keeper.enter()
		defer keeper.leave()
		return keeper.probeAnswered(by, pkt, &info)
	}
	other := w.install(t, 2048, 2048)
	for _, c := range []struct {
		name   string
		by     *association
		change func(*packet.Echo)
		want   bool
	}{
		{"an SA of another bundle", other, func(*packet.Echo) {}, false},
		{"another secret", first, func(e *packet.Echo) { e.Data[0]++ }, false},
		{"another SPI", first, func(e *packet.Echo) { e.Data[len(e.Data)-1]-- }, false},
		{"another host", first, func(e *packet.Echo) { e.Source = e.Source.Next() }, false},
		{"too short", first, func(e *packet.Echo) { e.Data = nil }, false},
		{"the other SA of the bundle", first, func(*packet.Echo) {}, true},
	} {
		if got := answer(c.by, c.change); got != c.want || (second.path.proven == 1500) != c.want {
			t.Errorf("answer by %s counts: %v, want %v; %d octets are proven", c.name, got, c.want, second.path.proven)
		}
	}
}

// A thread that let others at the world on its way to a decision does not seal with what was taken away meanwhile, nor with
// what another one took the place of.
func TestNothingIsSealedWithWhatIsGone(t *testing.T) {
	w := threadsBench(t, 2)
	a := w.install(t, 1024, 0)
	l := w.loops[1]
	send := func() { l.enter(); l.outbound(tun.Header{}, datagram(t, 7, 100)); l.flush(); l.leave() }
	send()
	if got := a.out.Last(); got != 1 {
		t.Fatalf("%d packets are sealed, want 1", got)
	}
	out, err := esp.NewOutbound(a.child)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.loops[0].command(installOut{a.child.In.SPI, out}); err != nil {
		t.Fatal(err)
	}
	send()
	if got := out.Last(); got != 1 {
		t.Errorf("%d packets are sealed with the outbound half that is installed now, want 1", got)
	}
	if err := w.loops[0].command(remove{a.child.In.SPI}); err != nil {
		t.Fatal(err)
	}
	pkt := datagram(t, 7, 100)
	info, err := packet.Parse(pkt)
	if err != nil {
		t.Fatal(err)
	}
	l.enter()
	l.protect(a, tun.Header{}, pkt, &info)
	l.leave()
	if got := out.Last(); got != 1 {
		t.Errorf("%d packets are sealed, one of them after the SA was removed", got)
	}
}

// hoard leaves a sealed packet in the outbox of the thread, as the rest of a super-packet in a transfer.
type hoard struct {
	a      *association
	packet []byte
}

func (c hoard) run(l *loop) error {
	if err := l.fork(c.a); err != nil {
		return err
	}
	_, err := l.seal(c.a, c.a.sealer(l.index), c.packet, outer{})
	l.outbox.rest, l.outbox.since, l.bulkAt = true, l.now, l.now
	return err
}

// Threads that have packets to send look at nothing that a command of another thread changes at the same time: what is wrong
// shows under the race detector.
func TestCommandsAndThreadsShareNothingUnguarded(t *testing.T) {
	w := threadsBench(t, 2)
	a := w.install(t, 1024, 0)
	for _, l := range w.loops {
		var pipe [2]int // never ready, in the place of the TUN
		if err := unix.Pipe(pipe[:]); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pipe[0])
		defer unix.Close(pipe[1])
		poller, err := transport.NewPoller(pipe[0])
		if err != nil {
			t.Fatal(err)
		}
		defer poller.Close()
		l.poller.Store(poller)
		l.requests, l.stopped = make(chan request, 16), make(chan struct{})
		go l.run()
	}
	for range 300 {
		for _, c := range []struct {
			thread  int
			command command
		}{{1, hoard{a, datagram(t, 7, 100)}}, {0, endFallback{}}, {0, hoard{a, datagram(t, 7, 100)}}, {1, switchOut{a.child.In.SPI}}} {
			if err := w.loops[c.thread].do(c.command); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, l := range w.loops {
		if err := l.do(stop{}); err != nil {
			t.Error(err)
		}
		<-l.stopped
		if err := l.do(endFallback{}); !errors.Is(err, errClosed) {
			t.Errorf("a command to a thread that ended: %v, want %v", err, errClosed)
		}
	}
	if n := a.out.Last(); n != 600 {
		t.Errorf("%d packets are sealed, want 600", n)
	}
}

// wire is the sender of every thread. It sees that sequence numbers go out in their order.
type wire struct {
	mu       sync.Mutex
	last     uint32
	packets  int
	overtook []string
}

func (w *wire) SendESP(m *transport.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for at := 0; at < len(m.Payload); at += m.SegmentLen {
		seq := binary.BigEndian.Uint32(m.Payload[at+4:])
		if seq <= w.last {
			w.overtook = append(w.overtook, fmt.Sprintf("%d after %d", seq, w.last))
		}
		w.last = max(w.last, seq)
		w.packets++
	}
	return nil
}

// TestThreadsKeepTheOrderOfAnSA has several threads seal with one SA. A peer that keeps a replay window of 32 packets would
// drop what one of them sends later than others that sealed after it.
func TestThreadsKeepTheOrderOfAnSA(t *testing.T) {
	const threads, rounds, batch = 4, 200, 40
	w := threadsBench(t, threads)
	a := w.install(t, 1024, 0)
	out := &wire{}
	var done sync.WaitGroup
	for _, l := range w.loops {
		l.outbox = newOutbox(out)
	}
	for _, l := range w.loops {
		done.Go(func() {
			for range rounds {
				l.enter()
				for i := range batch {
					l.outbound(tun.Header{}, datagram(t, uint16(i), 100))
				}
				l.settle()
				l.leave()
			}
		})
	}
	done.Wait()
	for _, l := range w.loops {
		l.flush()
	}
	if len(out.overtook) > 0 {
		t.Errorf("%d packets were overtaken, the first: %s", len(out.overtook), out.overtook[0])
	}
	if want := threads * rounds * batch; out.packets != want || a.out.Last() != uint64(want) {
		t.Errorf("%d packets went out with %d sequence numbers, want %d", out.packets, a.out.Last(), want)
	}
}
