package userspace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/node/datapath/nftable"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/tun"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// mixed is a policy of so many filters, as a directory of many hands makes it: networks, hosts, services of networks and
// services of this machine, blocked, permitted and negotiated in turns. Last in the order of weights comes what the packets
// of the benchmark are: UDP to and from port 53 of anybody.
func mixed(filters int) spd.Policy {
	me := spd.Address{Kind: spd.AddressMe}
	one := func(p uint16) spd.PortRange { return spd.PortRange{From: p, To: p} }
	negotiate := spd.FilterAction{Action: spd.ActionNegotiate, Offers: []proposal.ESP{{Encryption: proposal.EncrAESGCM16, KeyBits: 128}}}
	actions := []spd.FilterAction{{Action: spd.ActionBlock}, {Action: spd.ActionPermit}, negotiate}
	p := spd.Policy{Name: "mixed", KeyExchange: spd.KeyExchange{Offers: []proposal.IKE{{
		Encryption: proposal.EncrAESGCM16, KeyBits: 128, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519,
	}}}}
	for i := range filters - 1 {
		f := spd.Filter{ID: fmt.Sprint("f", i), Mirrored: true, Source: me}
		network := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0})
		switch i % 4 {
		case 0:
			f.Destination = spd.Address{Kind: spd.AddressPrefix, Prefix: netip.PrefixFrom(network, 24)}
		case 1:
			f.Destination = spd.Address{Kind: spd.AddressPrefix, Prefix: netip.PrefixFrom(network.Next(), 32)}
		case 2:
			f.Destination = spd.Address{Kind: spd.AddressPrefix, Prefix: netip.PrefixFrom(network, 24)}
			f.Protocol, f.DestinationPort = spd.ProtocolTCP, one(uint16(20+i%40))
		case 3:
			f.Protocol, f.SourcePort = spd.ProtocolTCP, one(uint16(1024+i))
		}
		r := spd.Rule{ID: fmt.Sprint("r", i), Action: actions[i/4%3], Filters: []spd.Filter{f}}
		if r.Action.Action == spd.ActionNegotiate {
			r.Auth = []spd.Auth{{Method: spd.AuthPSK, Secret: "k"}}
		}
		p.Rules = append(p.Rules, r)
	}
	p.Rules = append(p.Rules, spd.Rule{ID: "dns", Action: spd.FilterAction{Action: spd.ActionPermit}, Filters: []spd.Filter{
		{ID: "dns", Source: me, Protocol: spd.ProtocolUDP, DestinationPort: one(53), Mirrored: true},
	}})
	return p
}

var (
	benchMe   = netip.MustParseAddr("192.0.2.10")
	benchPeer = netip.MustParseAddr("198.51.100.7")
)

func mixedSet(tb testing.TB, filters int) spd.Set {
	tb.Helper()
	set, err := spd.Expand(mixed(filters), spd.Facts{Addresses: []netip.Addr{benchMe}})
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// steeringHost is a host with a device that swallows what is sent.
func steeringHost(b *testing.B) (*lab.Host, *nftable.Table) {
	b.Helper()
	l := labtest.New(b, "bwsb-")
	h, err := l.Host("a")
	if err != nil {
		b.Fatal(err)
	}
	var card *tun.Device // nobody reads it
	if err := h.Do(func() (err error) { card, err = tun.Open(tun.Config{Name: "eth0", NoOffload: true}); return err }); err != nil {
		b.Fatal(err)
	}
	for _, c := range [][]string{
		{"ip", "addr", "add", benchMe.String() + "/24", "dev", "eth0"}, {"ip", "route", "add", "default", "dev", "eth0"},
	} {
		if _, err := h.Run(c...); err != nil {
			b.Fatal(err)
		}
	}
	var table *nftable.Table
	if err := h.Do(func() (err error) { table, err = nftable.Open(DefaultNFTable, nil); return err }); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := errors.Join(table.Close(), card.Close()); err != nil {
			b.Error(err)
		}
	})
	return h, table
}

// BenchmarkSteering measures the processor time that the rules cost a packet that leaves: a datagram that only the last filter
// describes, with the same datagram without any rules taken off. It is the median of many short turns.
func BenchmarkSteering(b *testing.B) {
	for _, filters := range []int{10, 1000, 5000} {
		b.Run(fmt.Sprintf("filters=%d", filters), func(b *testing.B) {
			h, table := steeringHost(b)
			var fd int
			err := h.Do(func() (err error) {
				if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
					err = unix.Bind(fd, &unix.SockaddrInet4{Addr: benchMe.As4()})
				}
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = unix.Close(fd) })
			rules := steering.Compile(mixedSet(b, filters), testParams)
			with, without := sends(b, table, rules, fd)
			b.ReportMetric(with-without, "ns/packet")
			b.ReportMetric(without, "ns-without-rules")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// sends returns the time of a send with rules and without.
func sends(b *testing.B, table *nftable.Table, rules steering.Ruleset, fd int) (with, without float64) {
	b.Helper()
	const turns, packets = 31, 2000
	to := &unix.SockaddrInet4{Addr: benchPeer.As4(), Port: 53}
	payload := binary.BigEndian.AppendUint64(nil, 1)
	turn := func() float64 {
		begin := threadTime(b)
		for range packets {
			// ENOBUFS tells of a full device, as it is meant to be.
			if err := unix.Sendto(fd, payload, 0, to); err != nil && !errors.Is(err, unix.ENOBUFS) {
				b.Fatal(err)
			}
		}
		return float64((threadTime(b) - begin).Nanoseconds()) / packets
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var on, off []float64
	for range b.N {
		if err := table.Release(); err != nil {
			b.Fatal(err)
		}
		for range turns {
			off = append(off, turn())
		}
		if err := table.Replace(rules, true, nil); err != nil {
			b.Fatal(err)
		}
		for range turns {
			on = append(on, turn())
		}
	}
	slices.Sort(on)
	slices.Sort(off)
	return on[len(on)/2], off[len(off)/2]
}

func threadTime(b *testing.B) time.Duration {
	b.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		b.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// BenchmarkSwap measures how long a policy of many filters takes into force: its first time, and as another one of which
// one filter differs. The processor time is that of this process, with what the kernel does in its name.
func BenchmarkSwap(b *testing.B) {
	for _, filters := range []int{10, 1000, 5000} {
		b.Run(fmt.Sprintf("filters=%d", filters), func(b *testing.B) {
			_, table := steeringHost(b)
			sets := [2]spd.Set{mixedSet(b, filters), mixedSet(b, filters+1)}
			var first, second, compile, cpu time.Duration
			for range b.N {
				used := processorTime(b)
				begin := time.Now()
				rules := steering.Compile(sets[0], testParams)
				compile += time.Since(begin)
				if err := table.Replace(rules, true, nil); err != nil {
					b.Fatal(err)
				}
				first += time.Since(begin)
				cpu += processorTime(b) - used
				begin = time.Now()
				if err := table.Replace(steering.Compile(sets[1], testParams), false, nil); err != nil {
					b.Fatal(err)
				}
				second += time.Since(begin)
			}
			for name, d := range map[string]time.Duration{"ms-first": first, "ms-first-cpu": cpu, "ms-compile": compile, "ms-swap": second} {
				b.ReportMetric(float64(d.Microseconds())/1000/float64(b.N), name)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(errors.Join(errors.New("getrusage"), err))
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
