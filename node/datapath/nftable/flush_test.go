package nftable

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/tun"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

var (
	me   = netip.MustParseAddr("192.0.2.10")
	peer = netip.MustParseAddr("198.51.100.7")
)

const (
	permitted = 53
	protected = 5000
)

var flushes = flag.Int("flushes", 50, "how often another program flushes all tables, for each way of standing that")

// besides are tables of others, as firewalld, iptables and an administrator make them.
const besides = `
add table inet firewalld; add chain inet firewalld filter_OUTPUT { type filter hook output priority filter + 10; policy accept; };
add rule inet firewalld filter_OUTPUT ct state established,related accept;
add table ip filter; add chain ip filter OUTPUT { type filter hook output priority filter; policy accept; };
add rule ip filter OUTPUT meta mark set meta mark | 0x1 counter accept;
add table ip nat; add chain ip nat POSTROUTING { type nat hook postrouting priority srcnat; policy accept; };
add rule ip nat POSTROUTING oifname "docker0" masquerade;
add table inet admin; add chain inet admin early { type filter hook output priority raw; policy accept; }; add rule inet admin early accept;
`

// wire is a host whose network card is in the hands of the test: what leaves in clear shows there, and what the test puts in
// has come in clear.
type wire struct {
	host  *lab.Host
	card  *tun.Device
	table *Table
	watch *Watch
	out   *net.UDPConn
	in    *net.UDPConn

	rules struct {
		sync.Mutex
		all  [2]steering.Ruleset
		next int
	}
	stop                       chan struct{}
	running                    sync.WaitGroup
	sent, passed, leaked, came atomic.Int64
}

