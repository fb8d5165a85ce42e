package userspace

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/node/datapath/nftable"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/tun"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

var testParams = steering.Params{
	Device: DefaultName, Mask: MarkMask, Protect: MarkProtect, Own: MarkOwn, Reinject: MarkReinject, Tunnel: MarkTunnel, Forward: MarkForward,
}

// bench is a host whose network card and TUN are both in the hands of the test: what the kernel sends shows at once in
// one of them or in none. On the host for inbound packets every address of the generator is its own, on the one for
// outbound packets none is: raw sockets may use any source.
type bench struct {
	host     *lab.Host
	table    *nftable.Table
	card     *tun.Device
	tunnel   *tun.Device
	raw      map[bool]*rawSockets // by whether it carries the mark of the own sockets
	judge    *nftables.Conn
	accepted *nftables.Chain
	buffer   []byte
	seen     uint64 // packets that the judge has counted
}

func newBench(t *testing.T, l *lab.Lab, d spd.Direction) *bench {
	t.Helper()
	return newNamedBench(t, l, d.String(), d)
}

func newNamedBench(t *testing.T, l *lab.Lab, name string, d spd.Direction) *bench {
	t.Helper()
	h, err := l.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{host: h, raw: map[bool]*rawSockets{}, buffer: make([]byte, tun.BufferSize)}
	if err := h.Do(func() error { return b.open() }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := errors.Join(b.table.Close(), b.judge.CloseLasting(), b.card.Close(), b.tunnel.Close(), b.raw[false].close(), b.raw[true].close())
		if err != nil {
			t.Error(err)
		}
	})
	commands := [][]string{
		// The kernel sends nothing without an address of its own.
		{"ip", "addr", "add", "192.168.77.1/32", "dev", "eth0"},
		{"ip", "addr", "add", "2001:db8:ffff::1/128", "dev", "eth0", "nodad"},
		{"ip", "addr", "add", "fe80::77/64", "dev", "eth0", "nodad"},
		{"ip", "route", "add", "default", "dev", "eth0"},
		{"ip", "-6", "route", "add", "default", "dev", "eth0"},
		{"ip", "route", "add", "224.0.0.0/4", "dev", "eth0"},
		{"ip", "route", "add", "255.255.255.255", "dev", "eth0"},
	}
	if d == spd.In {
		for _, a := range own {
			args := []string{"ip", "addr", "add", netip.PrefixFrom(a, a.BitLen()).String(), "dev", "lo"}
			if a.Is6() {
				args = append(args, "nodad")
			}
			commands = append(commands, args)
		}
		for _, conf := range []string{"all", "eth0"} {
			commands = append(commands, []string{"sysctl", "-qw", "net.ipv4.conf." + conf + ".accept_local=1", "net.ipv4.conf." + conf + ".rp_filter=0"})
		}
	}
	for _, c := range commands {
		if _, err := h.Run(c...); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// newPropertyBench is a bench for thousands of packets of which the kernel never gets every piece: it keeps them all to
// the end, so that it has no reason to send an ICMP error. What it sends of its own accord (neighbour, router and listener
// discovery, redirects) belongs to no user, and is dropped before it could be counted.
func newPropertyBench(t *testing.T, l *lab.Lab, name string, d spd.Direction) *bench {
	t.Helper()
	b := newNamedBench(t, l, name, d)
	for _, key := range []string{"net.ipv4.ipfrag", "net.ipv6.ip6frag", "net.netfilter.nf_conntrack_frag6"} {
		unit := "_time"
		if strings.HasPrefix(key, "net.netfilter") {
			unit = "_timeout"
		}
		if _, err := b.host.Run("sysctl", "-qw", key+unit+"=86400", key+"_high_thresh=100000000"); err != nil {
			t.Fatal(err)
		}
	}
	quiet := "add table inet quiet { chain own { type filter hook output priority raw; meta skuid 0 accept; meta l4proto { icmp, icmpv6, igmp } drop; }; }"
	if _, err := b.host.Run("nft", quiet); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) open() (err error) {
	if b.table, err = nftable.Open(DefaultNFTable, nil); err != nil {
		return err
	}
	if b.card, err = tun.Open(tun.Config{Name: "eth0", NoOffload: true}); err != nil {
		return err
	}
	if b.tunnel, err = tun.Open(tun.Config{Name: DefaultName, NoOffload: true, MTU: tunMTU}); err != nil {
		return err
	}
	r, err := openRouting(DefaultTable, DefaultPriority, DefaultName)
	if err != nil {
		return err
	}
	if err := errors.Join(r.install(b.tunnel.Index()), r.close()); err != nil {
		return err
	}
	for _, marked := range []bool{false, true} {
		s, err := openRawSockets(true, MarkReinject)
		if err != nil {
			return err
		}
		b.raw[marked] = s
		mark := 0
		if marked {
			mark = int(MarkOwn)
		}
		for _, fd := range []int{s.v4, s.v6} {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
				return err
			}
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
				return err
			}
		}
	}
	return b.openJudge()
}

// openJudge counts what passes the input hook after our table, and drops it before anybody answers.
func (b *bench) openJudge() (err error) {
	if b.judge, err = nftables.New(nftables.AsLasting()); err != nil {
		return err
	}
	table := b.judge.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "judge"})
	b.accepted = b.judge.AddChain(&nftables.Chain{
		Table: table, Name: "accepted", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	})
	b.judge.AddRule(&nftables.Rule{Table: table, Chain: b.accepted, Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}})
	return b.judge.Flush()
}

