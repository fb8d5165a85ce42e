package datapathtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// Cases about what happens to the fields of IP headers.

// arrival is a datagram as its receiver sees it.
type arrival struct {
	payload     string
	class, hops uint8
}

// errSilent is that nothing arrived in time.
var errSilent = errors.New("no datagram arrived")

// ear receives datagrams on a port of an address, with fields of their header.
type ear struct {
	peer *Peer
	fd   int
}

func (p *Peer) listenTo(t *testing.T, local netip.AddrPort) *ear {
	t.Helper()
	e := &ear{peer: p}
	err := p.Do(func() (err error) {
		e.fd, err = datagramSocket(local)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(e.fd) })
	return e
}

// datagramSocket opens a UDP socket that is told class and hop limit of what it receives.
func datagramSocket(local netip.AddrPort) (int, error) {
	family, level, class, hops := unix.AF_INET, unix.SOL_IP, unix.IP_RECVTOS, unix.IP_RECVTTL
	if local.Addr().Is6() {
		family, level, class, hops = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_RECVTCLASS, unix.IPV6_RECVHOPLIMIT
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, errors.Join(
		unix.SetsockoptInt(fd, level, class, 1), unix.SetsockoptInt(fd, level, hops, 1), unix.Bind(fd, address(local)),
	)
}

func address(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// next waits for one datagram.
func (e *ear) next(timeout time.Duration) (arrival, error) {
	limit := unix.NsecToTimeval(int64(timeout))
	if err := unix.SetsockoptTimeval(e.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return arrival{}, err
	}
	buf, control := make([]byte, 2048), make([]byte, 256)
	for {
		n, cn, _, _, err := unix.Recvmsg(e.fd, buf, control, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return arrival{}, errSilent
		case err != nil:
			return arrival{}, err
		}
		a := arrival{payload: string(buf[:n])}
		messages, err := unix.ParseSocketControlMessage(control[:cn])
		if err != nil {
			return arrival{}, err
		}
		for _, m := range messages {
			switch {
			case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_TOS:
				a.class = m.Data[0]
			case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_TCLASS:
				a.class = uint8(binary.NativeEndian.Uint32(m.Data))
			case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_TTL,
				m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT:
				a.hops = uint8(binary.NativeEndian.Uint32(m.Data))
			}
		}
		return a, nil
	}
}

// say sends datagrams one right after the other, with the class and hop limit of each.
func (p *Peer) say(local, to netip.AddrPort, datagrams ...arrival) error {
	return p.Do(func() error {
		fd, err := datagramSocket(local)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		level, class, hops := unix.SOL_IP, unix.IP_TOS, unix.IP_TTL
		if to.Addr().Is6() {
			level, class, hops = unix.SOL_IPV6, unix.IPV6_TCLASS, unix.IPV6_UNICAST_HOPS
		}
		for _, d := range datagrams {
			err := errors.Join(unix.SetsockoptInt(fd, level, class, int(d.class)), unix.SetsockoptInt(fd, level, hops, int(d.hops)))
			if err != nil {
				return err
			}
			if err := unix.Sendto(fd, []byte(d.payload), 0, address(to)); err != nil {
				return err
			}
		}
		return nil
	})
}

// way is an SA between the hosts, and the addresses that talk through it.
type way struct {
	pair     *Pair
	from, to netip.Addr
}

// ways runs a case with every mode, family inside and encapsulation.
func (w *World) ways(t *testing.T, run func(*testing.T, Options, way)) {
	for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
		for _, encap := range []bool{true, false} {
			for _, v6 := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/encap=%v/v6=%v", mode, encap, v6), func(t *testing.T) {
					o := Options{Mode: mode, Encap: encap, Rule: [2]string{ruleID, ruleID}}
					x := way{from: w.A.V4, to: w.B.V4}
					switch {
					case mode == sa.Tunnel && v6:
						x.from, x.to = w.A.In6, w.B.In6
					case mode == sa.Tunnel:
						x.from, x.to = w.A.In4, w.B.In4
					case v6:
						x.from, x.to = w.A.V6, w.B.V6
					}
					flow := ike.Flow{Local: x.from, Remote: x.to, LocalTS: whole(x.from), RemoteTS: whole(x.to)}
					for _, p := range []*Peer{w.A, w.B} {
						if mode == sa.Tunnel {
							flow.Local, flow.Remote = w.A.V4, w.B.V4
							p.SetPolicy(t, w.tunnel(p))
							continue
						}
						p.SetPolicy(t, requireAll())
					}
					var err error
					if x.pair, err = w.NewPair(w.A, flow, o); err != nil {
						t.Fatal(err)
					}
					if err := x.pair.Install(); err != nil {
						t.Fatal(err)
					}
					run(t, o, x)
					if err := x.pair.Remove(); err != nil {
						t.Fatal(err)
					}
				})
			}
		}
	}
}

