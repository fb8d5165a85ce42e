package datapathtest

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Cases about packets in an SA.

// Connect puts a policy that protects everything into force on both hosts and installs an SA between their IPv4
// addresses.
func (w *World) Connect(t *testing.T, o Options) *Pair {
	t.Helper()
	for _, p := range []*Peer{w.A, w.B} {
		p.SetPolicy(t, requireAll())
	}
	o.Rule = [2]string{ruleID, ruleID}
	if o.Mode == 0 {
		o.Mode = sa.Transport
	}
	flow := ike.Flow{Local: w.A.V4, Remote: w.B.V4, LocalTS: whole(w.A.V4), RemoteTS: whole(w.B.V4)}
	pair, err := w.NewPair(w.A, flow, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Install(); err != nil {
		t.Fatal(err)
	}
	return pair
}

// firstPackets: a burst before there is an SA arrives whole and in order.
func firstPackets(t *testing.T, w *World) {
	for _, p := range []*Peer{w.A, w.B} {
		p.SetPolicy(t, requireAll())
	}
	const count = 50
	asked := make(chan ike.Flow, 1)
	w.NewKeyer(t, func(_ *Peer, f ike.Flow) *Pair {
		asked <- f
		return nil
	})
	received := make(chan uint32, 2*count)
	var listener *net.UDPConn
	err := w.B.Do(func() (err error) {
		listener, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.B.V4, 9)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		defer close(received)
		buf := make([]byte, 2000)
		for {
			n, err := listener.Read(buf)
			if err != nil {
				return
			}
			if n == 4 {
				received <- binary.BigEndian.Uint32(buf)
			}
		}
	}()
	err = w.A.Do(func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(w.B.V4, 9).String())
		if err != nil {
			return err
		}
		defer c.Close()
		for i := range uint32(count) {
			if _, err := c.Write(binary.BigEndian.AppendUint32(nil, i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	flow := <-asked
	eventually(t, "all packets wait", func() bool { return w.A.Counter("packets_waiting") == count })
	pair, err := w.NewPair(w.A, flow, Options{Mode: sa.Transport, Encap: true, Rule: [2]string{ruleID, ruleID}})
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Install(); err != nil {
		t.Fatal(err)
	}
	for want := range uint32(count) {
		select {
		case got := <-received:
			if got != want {
				t.Fatalf("packet %d arrived in place of packet %d", got, want)
			}
		case <-time.After(long):
			t.Fatalf("packet %d of %d did not arrive", want, count)
		}
	}
}

// queueIsBounded: packets beyond the bounds of the queue are dropped and counted.
func queueIsBounded(t *testing.T, w *World) {
	w.A.SetPolicy(t, requireAll())
	w.B.SetPolicy(t, requireAll())
	err := w.A.Do(func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(w.B.V4, 9).String())
		if err != nil {
			return err
		}
		defer c.Close()
		for range 200 {
			if _, err := c.Write([]byte(secret)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "every packet waits or was dropped", func() bool {
		return w.A.Counter("packets_waiting")+w.A.Counter("packets_queue_full") == 200
	})
	if waiting := w.A.Counter("packets_waiting"); waiting > 100 {
		t.Errorf("%d packets of one flow wait, want a bound far below", waiting)
	}
}

// replay: ESP packets that are sent a second time are dropped and counted.
func replay(t *testing.T, w *World) {
	for _, encap := range []bool{true, false} {
		t.Run(fmt.Sprintf("encap=%v", encap), func(t *testing.T) {
			pair := w.Connect(t, Options{Encap: encap})
			w.B.EchoUDP(t, netip.AddrPortFrom(w.B.V4, 9))
			wire := w.Watch(t)
			if err := w.A.TryUDP(netip.AddrPortFrom(w.B.V4, 9), 100, long); err != nil {
				t.Fatal(err)
			}
			before := w.B.Counter("packets_replayed")
			var sent uint64
			for _, f := range wire().Frames {
				if !f.Outgoing || Judge([]lab.Frame{f}).ESP+Judge([]lab.Frame{f}).Encap == 0 {
					continue
				}
				if encap { // the checksum is left to the device, which a copy does not pass
					binary.BigEndian.PutUint16(f.Data[udpChecksumAt:], 0)
				}
				if err := w.A.inject(f.Data); err != nil {
					t.Fatal(err)
				}
				sent++
			}
			if sent == 0 {
				t.Fatal("capture holds no ESP packet to replay")
			}
			eventually(t, "every replayed packet is counted", func() bool {
				return w.B.Counter("packets_replayed") == before+sent
			})
			if status := childOf(w.B, pair.ToEnd.In.SPI); status.ReplayDropped != sent {
				t.Errorf("SA counts %d replayed packets, want %d", status.ReplayDropped, sent)
			}
			if err := pair.Remove(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Where things stand in a captured frame: after Ethernet, IPv4 without options, UDP.
const (
	udpChecksumAt = 14 + 20 + 6
	spiAt         = 14 + 20 + 8
)

// inject sends a frame as it is.
func (p *Peer) inject(frame []byte) error {
	return p.Do(func() error {
		nic, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: nic.Index})
	})
}

// tampered: a changed octet is found, counted, and the packet dropped; so is an SPI that no SA has.
func tampered(t *testing.T, w *World) {
	pair := w.Connect(t, Options{Encap: true})
	w.B.EchoUDP(t, netip.AddrPortFrom(w.B.V4, 9))
	wire := w.Watch(t)
	if err := w.A.TryUDP(netip.AddrPortFrom(w.B.V4, 9), 100, long); err != nil {
		t.Fatal(err)
	}
	var frame []byte
	for _, f := range wire().Frames {
		if f.Outgoing && Judge([]lab.Frame{f}).Encap > 0 {
			frame = f.Data
		}
	}
	if frame == nil {
		t.Fatal("capture holds no ESP packet")
	}
	binary.BigEndian.PutUint16(frame[udpChecksumAt:], 0)
	frame[len(frame)-1] ^= 1
	frame[spiAt+7] += 100 // a sequence number that was not used yet
	if err := w.A.inject(frame); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tampered packet is counted", func() bool { return w.B.Counter("packets_not_authenticated") == 1 })
	if status := childOf(w.B, pair.ToEnd.In.SPI); status.AuthFailed != 1 {
		t.Errorf("SA counts %d packets that are not authentic, want 1", status.AuthFailed)
	}
	frame[spiAt] ^= 0x40
	if err := w.A.inject(frame); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the packet of an unknown SPI is counted", func() bool { return w.B.Counter("bad_spi_packets") == 1 })
	k := w.NewKeyer(t, func(*Peer, ike.Flow) *Pair { return nil })
	want := ike.UnknownESP{
		SPI: sa.SPI(binary.BigEndian.Uint32(frame[spiAt:])), Local: netip.AddrPortFrom(w.B.V4, 4500), Remote: netip.AddrPortFrom(w.A.V4, 4500),
		Octets: len(frame) - spiAt,
	}
	// Whoever sends to an SA that is not there goes on with it.
	eventually(t, "the unknown SPI is reported", func() bool {
		if err := w.A.inject(frame); err != nil {
			t.Fatal(err)
		}
		return slices.Contains(k.Events(), ike.Event(want))
	})
}

func childOf(p *Peer, in sa.SPI) (found datapath.ChildStatus) {
	for _, c := range p.Node.Status().Children {
		if c.In == in {
			return c
		}
	}
	return found
}

// wrongSelectors: what an SA was not negotiated for is not accepted from it.
func wrongSelectors(t *testing.T, w *World) {
	pair := w.Connect(t, Options{Encap: true, Change: func(c *sa.Child) {
		if c.Local.Addr() == w.B.V4 { // b believes that the SA is for TCP alone
			c.LocalTS[0].Protocol, c.RemoteTS[0].Protocol = 6, 6
		}
	}})
	w.B.EchoUDP(t, netip.AddrPortFrom(w.B.V4, 9))
	w.B.EchoTCP(t, 7)
	if err := w.A.TryTCP(netip.AddrPortFrom(w.B.V4, 7), long); err != nil {
		t.Errorf("TCP through the SA: %v", err)
	}
	if err := w.A.TryUDP(netip.AddrPortFrom(w.B.V4, 9), 100, short); err == nil {
		t.Error("UDP was accepted from an SA for TCP")
	}
	if n := w.B.Counter("packets_wrong_sa"); n != 1 {
		t.Errorf("b counts %d packets outside the selectors of their SA, want 1", n)
	}
	// A kernel counts for all SAs together.
	if n := childOf(w.B, pair.ToEnd.In.SPI).SelectorMismatch; n != 1 && w.B.Node.Status().Backend != "xfrm" {
		t.Errorf("SA counts %d packets outside its selectors, want 1", n)
	}
}

// blockedInSA: an SA does not carry what the policy blocks.
func blockedInSA(t *testing.T, w *World) {
	w.Connect(t, Options{Encap: true})
	w.B.EchoTCP(t, 7)
	p := requireAll()
	p.Rules = append(p.Rules, rule("no-echo", blockAction, localPort(6, 7)))
	w.B.SetPolicy(t, p)
	if err := w.A.TryTCP(netip.AddrPortFrom(w.B.V4, 7), short); err == nil {
		t.Error("TCP to a blocked port went through the SA")
	}
	if w.B.Counter("packets_blocked_in_sa") == 0 {
		t.Error("nothing was counted as blocked inside the SA")
	}
}

// rekey: new SAs take over under traffic and no packet is lost.
func rekey(t *testing.T, w *World) {
	pair := w.Connect(t, Options{Encap: true})
	w.B.EchoUDP(t, netip.AddrPortFrom(w.B.V4, 9))
	wire := w.Watch(t)
	done := make(chan error, 1)
	count := 2000
	if testing.Short() {
		count = 500
	}
	go func() {
		done <- w.A.Do(func() error {
			c, err := net.Dial("udp", netip.AddrPortFrom(w.B.V4, 9).String())
			if err != nil {
				return err
			}
			defer c.Close()
			for i := range count {
				if err := lab.RoundTrip(c, fmt.Appendf(nil, "%s %d", secret, i), time.Now().Add(long)); err != nil {
					return fmt.Errorf("exchange %d: %w", i, err)
				}
			}
			return nil
		})
	}()
	// What was sealed for an old SA may still be on its way when that is replaced: engines keep it for a while.
	const kept = 20
	rekeys, old := 0, []*Pair(nil)
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			running = false
		default:
			next, err := pair.Rekey(w)
			if err != nil {
				t.Fatal(err)
			}
			if old = append(old, pair); len(old) > kept {
				if err := old[0].Remove(); err != nil {
					t.Fatal(err)
				}
				old = old[1:]
			}
			pair = next
			rekeys++
		}
	}
	wire().wantProtected(t)
	if rekeys < 5 {
		t.Errorf("only %d rekeys during %d exchanges", rekeys, count)
	}
	t.Logf("%d rekeys during %d exchanges", rekeys, count)
}

// outIsUsedAfterSwitch: an outbound half is not used before SwitchOut or an authentic packet of the peer through the same
// SA, and the old inbound half works until Remove.
func outIsUsedAfterSwitch(t *testing.T, w *World) {
	old := w.Connect(t, Options{Encap: true})
	w.B.EchoUDP(t, netip.AddrPortFrom(w.B.V4, 9))
	try := func() {
		t.Helper()
		if err := w.A.TryUDP(netip.AddrPortFrom(w.B.V4, 9), 100, long); err != nil {
			t.Fatal(err)
		}
	}
	next := *old
	for _, k := range []struct{ a, b *sa.Keys }{{&next.FromEnd.In, &next.ToEnd.Out}, {&next.FromEnd.Out, &next.ToEnd.In}} {
		fresh, err := keys(GCM128)
		if err != nil {
			t.Fatal(err)
		}
		*k.a, *k.b = fresh, fresh
	}
	for _, step := range []error{
		next.From.Node.InstallIn(next.FromEnd), next.To.Node.InstallIn(next.ToEnd),
		next.From.Node.InstallOut(next.FromEnd), next.To.Node.InstallOut(next.ToEnd),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	try()
	if n := childOf(w.A, next.FromEnd.In.SPI).OutPackets; n != 0 {
		t.Errorf("%d packets went out through an SA that was not switched to", n)
	}
	if err := w.A.Node.SwitchOut(next.FromEnd); err != nil {
		t.Fatal(err)
	}
	try() // the peer uses the new SA: that is as good as a switch on the other side
	if a, b := childOf(w.A, next.FromEnd.In.SPI), childOf(w.B, next.ToEnd.In.SPI); a.OutPackets != 1 || b.OutPackets != 1 {
		t.Errorf("a sent %d packets through the new SA and b %d, want 1 and 1", a.OutPackets, b.OutPackets)
	}
	if b := childOf(w.B, old.ToEnd.In.SPI); b.OutPackets != 1 {
		t.Errorf("b sent %d packets through the old SA, want only the 1 before the switch", b.OutPackets)
	}
}

// limits: soft, hard and idle limits are reported once; beyond a hard limit the SA carries nothing.
func limits(t *testing.T, w *World) {
	w.B.EchoUDP(t, netip.AddrPortFrom(w.B.V4, 9))
	k := w.NewKeyer(t, func(*Peer, ike.Flow) *Pair { return nil })
	reported := func(spi sa.SPI, limit ike.Limit) int {
		n := 0
		for _, e := range k.Events() {
			if x, ok := e.(ike.ChildExpiring); ok && x.SPI == spi && x.Limit == limit {
				n++
			}
		}
		return n
	}
	pair := w.Connect(t, Options{Encap: true, Change: func(c *sa.Child) {
		c.Soft, c.Hard = sa.Limits{Packets: 3}, sa.Limits{Packets: 6}
	}})
	for i := range 5 {
		if err := w.A.TryUDP(netip.AddrPortFrom(w.B.V4, 9), 100, long); err != nil {
			t.Fatalf("datagram %d below the hard limit: %v", i, err)
		}
	}
	spi := pair.FromEnd.In.SPI
	eventually(t, "the soft limit is reported", func() bool { return reported(spi, ike.LimitSoft) == 1 })
	_ = w.A.TryUDP(netip.AddrPortFrom(w.B.V4, 9), 100, short) // the packet that reaches the limit
	eventually(t, "the hard limit is reported", func() bool { return reported(spi, ike.LimitHard) == 1 })
	sent := childOf(w.A, spi).OutPackets
	if err := w.A.TryUDP(netip.AddrPortFrom(w.B.V4, 9), 100, short); err == nil {
		t.Error("datagram went through an SA beyond its hard limit")
	}
	if now := childOf(w.A, spi).OutPackets; now != sent {
		t.Errorf("%d packets were sealed beyond the hard limit", now-sent)
	}
	if err := pair.Remove(); err != nil {
		t.Fatal(err)
	}
	pair = w.Connect(t, Options{Change: func(c *sa.Child) { c.Soft, c.Hard = sa.Limits{Bytes: 1000}, sa.Limits{Bytes: 2000} }})
	spi = pair.FromEnd.In.SPI
	for _, limit := range []ike.Limit{ike.LimitSoft, ike.LimitHard} {
		_ = w.A.TryUDP(netip.AddrPortFrom(w.B.V4, 9), 1200, short) // the second one may be lost
		eventually(t, fmt.Sprintf("limit %d of octets is reported", limit), func() bool { return reported(spi, limit) == 1 })
	}
	if err := pair.Remove(); err != nil {
		t.Fatal(err)
	}
	pair = w.Connect(t, Options{Change: func(c *sa.Child) {
		c.Idle, c.Soft.Time, c.Hard.Time = 300*time.Millisecond, 400*time.Millisecond, 800*time.Millisecond
	}})
	spi = pair.FromEnd.In.SPI
	for _, limit := range []ike.Limit{ike.LimitIdle, ike.LimitSoft, ike.LimitHard} {
		eventually(t, fmt.Sprintf("limit %d is reported", limit), func() bool { return reported(spi, limit) == 1 })
	}
}

// moves: a peer behind a NAT is followed to its new address, one that is not is not. Only a is behind one: what b sends to
// where a was, before b has followed, the connection tracking of a gives another source.
func moves(t *testing.T, w *World) {
	for _, nat := range []bool{true, false} {
		t.Run(fmt.Sprintf("nat=%v", nat), func(t *testing.T) {
			pair := w.Connect(t, Options{Encap: true, Change: func(c *sa.Child) { c.NATRemote = nat && c.Remote.Addr() == w.A.V4 }})
			k := w.NewKeyer(t, func(*Peer, ike.Flow) *Pair { return nil })
			w.B.EchoUDP(t, netip.AddrPortFrom(w.B.V4, 9))
			to := netip.AddrPortFrom(w.B.V4, 9)
			if err := w.A.TryUDP(to, 100, long); err != nil {
				t.Fatal(err)
			}
			// A NAT in a's own stack gives its ESP another port.
			w.A.mustRun(t, "nft", "add table ip test_nat { chain post { type nat hook postrouting priority srcnat; udp sport 4500 masquerade to :5601-5602; }; }")
			w.A.mustRun(t, "conntrack", "-F")
			defer w.A.mustRun(t, "nft", "delete table ip test_nat")
			if err := w.A.TryUDP(to, 100, long); err != nil && nat {
				t.Errorf("UDP after the peer moved: %v", err)
			}
			moved := func() (seen []ike.PeerMoved) {
				for _, e := range k.Events() {
					if m, ok := e.(ike.PeerMoved); ok {
						seen = append(seen, m)
					}
				}
				return seen
			}
			if nat {
				eventually(t, "the move is reported", func() bool { return len(moved()) > 0 })
			}
			seen := moved()
			if nat && (len(seen) != 1 || seen[0].SPI != pair.ToEnd.In.SPI || seen[0].Remote.Port() < 5601) {
				t.Errorf("reported moves are %+v, want one of SA %s to port 5601 or 5602", seen, pair.ToEnd.In.SPI)
			}
			if !nat && len(seen) > 0 {
				t.Errorf("reported moves are %+v, want none of a peer without a NAT", seen)
			}
			if err := pair.Remove(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