func (b *bench) count() (uint64, error) {
	rules, err := b.judge.GetRules(b.accepted.Table, b.accepted)
	if err != nil {
		return 0, err
	}
	return rules[0].Exprs[0].(*expr.Counter).Packets, nil
}

// drain reads what a device was given, and reports whether anything of it is what is looked for.
func (b *bench) drain(d *tun.Device, is func(octets []byte) bool) bool {
	found := false
	for {
		_, pkt, err := d.Queue(0).Read(b.buffer)
		if err != nil {
			return found
		}
		found = found || is(pkt)
	}
}

// same recognises a whole packet. The kernel fills the IPv4 checksum and identification in.
func same(want []byte) func([]byte) bool {
	return func(pkt []byte) bool {
		return len(pkt) == len(want) && slices.Equal(pkt[len(pkt)-16:], want[len(want)-16:])
	}
}

// out sends a packet and tells what the kernel did with it.
func (b *bench) out(p spd.Packet, pkt []byte) (spd.Fate, error) {
	b.send(p, pkt)
	return b.left(same(pkt))
}

// send has the kernel send a packet. EPERM and EHOSTUNREACH tell of a drop, as the devices do.
func (b *bench) send(p spd.Packet, pkt []byte) {
	if s := b.raw[p.Own]; p.Source.Is4() {
		_ = unix.Sendto(s.v4, pkt, 0, &unix.SockaddrInet4{Addr: p.Destination.As4()})
	} else {
		to := &unix.SockaddrInet6{Addr: p.Destination.As16()}
		if p.Destination.IsLinkLocalUnicast() || p.Destination.IsMulticast() {
			to.ZoneId = uint32(b.card.Index())
		}
		_ = unix.Sendto(s.v6, pkt, 0, to)
	}
}

// left tells by which device a packet left.
func (b *bench) left(is func(octets []byte) bool) (spd.Fate, error) {
	clear, protected := b.drain(b.card, is), b.drain(b.tunnel, is)
	switch {
	case clear && protected:
		return 0, errors.New("packet left twice")
	case clear:
		return spd.Pass, nil
	case protected:
		return spd.Protect, nil
	}
	return spd.Drop, nil
}

// entered tells what became of a packet that came in by the card.
func (b *bench) entered() (spd.Fate, error) {
	before := b.seen
	var err error
	if b.seen, err = b.count(); err != nil {
		return 0, err
	}
	switch b.seen - before {
	case 0:
		return spd.Drop, nil
	case 1:
		return spd.Pass, nil
	}
	return 0, fmt.Errorf("%d packets came in, want one", b.seen-before)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// own are the addresses that packets of the generator may go to.
var own = func() []netip.Addr {
	var out []netip.Addr
	for _, s := range []string{
		"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.6", "10.0.1.1", "10.0.1.2", "192.0.2.1",
		"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:1::1",
	} {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}()

// octets makes a packet of a description; serial tells it from others.
func octets(p spd.Packet, serial uint32) []byte {
	payload := content(p, serial, 40)
	h := packet.IP{Source: p.Source, Destination: p.Destination, Protocol: p.Protocol, HopLimit: 64, PayloadLen: len(payload)}
	return append(h.AppendHeader(nil), payload...)
}

// TestLargePolicy puts thousands of filters into force, and replaces them while nothing else changes.
func TestLargePolicy(t *testing.T) {
	l := labtest.New(t, "bwdpl-")
	h, err := l.Host("large")
	if err != nil {
		t.Fatal(err)
	}
	var table *nftable.Table
	var watch *nftable.Watch
	err = h.Do(func() (err error) {
		if table, err = nftable.Open(DefaultNFTable, nil); err == nil {
			watch, err = table.Watch()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(watch.Close(), table.Close()); err != nil {
			t.Error(err)
		}
	})
	const rules = 2000
	policy := spd.Policy{Name: "large"}
	for i := range rules {
		policy.Rules = append(policy.Rules, spd.Rule{
			ID: fmt.Sprint("r", i), Action: spd.FilterAction{Action: spd.ActionBlock},
			Filters: []spd.Filter{{ID: fmt.Sprint("f", i), Mirrored: true, Source: spd.Address{Kind: spd.AddressMe}, Destination: spd.Address{
				Kind: spd.AddressPrefix, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
			}}},
		})
	}
	set, err := spd.Expand(policy, spd.Facts{Addresses: own[:2]})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		begin := time.Now()
		if err := table.Replace(steering.Compile(set, testParams), true, nil); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d filters in force after %s", len(set.Filters()), time.Since(begin))
	}
	// Notifications that do not fit the buffer count as changes by another program: the table would be restored for ever.
	go watch.Run()
	select {
	case <-watch.Changed():
		t.Fatal("the watch takes own changes for those of others")
	case <-time.After(time.Second):
	}
	got, want := 0, len(set.Filters())
	for name := range table.Counters() {
		if strings.HasPrefix(name, "filter/") {
			got++
		}
	}
	if got != rules {
		t.Errorf("kernel holds counters of %d rules, want %d (%d filters)", got, rules, want)
	}
}