// headerFields: DSCP and ECN are on the wire and arrive, for each packet its own, even where several are sent in one go. The hop limit
// is that of the packet in transport mode, of which the header is (RFC 4303 3.1.1), and in tunnel mode that of the
// machine outside and untouched inside (RFC 4301 5.1.2).
func headerFields(t *testing.T, w *World) {
	w.ways(t, func(t *testing.T, o Options, x way) {
		to := netip.AddrPortFrom(x.to, 9)
		e := w.B.listenTo(t, to)
		var want []arrival
		for i, class := range []uint8{0, 0xb8, 0xb8, 0x02, 0x20, 0x01, 0xfc, 0} {
			want = append(want, arrival{fmt.Sprintf("%s %d", secret, i), class, []uint8{64, 255, 7}[i%3]})
		}
		capture := w.Watch(t)
		if err := w.A.say(netip.AddrPortFrom(x.from, 0), to, want...); err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if got, err := e.next(long); err != nil || got != want[i] {
				t.Errorf("datagram %d arrives as %+v, %v, want %+v", i, got, err, want[i])
			}
		}
		var seen, sent [][2]uint8 // class and hop limit
		for _, f := range capture().Frames {
			if f.Outgoing {
				if class, hops, ok := fieldsOf(f); ok {
					seen = append(seen, [2]uint8{class, hops})
				}
			}
		}
		for _, a := range want {
			if o.Mode == sa.Tunnel {
				a.hops = 64
			}
			sent = append(sent, [2]uint8{a.class, a.hops})
		}
		// A frame may stand for several packets with the same header, which the device cuts; the time of the first frame of a
		// capture is not always right.
		for _, list := range []*[][2]uint8{&seen, &sent} {
			slices.SortFunc(*list, func(a, b [2]uint8) int { return slices.Compare(a[:], b[:]) })
			*list = slices.Compact(*list)
		}
		if !slices.Equal(seen, sent) {
			t.Errorf("wire shows classes and hop limits %v, want %v", seen, sent)
		}
	})
}

// fieldsOf returns class and hop limit of an ESP packet, false for others.
func fieldsOf(f lab.Frame) (class, hops uint8, ok bool) {
	seen := Judge([]lab.Frame{f})
	p := gopacket.NewPacket(f.Data, layers.LayerTypeEthernet, gopacket.NoCopy)
	if seen.ESP+seen.Encap == 0 {
		return 0, 0, false
	}
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		return ip.TOS, ip.TTL, true
	case *layers.IPv6:
		return ip.TrafficClass, ip.HopLimit, true
	}
	return 0, 0, false
}

