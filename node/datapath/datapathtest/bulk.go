package datapathtest

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Cases about much data, and about packets that do not fit.

// transferOctets is 20 MB, or BAILIWICK_TRANSFER_MB.
func transferOctets(t *testing.T) int64 {
	if mb, err := strconv.Atoi(os.Getenv("BAILIWICK_TRANSFER_MB")); err == nil {
		return int64(mb) << 20
	}
	if testing.Short() {
		return 1 << 20
	}
	return 20 << 20
}

// transfers: a long TCP transfer ends, and what arrives is what was sent.
func transfers(t *testing.T, w *World) {
	w.B.EchoTCP(t, 7)
	for _, c := range []struct {
		mode      sa.Mode
		encap, v6 bool
	}{
		{sa.Transport, true, false}, {sa.Transport, true, true}, {sa.Transport, false, false}, {sa.Transport, false, true},
		{sa.Tunnel, true, false}, {sa.Tunnel, false, true},
	} {
		t.Run(fmt.Sprintf("%s/encap=%v/v6=%v", c.mode, c.encap, c.v6), func(t *testing.T) {
			to := w.B.V4
			if c.v6 {
				to = w.B.V6
			}
			for _, p := range []*Peer{w.A, w.B} {
				if c.mode == sa.Tunnel {
					p.SetPolicy(t, w.tunnel(p))
					to = w.B.In4
					if c.v6 {
						to = w.B.In6
					}
					continue
				}
				p.SetPolicy(t, requireAll())
			}
			k := w.NewKeyer(t, func(from *Peer, f ike.Flow) *Pair {
				pair, err := w.NewPair(from, f, Options{Mode: c.mode, Encap: c.encap, Rule: [2]string{ruleID, ruleID}})
				if err != nil {
					t.Error(err)
				}
				return pair
			})
			begin := time.Now()
			octets := transferOctets(t)
			if err := w.A.TransferTCP(netip.AddrPortFrom(to, 7), octets, time.Minute); err != nil {
				t.Errorf("%v\nA: %v\nB: %v", err, w.A.Node.Status().Counters, w.B.Node.Status().Counters)
			}
			t.Logf("%d octets there and back: %.0f Mbit/s each way", octets, float64(octets)*8/1e6/time.Since(begin).Seconds())
			k.End(t)
		})
	}
}

// bigSegments: a connection that was opened in clear, with segments as long as the wire allows, goes on inside an SA
// that has less room.
func bigSegments(t *testing.T, w *World) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("v6=%v", v6), func(t *testing.T) {
			local, remote := w.A.V4, w.B.V4
			if v6 {
				local, remote = w.A.V6, w.B.V6
			}
			for _, p := range []*Peer{w.A, w.B} {
				p.SetPolicy(t, respondOnly())
			}
			w.B.EchoTCP(t, 7)
			flow := ike.Flow{Local: local, Remote: remote, LocalTS: whole(local), RemoteTS: whole(remote)}
			pair, err := w.NewPair(w.A, flow, Options{Mode: sa.Transport, Encap: true})
			if err != nil {
				t.Fatal(err)
			}
			err = w.A.converse(netip.AddrPortFrom(remote, 7), 1<<20, func() error { return pair.Install() })
			if err != nil {
				t.Errorf("%v\nA: %v\nB: %v", err, w.A.Node.Status().Counters, w.B.Node.Status().Counters)
			}
			if err := pair.Remove(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// datagrams: UDP of every length passes, whether it fits the path or not.
func datagrams(t *testing.T, w *World) {
	for _, p := range []*Peer{w.A, w.B} {
		p.SetPolicy(t, requireAll())
	}
	for _, encap := range []bool{true, false} {
		for _, v6 := range []bool{false, true} {
			local, remote := w.A.V4, w.B.V4
			if v6 {
				local, remote = w.A.V6, w.B.V6
			}
			t.Run(fmt.Sprintf("encap=%v/v6=%v", encap, v6), func(t *testing.T) {
				w.B.EchoUDP(t, netip.AddrPortFrom(remote, 9))
				flow := ike.Flow{Local: local, Remote: remote, LocalTS: whole(local), RemoteTS: whole(remote)}
				pair, err := w.NewPair(w.A, flow, Options{Mode: sa.Transport, Encap: encap, Rule: [2]string{ruleID, ruleID}})
				if err != nil {
					t.Fatal(err)
				}
				if err := pair.Install(); err != nil {
					t.Fatal(err)
				}
				wire := w.Watch(t)
				for _, length := range []int{1, 64, 1300, 1400, 1440, 1452, 1472, 1473, 2000, 3000, 9000, 30000} {
					to := netip.AddrPortFrom(remote, 9)
					err := w.A.TryUDP(to, length, short)
					// Either sender may learn the path MTU from its first one.
					for tries := 0; err != nil && tries < 2; tries++ {
						err = w.A.TryUDP(to, length, short)
					}
					if err != nil {
						t.Errorf("UDP of %d octets: %v", length, err)
					}
				}
				if seen := wire(); seen.Leaks > 0 || seen.MaxSize > 1500 {
					t.Errorf("wire shows the payload in %d frames and a packet of %d octets, want none and at most 1500", seen.Leaks, seen.MaxSize)
				}
				if err := pair.Remove(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// pathMTU: a sender that forbids fragmentation is told how much fits.
func pathMTU(t *testing.T, w *World) {
	w.Connect(t, Options{Encap: true})
	out, err := w.A.Run("ping", "-c", "2", "-i", "0.2", "-W", "1", "-M", "do", "-s", "1472", w.B.V4.String())
	if err == nil {
		t.Fatalf("ping of 1500 octets with DF was answered, want it refused: it does not fit once sealed")
	}
	if told := strings.Contains(out+err.Error(), "mtu"); !told {
		t.Errorf("the sender was not told the path MTU; ping says: %v\n%s", err, out)
	}
	if out, err := w.A.Run("ping", "-c", "1", "-W", "1", "-M", "do", "-s", "1372", w.B.V4.String()); err != nil {
		t.Errorf("ping of 1400 octets with DF: %v\n%s", err, out)
	}
}
