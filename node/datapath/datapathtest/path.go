package datapathtest

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// narrow is the MTU of the link between the routers of a detour, in octets.
const narrow = 1340

// detour joins the hosts by a second way, part of which has less room than either knows of:
//
//	a 10.63.1.1 fd63:1::1 --- ra --- narrow --- rb --- b 10.63.2.1 fd63:2::1
//
// It returns the routers; the addresses of the hosts are those of the detour from then on.
func (w *World) detour(t *testing.T) (routers []*lab.Host) {
	t.Helper()
	for i, p := range []*Peer{w.A, w.B} {
		r, err := w.Lab.Host("r" + p.Name)
		if err != nil {
			t.Fatal(err)
		}
		routers = append(routers, r)
		n := byte(i + 1)
		v4, v6 := netip.AddrFrom4([4]byte{10, 63, n, 1}), netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x63, 3: n, 15: 1})
		err = w.Lab.Link(
			lab.End{Host: p.Host, Device: "eth1", Addresses: []netip.Prefix{netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)}},
			lab.End{Host: r, Device: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(v4.Next(), 24), netip.PrefixFrom(v6.Next(), 64)}},
		)
		if err != nil {
			t.Fatal(err)
		}
		p.mustRun(t, "ip", "route", "add", "10.63.0.0/16", "via", v4.Next().String())
		p.mustRun(t, "ip", "-6", "route", "add", "fd63::/16", "via", v6.Next().String())
		p.Facts.Addresses = append(p.Facts.Addresses, v4, v6)
		p.V4, p.V6 = v4, v6
	}
	middle := [][]netip.Prefix{
		{netip.MustParsePrefix("10.63.0.1/24"), netip.MustParsePrefix("fd63:0:1::1/64")},
		{netip.MustParsePrefix("10.63.0.2/24"), netip.MustParsePrefix("fd63:0:1::2/64")},
	}
	err := w.Lab.Link(lab.End{Host: routers[0], Device: "eth1", Addresses: middle[0]}, lab.End{Host: routers[1], Device: "eth1", Addresses: middle[1]})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range routers {
		for _, command := range [][]string{
			{"sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"},
			{"ip", "link", "set", "eth1", "mtu", fmt.Sprint(narrow)},
			{"ip", "route", "add", "10.63.0.0/16", "via", middle[1-i][0].Addr().String()},
			{"ip", "-6", "route", "add", "fd63::/16", "via", middle[1-i][1].Addr().String()},
		} {
			if _, err := r.Run(command...); err != nil {
				t.Fatal(err)
			}
		}
	}
	return routers
}

// narrowPath: a path with less room than the first link is found out, by the word of its routers or, where these keep
// silent and fragments get lost, by probes. Connections go on, and datagrams that do not fit arrive.
func narrowPath(t *testing.T, w *World) {
	routers := w.detour(t)
	w.B.EchoTCP(t, 7)
	for _, silent := range []bool{false, true} {
		if silent {
			if w.A.Node.Status().Backend == "xfrm" {
				t.Log("the kernel's ESP sends no probes: a path whose routers keep silent is left to TCP (net.ipv4.tcp_mtu_probing)")
				return
			}
			const hole = "add table inet hole { chain out { type filter hook output priority 0; icmp type destination-unreachable drop; icmpv6 type packet-too-big drop; }; }"
			for _, r := range routers {
				if _, err := r.Run("nft", hole); err != nil {
					t.Fatal(err)
				}
			}
			for _, p := range []*Peer{w.A, w.B} {
				p.mustRun(t, "nft", "add table ip hole { chain in { type filter hook prerouting priority -450; ip frag-off & 0x3fff != 0 drop; }; }")
			}
		}
		for _, v6 := range []bool{false, true} {
			for _, encap := range []bool{false, true} {
				if silent && encap == v6 {
					continue // a search takes its time
				}
				t.Run(fmt.Sprintf("silent=%v/v6=%v/encap=%v", silent, v6, encap), func(t *testing.T) {
					w.crossNarrowPath(t, silent, v6, encap)
				})
			}
		}
	}
}