// congestion: a router that marks the outer packet is heard inside, and a packet whose transport cannot be told is dropped
// (RFC 6040 4.2).
func congestion(t *testing.T, w *World) {
	const notECT, ect1, ect0, ce = 0, 1, 2, 3
	for _, p := range []*Peer{w.A, w.B} {
		p.mustRun(t, "nft", "add table inet router { chain post { type filter hook postrouting priority 300; }; }")
	}
	w.ways(t, func(t *testing.T, o Options, x way) {
		to := netip.AddrPortFrom(x.to, 9)
		e := w.B.listenTo(t, to)
		number := 0
		for _, mark := range []uint8{ect1, ce} {
			name := map[uint8]string{ect1: "ect1", ce: "ce"}[mark]
			w.A.mustRun(t, "nft", "flush chain inet router post")
			for _, outer := range []string{"udp sport 4500", "meta l4proto esp"} {
				for _, family := range []string{"ip", "ip6"} {
					w.A.mustRun(t, "nft", fmt.Sprintf("add rule inet router post %s %s ecn set %s", outer, family, name))
				}
			}
			for _, inside := range []uint8{notECT, ect1, ect0, ce} {
				number++
				want := arrival{fmt.Sprintf("%s %d", secret, number), 0xb8 | inside, 64}
				if err := w.A.say(netip.AddrPortFrom(x.from, 0), to, want); err != nil {
					t.Fatal(err)
				}
				dropped := false
				switch {
				case o.Mode == sa.Transport: // it is the header of the packet
					want.class = 0xb8 | mark
				case mark == ce && inside == notECT:
					dropped = true
				case mark == ce || inside == ect0:
					want.class = 0xb8 | mark
				}
				if w.A.Node.Status().Backend == "xfrm" && o.Mode == sa.Tunnel && (dropped || mark == ect1) {
					// The kernel's IPsec decapsulates as RFC 3168 9.1.2 has it: it passes CE on where it can, and
					// neither drops anything nor knows of ECT(1).
					dropped = false
					want.class = 0xb8 | inside
				}
				got, err := e.next(map[bool]time.Duration{false: long, true: short}[dropped])
				if dropped && !errors.Is(err, errSilent) || !dropped && (err != nil || got != want) {
					t.Errorf("outer marked %d, inside %d: arrives as %+v, %v, want %+v, or dropped: %v", mark, inside, got, err, want, dropped)
				}
			}
		}
		w.A.mustRun(t, "nft", "flush chain inet router post")
	})
}