func newWire(t *testing.T) *wire {
	t.Helper()
	l := labtest.New(t, "bwfl-")
	h, err := l.Host("a")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{host: h, stop: make(chan struct{})}
	err = h.Do(func() (err error) {
		if w.card, err = tun.Open(tun.Config{Name: "eth0", NoOffload: true}); err != nil {
			return err
		}
		w.table, err = Open("bailiwick", nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"ip addr add 192.0.2.10/24 dev eth0", "ip route add default dev eth0"} {
		if _, err := h.Run(strings.Fields(command)...); err != nil {
			t.Fatal(err)
		}
	}
	err = h.Do(func() (err error) {
		if w.out, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(me, 6000))); err != nil {
			return err
		}
		w.in, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(me, 7000)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range w.rules.all {
		w.rules.all[i] = rulesOf(t, 100*(i+1))
	}
	return w
}

// rulesOf has everything with the peer's network negotiated but UDP port 53, and some filters about nothing here. The
// networks stand in one map of intervals: without what is in it, everything is permitted.
func rulesOf(t testing.TB, more int) steering.Ruleset {
	t.Helper()
	self, theirs := spd.Address{Kind: spd.AddressMe}, spd.Address{Kind: spd.AddressPrefix, Prefix: netip.PrefixFrom(peer, 24).Masked()}
	p := spd.Policy{
		Name:        "flushed",
		KeyExchange: spd.KeyExchange{Offers: []proposal.IKE{{Encryption: proposal.EncrAESGCM16, KeyBits: 128, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519}}},
		Rules: []spd.Rule{
			{ID: "all", Auth: []spd.Auth{{Method: spd.AuthPSK, Secret: "k"}}, Filters: []spd.Filter{{ID: "f", Source: self, Destination: theirs, Mirrored: true}},
				Action: spd.FilterAction{Action: spd.ActionNegotiate, Offers: []proposal.ESP{{Encryption: proposal.EncrAESGCM16, KeyBits: 128}}}},
			{ID: "dns", Action: spd.FilterAction{Action: spd.ActionPermit}, Filters: []spd.Filter{
				{ID: "f53", Source: self, Destination: theirs, Protocol: spd.ProtocolUDP, DestinationPort: spd.PortRange{From: permitted, To: permitted}, Mirrored: true}}},
		},
	}
	for i := range more {
		p.Rules = append(p.Rules, spd.Rule{
			ID: fmt.Sprint("r", i), Action: spd.FilterAction{Action: spd.ActionBlock},
			Filters: []spd.Filter{{ID: fmt.Sprint("r", i), Mirrored: true, Source: self, Destination: spd.Address{
				Kind: spd.AddressPrefix, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
			}}},
		})
	}
	set, err := spd.Expand(p, spd.Facts{Addresses: []netip.Addr{me}})
	if err != nil {
		t.Fatal(err)
	}
	return steering.Compile(set, steering.Params{
		Device: "bw0", Mask: 0x00ff0000, Protect: 0x00b10000, Own: 0x00b20000, Reinject: 0x00b30000, Tunnel: 0x00b40000, Forward: 0x00b50000,
	})
}

// start watches the table, and lets traffic flow: out, to a port that is permitted and to one that is not, and in, to a
// socket.
func (w *wire) start(t *testing.T) {
	t.Helper()
	if err := w.host.Do(func() (err error) { w.watch, err = w.table.Watch(); return err }); err != nil {
		t.Fatal(err)
	}
	w.running.Add(2)
	go func() { // what the backend does with a change of others
		defer w.running.Done()
		for range w.watch.Changed() {
			if err := w.put(true); err != nil {
				t.Errorf("repair: %v", err)
			}
		}
	}()
	go func() {
		defer w.running.Done()
		w.watch.Run()
	}()
	w.traffic()
}

// traffic lets packets flow, and looks at what becomes of them.
func (w *wire) traffic() {
	w.running.Add(3)
	go func() {
		defer w.running.Done()
		w.send()
	}()
	go func() {
		defer w.running.Done()
		w.look()
	}()
	go func() {
		defer w.running.Done()
		b := make([]byte, 2048)
		for {
			if _, _, err := w.in.ReadFrom(b); err != nil {
				return
			}
			w.came.Add(1)
		}
	}()
}

func (w *wire) send() {
	clear := inbound()
	for {
		select {
		case <-w.stop:
			return
		default:
		}
		for _, port := range []uint16{protected, permitted} {
			// EPERM tells of a drop, as the card does.
			_, _ = w.out.WriteToUDPAddrPort([]byte("payload"), netip.AddrPortFrom(peer, port))
		}
		_ = w.card.Queue(0).Write(tun.Header{}, clear)
		w.sent.Add(1)
	}
}

// inbound is a datagram of the peer in clear.
func inbound() []byte {
	payload := []byte("payload")
	datagram := binary.BigEndian.AppendUint16(nil, 9)
	datagram = binary.BigEndian.AppendUint16(datagram, 7000)
	datagram = binary.BigEndian.AppendUint16(datagram, uint16(8+len(payload)))
	datagram = append(append(datagram, 0, 0), payload...) // no checksum (RFC 768)
	h := packet.IP{Source: peer, Destination: me, Protocol: spd.ProtocolUDP, HopLimit: 64, PayloadLen: len(datagram)}
	return append(h.AppendHeader(nil), datagram...)
}

// look reads what leaves by the card.
func (w *wire) look() {
	b := make([]byte, tun.BufferSize)
	for {
		_, pkt, err := w.card.Queue(0).Read(b)
		if err != nil {
			select {
			case <-w.stop:
				return
			default:
			}
			_ = w.card.Queue(0).Wait(10 * time.Millisecond)
			continue
		}
		switch info, err := packet.Parse(pkt); {
		case err != nil || info.Destination != peer: // discovery of the kernel itself
		case info.DestinationPort == permitted:
			w.passed.Add(1)
		default:
			w.leaked.Add(1)
		}
	}
}

// put replaces the rules by the other ones.
func (w *wire) put(fresh bool) error {
	w.rules.Lock()
	defer w.rules.Unlock()
	w.rules.next++
	return w.table.Replace(w.rules.all[w.rules.next%len(w.rules.all)], fresh, nil)
}

func (w *wire) end(t *testing.T) {
	t.Helper()
	close(w.stop)
	if err := errors.Join(w.in.Close(), w.out.Close()); err != nil {
		t.Error(err)
	}
	if w.watch != nil {
		if err := w.watch.Close(); err != nil {
			t.Error(err)
		}
	}
	w.running.Wait()
	if err := errors.Join(w.table.Close(), w.card.Close()); err != nil {
		t.Error(err)
	}
}

// more waits until traffic has flowed since.
func (w *wire) more(t *testing.T) {
	t.Helper()
	sent, passed := w.sent.Load(), w.passed.Load()
	w.eventually(t, "traffic flows", func() bool { return w.sent.Load() > sent+2 && w.passed.Load() > passed })
}

func (w *wire) eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
		<-time.After(100 * time.Microsecond)
	}
}

