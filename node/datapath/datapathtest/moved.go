package datapathtest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// elsewhere is where a goes to.
var elsewhere = netip.AddrFrom4([4]byte{10, 61, 0, 11})

// movedByIKE: an SA that is moved to other outer addresses, or into UDP, sends and receives there while a connection goes
// on through it; its sequence numbers go on as well, since the keys are the same ones (RFC 4555 3.5).
func movedByIKE(t *testing.T, w *World) {
	w.A.mustRun(t, "sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1")
	w.B.EchoTCP(t, 7)
	here, home := elsewhere, w.A.V4
	octets := 4 << 20
	if testing.Short() {
		octets = 512 << 10
	}
	for _, c := range []struct{ before, after bool }{{true, true}, {false, false}, {false, true}, {true, false}} {
		ok := t.Run(fmt.Sprintf("encap=%v to encap=%v", c.before, c.after), func(t *testing.T) {
			pair := w.connectInner(t, home, c.before)
			capture, moved := w.Watch(t), 0
			err := w.A.converse(netip.AddrPortFrom(w.B.In4, 7), octets, func() error {
				if err := w.A.replaceAddress(w.B, home, here); err != nil {
					return err
				}
				port := uint16(0)
				if c.after {
					port = 4500
				}
				local, remote := netip.AddrPortFrom(here, port), netip.AddrPortFrom(w.B.V4, port)
				if err := pair.To.Node.Move(pair.ToEnd.In.SPI, remote, local, c.after); err != nil {
					return err
				}
				moved = int(childOf(w.A, pair.FromEnd.In.SPI).OutPackets)
				return pair.From.Node.Move(pair.FromEnd.In.SPI, local, remote, c.after)
			})
			if err != nil {
				t.Errorf("%v\nA: %v\nB: %v", err, w.A.Node.Status().Counters, w.B.Node.Status().Counters)
			}
			seen := capture()
			seen.wantProtected(t)
			wantOneSequence(t, seen.Frames, pair.FromEnd.Out.SPI, path{home, w.B.V4, c.before}, path{here, w.B.V4, c.after})
			wantOneSequence(t, seen.Frames, pair.FromEnd.In.SPI, path{w.B.V4, home, c.before}, path{w.B.V4, here, c.after})
			if out := int(childOf(w.A, pair.FromEnd.In.SPI).OutPackets); moved == 0 || out <= moved {
				t.Errorf("a had sent %d packets at the move and %d in the end, want some before and some after", moved, out)
			}
			if err := pair.From.Node.Move(pair.FromEnd.In.SPI, netip.AddrPortFrom(here, 4500), netip.AddrPortFrom(w.B.V6, 4500), true); err == nil {
				t.Error("an SA is moved between two address families")
			}
			if err := pair.Remove(); err != nil {
				t.Fatal(err)
			}
			if err := pair.From.Node.Move(pair.FromEnd.In.SPI, netip.AddrPortFrom(here, 4500), netip.AddrPortFrom(w.B.V4, 4500), true); err == nil {
				t.Error("an SA that is not there any more is moved")
			}
		})
		if !ok {
			return
		}
		here, home = home, here
	}
}

// connectInner installs a tunnel between the networks behind a, which is at the address, and b.
func (w *World) connectInner(t *testing.T, address netip.Addr, encap bool) *Pair {
	t.Helper()
	for _, p := range []*Peer{w.A, w.B} {
		p.SetPolicy(t, w.tunnel(p))
	}
	flow := ike.Flow{Local: address, Remote: w.B.V4, LocalTS: whole(w.A.In4), RemoteTS: whole(w.B.In4)}
	pair, err := w.NewPair(w.A, flow, Options{
		Mode: sa.Tunnel, Encap: encap, Rule: [2]string{ruleID, ruleID}, Change: func(c *sa.Child) { c.Mobile = true },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Install(); err != nil {
		t.Fatal(err)
	}
	return pair
}

// replaceAddress gives the host another address on the wire to the peer and takes the former one away.
func (p *Peer) replaceAddress(peer *Peer, former, next netip.Addr) error {
	for _, command := range [][]string{
		{"ip", "address", "add", netip.PrefixFrom(next, 24).String(), "dev", "eth0"},
		{"ip", "address", "del", netip.PrefixFrom(former, 24).String(), "dev", "eth0"},
		{"ip", "route", "replace", netip.PrefixFrom(peer.In4, 24).Masked().String(), "via", peer.V4.String(), "src", p.In4.String()},
	} {
		if _, err := p.Run(command...); err != nil {
			return err
		}
	}
	return nil
}

// path is how packets of an SA travel.
type path struct {
	source, target netip.Addr
	encap          bool
}

// mostPerFrame is how many packets a frame stands for at most, which the device cuts: as many as fit 64 KiB.
const mostPerFrame = 64

// wantOneSequence fails the test unless packets of the SPI take one path and then the other one for good, and no
// sequence number comes twice or is left out at the move. A kernel that encrypts in several contexts may send one before
// its predecessor.
func wantOneSequence(t *testing.T, frames []lab.Frame, spi sa.SPI, before, after path) {
	t.Helper()
	used, seen := map[uint32]bool{}, map[path]int{}
	last, first := uint32(0), ^uint32(0) // of the one path and of the other
	for _, f := range frames {
		ip, ok := gopacket.NewPacket(f.Data, layers.LayerTypeEthernet, gopacket.NoCopy).Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		if !ok {
			continue
		}
		way, esp := path{}, ip.Payload
		way.source, _ = netip.AddrFromSlice(ip.SrcIP.To4())
		way.target, _ = netip.AddrFromSlice(ip.DstIP.To4())
		if ip.Protocol == layers.IPProtocolUDP && len(esp) > 8 {
			way.encap, esp = true, esp[8:]
		}
		if len(esp) < 8 || sa.SPI(binary.BigEndian.Uint32(esp)) != spi {
			continue
		}
		sequence := binary.BigEndian.Uint32(esp[4:])
		if way != before && way != after || way == before && seen[after] > 0 || used[sequence] {
			t.Errorf("after %v packets of SA %s, sequence number %d goes by %v, and was used before: %v", seen, spi, sequence, way, used[sequence])
			return
		}
		used[sequence] = true
		seen[way]++
		if way == before {
			last = max(last, sequence)
		} else {
			first = min(first, sequence)
		}
	}
	if first > last+mostPerFrame {
		t.Errorf("packets of SA %s go on at %d after the move, want them to go on after %d", spi, first, last)
	}
	if seen[before] == 0 || seen[after] == 0 {
		t.Errorf("packets of SA %s by path: %v, want some by %v and some by %v", spi, seen, before, after)
	}
}