// extended: options of IPv4, hop-by-hop options and routing headers stay outside of ESP in transport mode, destination
// options go inside (RFC 4303 3.1.1); in tunnel mode everything does.
func extended(t *testing.T, w *World) {
	w.ways(t, func(t *testing.T, o Options, x way) {
		to := netip.AddrPortFrom(x.to, 9)
		e := w.B.listenTo(t, to)
		capture := w.Watch(t)
		err := w.A.Do(func() error {
			fd, err := datagramSocket(netip.AddrPortFrom(x.from, 0))
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if x.to.Is4() {
				err = unix.SetsockoptString(fd, unix.SOL_IP, unix.IP_OPTIONS, "\x94\x04\x00\x00") // router alert (RFC 2113)
			} else {
				padding := "\x00\x00\x01\x04\x00\x00\x00\x00"
				err = errors.Join(
					unix.SetsockoptString(fd, unix.SOL_IPV6, unix.IPV6_HOPOPTS, padding),
					unix.SetsockoptString(fd, unix.SOL_IPV6, unix.IPV6_DSTOPTS, padding),
				)
			}
			if err != nil {
				return err
			}
			return unix.Sendto(fd, []byte(secret), 0, address(to))
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := e.next(long); err != nil || got.payload != secret {
			t.Errorf("datagram arrives as %+v, %v", got, err)
		}
		seen := capture()
		if seen.Leaks > 0 {
			t.Errorf("wire shows the secret in %d frames", seen.Leaks)
		}
		// The kernel's IPsec leaves destination options outside, as a sender may that means them for the way (RFC 4303 3.1.1).
		kernel := w.A.Node.Status().Backend == "xfrm" && o.Mode == sa.Transport
		plain, long := 0, 0
		for _, f := range seen.Frames {
			if !f.Outgoing {
				continue
			}
			p := gopacket.NewPacket(f.Data, layers.LayerTypeEthernet, gopacket.NoCopy)
			hop, _ := p.Layer(layers.LayerTypeIPv6HopByHop).(*layers.IPv6HopByHop)
			ip, _ := p.NetworkLayer().(*layers.IPv4)
			switch {
			case kernel && hop != nil:
				long++
			case p.Layer(layers.LayerTypeIPv6Destination) != nil:
				t.Error("wire shows destination options, want them inside ESP")
			case hop != nil && (hop.NextHeader == layers.IPProtocolESP || hop.NextHeader == layers.IPProtocolUDP),
				ip != nil && len(ip.Options) > 0 && (ip.Protocol == layers.IPProtocolESP || ip.Protocol == layers.IPProtocolUDP):
				long++
			case Judge([]lab.Frame{f}).ESP+Judge([]lab.Frame{f}).Encap > 0:
				plain++
			}
		}
		if outside := o.Mode == sa.Transport; outside != (long > 0) || outside == (plain > 0) {
			t.Errorf("wire shows %d packets with options before ESP and %d without, want them outside: %v", long, plain, outside)
		}
	})
}

// familyInFamily: IPv4 travels in IPv6 and the other way round (RFC 4303 3.1.2).
func familyInFamily(t *testing.T, w *World) {
	w.B.EchoTCP(t, 7)
	for _, c := range []struct {
		name                    string
		local, remote, from, to netip.Addr
	}{
		{"IPv4 in IPv6", w.A.V6, w.B.V6, w.A.In4, w.B.In4}, {"IPv6 in IPv6", w.A.V6, w.B.V6, w.A.In6, w.B.In6},
		{"IPv6 in IPv4", w.A.V4, w.B.V4, w.A.In6, w.B.In6},
	} {
		for _, encap := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/encap=%v", c.name, encap), func(t *testing.T) {
				for _, p := range []*Peer{w.A, w.B} {
					policy := w.tunnel(p)
					policy.Rules[0].Tunnel = c.remote
					if p == w.B {
						policy.Rules[0].Tunnel = c.local
					}
					p.SetPolicy(t, policy)
				}
				flow := ike.Flow{Local: c.local, Remote: c.remote, LocalTS: whole(c.from), RemoteTS: whole(c.to)}
				pair, err := w.NewPair(w.A, flow, Options{Mode: sa.Tunnel, Encap: encap, Rule: [2]string{ruleID, ruleID}})
				if err != nil {
					t.Fatal(err)
				}
				if err := pair.Install(); err != nil {
					t.Fatal(err)
				}
				capture := w.Watch(t)
				if err := w.A.TransferTCP(netip.AddrPortFrom(c.to, 7), 1<<20, long); err != nil {
					t.Errorf("TCP: %v\nA: %v\nB: %v", err, counted(w.A), counted(w.B))
				}
				capture().wantProtected(t)
				if err := pair.Remove(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// integrityAlone: an SA that hides nothing still lets nothing in that was changed, or was not sent by the peer.
func integrityAlone(t *testing.T, w *World) {
	w.B.EchoTCP(t, 7)
	for _, suite := range []proposal.ESP{GMAC, Null} {
		for _, encap := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/encap=%v", suite, encap), func(t *testing.T) {
				pair := w.Connect(t, Options{Encap: encap, Suite: suite})
				capture := w.Watch(t)
				if err := w.A.TryTCP(netip.AddrPortFrom(w.B.V4, 7), long); err != nil {
					t.Errorf("TCP: %v\nA: %v\nB: %v", err, counted(w.A), counted(w.B))
				}
				seen := capture()
				if len(seen.Clear) > 0 || seen.ESP+seen.Encap == 0 || seen.Leaks == 0 {
					t.Errorf("wire shows %d packets in clear, %d of ESP and the payload in %d, want it in ESP and nowhere else", len(seen.Clear), seen.ESP+seen.Encap, seen.Leaks)
				}
				before := w.B.Counter("packets_not_authenticated")
				var forged []byte
				for _, f := range seen.Frames {
					if f.Outgoing && Judge([]lab.Frame{f}).Leaks > 0 {
						forged = slices.Clone(f.Data)
					}
				}
				at := 14 + 20 // where ESP begins, after Ethernet and IPv4
				if encap {
					binary.BigEndian.PutUint16(forged[udpChecksumAt:], 0)
					at += 8
				}
				forged[at+7] += 100 // a sequence number that was not used yet
				if err := w.A.inject(forged); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the forged packet is counted", func() bool { return w.B.Counter("packets_not_authenticated") == before+1 })
				if err := pair.Remove(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}