func (w *World) crossNarrowPath(t *testing.T, silent, v6, encap bool) {
	local, remote := w.A.V4, w.B.V4
	if v6 {
		local, remote = w.A.V6, w.B.V6
	}
	for _, p := range []*Peer{w.A, w.B} {
		p.SetPolicy(t, requireAll())
		p.mustRun(t, "ip", "route", "flush", "cache") // what an earlier flow was told
		p.mustRun(t, "ip", "-6", "route", "flush", "cache")
	}
	pair, err := w.NewPair(w.A, ike.Flow{Local: local, Remote: remote, LocalTS: whole(local), RemoteTS: whole(remote)},
		Options{Mode: sa.Transport, Encap: encap, Rule: [2]string{ruleID, ruleID}})
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Install(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pair.Remove(); err != nil {
			t.Error(err)
		}
	}()
	before := w.A.Counter("path_mtu_messages")
	counters := func() string {
		return fmt.Sprintf("A: %v\nB: %v", counted(w.A), counted(w.B))
	}
	if err := w.A.TransferTCP(netip.AddrPortFrom(remote, 7), 1<<20, 20*time.Second); err != nil {
		t.Fatalf("TCP over a path of %d octets: %v\n%s", narrow, err, counters())
	}
	// A sender that forbids fragments is told what fits the path, not what fits the link.
	family := "-4"
	if v6 {
		family = "-6"
	}
	eventually(t, "a sender is told the path MTU", func() bool {
		out, err := w.A.Run("ping", family, "-c", "1", "-W", "0.2", "-M", "do", "-s", "1400", remote.String())
		return err != nil && strings.Contains(strings.ToLower(out+err.Error()), "mtu")
	})
	if told := w.A.Counter("path_mtu_messages") > before; told == silent && w.A.Node.Status().Backend == "userspace" {
		t.Errorf("a heard a router: %v, want %v", told, !silent)
	}
	w.A.wantPath(t, silent)
	capture, err := w.B.Capture("eth1")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.A.TransferTCP(netip.AddrPortFrom(remote, 7), 1<<20, 20*time.Second); err != nil {
		t.Errorf("TCP once the path is known: %v\n%s", err, counters())
	}
	frames, err := capture.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if n := fragments(frames); n > 0 {
		t.Errorf("%d fragments arrive of a connection that knows the path, want none", n)
	}
	if silent && !v6 {
		return // fragments get lost here, and with them every datagram that is too long
	}
	w.B.EchoUDP(t, netip.AddrPortFrom(remote, 9))
	for _, length := range []int{1200, 1300, 1400, 1440, 3000, 9000} {
		to := netip.AddrPortFrom(remote, 9)
		err := w.A.TryUDP(to, length, short)
		for tries := 0; err != nil && tries < 2; tries++ { // a sender may learn the path MTU from its first one
			err = w.A.TryUDP(to, length, short)
		}
		if err != nil {
			t.Errorf("UDP of %d octets: %v\n%s", length, err, counters())
		}
	}
}

// counted are the counters of a host that count anything.
func counted(p *Peer) map[string]uint64 {
	counters := p.Node.Status().Counters
	maps.DeleteFunc(counters, func(_ string, n uint64) bool { return n == 0 })
	return counters
}

// fragments counts the pieces of packets that a host received.
func fragments(frames []lab.Frame) (n int) {
	for _, f := range frames {
		if f.Outgoing {
			continue
		}
		p := gopacket.NewPacket(f.Data, layers.LayerTypeEthernet, gopacket.NoCopy)
		if ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok && (ip.FragOffset > 0 || ip.Flags&layers.IPv4MoreFragments != 0) {
			n++
		}
		if p.Layer(layers.LayerTypeIPv6Fragment) != nil {
			n++
		}
	}
	return n
}

// wantPath holds what the status says of a path that is narrow somewhere behind the first link.
func (p *Peer) wantPath(t *testing.T, silent bool) {
	t.Helper()
	status := p.Node.Status()
	want := datapath.PathICMP
	switch {
	case status.Backend != "userspace":
		want = datapath.PathUnknown
	case silent:
		want = datapath.PathProbe
	}
	for _, c := range status.Children {
		if c.PathMTUSource != want || want == datapath.PathICMP && c.PathMTU != narrow || c.PathMTU > narrow {
			t.Errorf("the status of SA %s has a path MTU of %d from %s, want at most %d from %s", c.In, c.PathMTU, c.PathMTUSource, narrow, want)
		}
	}
}