// flushRuleset is what "nft flush ruleset" sends.
func flushRuleset(s *netfilterSocket) error {
	x := newTransaction("")
	x.begin(unix.NFT_MSG_DELTABLE, 0)
	x.b[x.last+16] = unix.AF_UNSPEC
	x.end()
	return s.commit(x)
}

// TestFlushesLeakNothing has another program flush all tables of the machine again and again, while traffic flows and the
// policy is replaced half as often. On the card, no packet ever leaves in clear that must not, and none that came in clear is
// accepted.
func TestFlushesLeakNothing(t *testing.T) {
	for _, mode := range []struct {
		name   string
		copies func() []*holding
	}{
		{"as the kernel can", nil},
		{"in two tables", func() []*holding { return twoCopies("bailiwick") }},
	} {
		t.Run(mode.name, func(t *testing.T) {
			w := newWire(t)
			if mode.copies != nil {
				w.table.copies = mode.copies()
			}
			if note := w.table.Note(); note != "" {
				t.Log(note)
			}
			if err := w.put(true); err != nil {
				t.Fatal(err)
			}
			w.start(t)
			defer w.end(t)
			other := w.flush(t)
			if n := w.leaked.Load(); n != 0 {
				t.Errorf("%d packets left in clear that were to be protected", n)
			}
			if n := w.came.Load(); n != 0 {
				t.Errorf("%d packets were accepted that came in clear", n)
			}
			w.table.mu.Lock()
			replaced := w.table.mu.serial
			w.table.mu.Unlock()
			t.Logf("%d flushes and %d replacements, %d packets each way, %d permitted ones left", *flushes, replaced, w.sent.Load(), w.passed.Load())
			w.control(t, other)
		})
	}
}

// flush makes the changes; it returns the socket of the other program.
func (w *wire) flush(t *testing.T) *netfilterSocket {
	t.Helper()
	other := w.opener(t)
	for i := range *flushes {
		if i%50 == 0 {
			if _, err := w.host.Run("nft", besides); err != nil {
				t.Fatal(err)
			}
			w.more(t) // the tables of others change nothing
			if _, err := w.host.Run("nft", "flush", "ruleset"); err != nil {
				t.Fatal(err)
			}
			if out, err := w.host.Run("nft", "list", "tables"); err != nil || strings.Contains(out, "firewalld") {
				t.Fatalf("nft flush ruleset did not flush the tables of others: %v\n%s", err, out)
			}
		} else if err := flushRuleset(other); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := w.put(false); err != nil {
				t.Fatal(err)
			}
		}
		w.more(t)
	}
	return other
}

// control shows that the test would have seen a leak: without the rules the packets pass.
func (w *wire) control(t *testing.T, other *netfilterSocket) {
	t.Helper()
	// Only who repairs can end this: nobody may be kept from it yet.
	w.eventually(t, "the table stands again", func() bool {
		h := holding{name: "bailiwick"}
		_, _, err := h.read(other)
		return err == nil && h.exists
	})
	w.rules.Lock() // from now on nobody repairs
	defer w.rules.Unlock()
	if err := w.table.Release(); err != nil {
		t.Fatal(err)
	}
	w.eventually(t, "packets leave in clear without the rules", func() bool { return w.leaked.Load() > 0 })
	w.eventually(t, "packets in clear are accepted without the rules", func() bool { return w.came.Load() > 0 })
}
