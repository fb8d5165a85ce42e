package datapathtest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Cases about packets of others that a gateway opens.

// onlyUDP makes the end of a host believe that the SA is for UDP alone, with ports that are not 0.
func (w *World) onlyUDP(p *Peer) func(*sa.Child) {
	return func(c *sa.Child) {
		if c.Local.Addr() != p.V4 {
			return
		}
		for _, selectors := range [][]sa.Selector{c.LocalTS, c.RemoteTS} {
			for i := range selectors {
				selectors[i].Protocol, selectors[i].PortFrom = packet.ProtocolUDP, 1
			}
		}
	}
}

// tunnels has a keyer make tunnels for what the gateways ask for, changed for each end.
func (w *World) tunnels(t *testing.T, change func(*sa.Child)) {
	w.NewKeyer(t, func(from *Peer, f ike.Flow) *Pair {
		pair, err := w.NewPair(from, f, Options{Mode: sa.Tunnel, Encap: true, Rule: [2]string{ruleID, ruleID}, Change: change})
		if err != nil {
			t.Error(err)
		}
		return pair
	})
}

// innerFragments: a datagram that its sender cut comes in whole through an SA of which the selectors name ports, which the later
// fragments do not have (RFC 4301 7.4).
func innerFragments(t *testing.T, w *World) {
	inner := w.behind(t)
	kernel := w.A.Node.Status().Backend == "xfrm"
	if kernel {
		// The kernel's IPsec holds each fragment against the selectors by itself, and port 0 is in none of these.
		t.Log("the kernel's ESP takes fragments from SAs of every port only")
		w.tunnels(t, nil)
	} else {
		w.tunnels(t, w.onlyUDP(w.B))
	}
	for _, to := range []netip.Addr{inner[w.B].V4, inner[w.B].V6} {
		t.Run(to.String(), func(t *testing.T) {
			inner[w.B].EchoUDP(t, netip.AddrPortFrom(to, 9))
			wire := w.Watch(t)
			for _, length := range []int{100, 3000, 9000} {
				err := inner[w.A].TryUDP(netip.AddrPortFrom(to, 9), length, long)
				for tries := 0; err != nil && tries < 3 && kernel; tries++ {
					// It tells either sender over IPv6 to cut shorter pieces, which is a router's right (RFC 8200 5).
					err = inner[w.A].TryUDP(netip.AddrPortFrom(to, 9), length, short)
				}
				if err != nil {
					t.Errorf("UDP of %d octets: %v\nA: %v\nB: %v", length, err, counted(w.A), counted(w.B))
				}
			}
			// Pieces of ESP packets are neither ESP nor in clear to the wire's judge.
			if seen := wire(); seen.Leaks > 0 || seen.Encap == 0 {
				t.Errorf("wire shows the payload in %d frames, and %d ESP packets", seen.Leaks, seen.Encap)
			}
		})
	}
}

// innerErrors: an ICMP error that quotes a packet of the SA comes in through it, though the SA is for another protocol (RFC 4301
// 6.2); other ICMP does not, and neither does an error about a packet that never went that way.
func innerErrors(t *testing.T, w *World) {
	if w.A.Node.Status().Backend == "xfrm" {
		t.Log("the kernel's IPsec takes ICMP errors by their own header, unless an SA has a flag that lets in what it quotes from anywhere")
		return
	}
	inner := w.behind(t)
	w.tunnels(t, w.onlyUDP(w.A))
	for _, to := range []netip.Addr{inner[w.B].V4, inner[w.B].V6} {
		t.Run(to.String(), func(t *testing.T) {
			from, echo := inner[w.A].V4, "-4"
			if to.Is6() {
				from, echo = inner[w.A].V6, "-6"
			}
			err := inner[w.A].Do(func() error {
				c, err := net.Dial("udp", netip.AddrPortFrom(to, 99).String()) // nobody listens there
				if err != nil {
					return err
				}
				defer c.Close()
				return lab.RoundTrip(c, []byte(secret), time.Now().Add(long))
			})
			if !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("a datagram to a closed port: %v, want the sender to be told\nA: %v\nB: %v", err, counted(w.A), counted(w.B))
			}
			before := w.A.Counter("packets_wrong_sa")
			_, _ = inner[w.B].Run("ping", echo, "-c", "1", "-W", "0.2", from.String()) // it is to be lost
			if n := w.A.Counter("packets_wrong_sa") - before; n != 1 {
				t.Errorf("%d echo requests were refused by an SA for UDP, want 1", n)
			}
			stranger := packet.IP{Source: from, Destination: to, Protocol: packet.ProtocolTCP, HopLimit: 64, PayloadLen: 20}
			quote := append(stranger.AppendHeader(nil), make([]byte, 20)...)
			if err := inner[w.B].unreachable(to, from, quote); err != nil {
				t.Fatal(err)
			}
			eventually(t, "an error about TCP is refused by an SA for UDP", func() bool { return w.A.Counter("packets_wrong_sa") == before+2 })
		})
	}
}

// unreachable sends the ICMP error "port unreachable" about a packet.
func (p *Peer) unreachable(from, to netip.Addr, quote []byte) error {
	h := packet.IP{Source: from, Destination: to, Protocol: packet.ProtocolICMP, HopLimit: 64, PayloadLen: 8 + len(quote)}
	message := append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, quote...)
	family, sum := unix.AF_INET, uint16(0)
	if from.Is6() {
		family, h.Protocol = unix.AF_INET6, packet.ProtocolICMPv6
		message[0], message[1] = 1, 4
		sum = packet.PseudoHeaderSum(from, to, packet.ProtocolICMPv6, len(message))
	}
	sum = ^packet.Sum(message, sum)
	message[2], message[3] = byte(sum>>8), byte(sum)
	return p.Do(func() error {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return fmt.Errorf("open a raw socket: %w", err)
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, append(h.AppendHeader(nil), message...), 0, address(netip.AddrPortFrom(to, 0)))
	})
}
