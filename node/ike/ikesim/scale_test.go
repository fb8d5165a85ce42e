package ikesim

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// crowd is a world of a hub and n peers, which one engine plays with n addresses; each has an IKE SA and a Child SA, and
// is checked after liveness.
func crowd(tb testing.TB, n int, liveness time.Duration) (w *World, hub, peers *Node) {
	tb.Helper()
	w = New(1, Faults{Delay: time.Millisecond})
	w.unchecked = true
	one, many := config("hub.example", addrA, meshRule(addrA, pskAuth)), config("peer.example", addrB, meshRule(addrB, pskAuth))
	many.Rules[0].Pairs[0].Local = everything()
	one.Liveness, many.Liveness = liveness, liveness
	hub, peers = w.Add("hub.example", addrA, one), w.Add("peer.example", addrB, many)
	for i := range n {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 0x0b000000+uint32(i))
		peers.Others = append(peers.Others, netip.AddrFrom4(b))
	}
	w.addresses = make(map[netip.Addr]*Node)
	for _, a := range peers.Others {
		w.addresses[a] = peers
	}
	for i, a := range peers.Others {
		peers.Do(ike.Acquire{Flow: flow(a, addrA)})
		if i%32 == 31 {
			w.Run(20 * time.Millisecond)
		}
	}
	w.Run(time.Second)
	if len(hub.SADB) != n || len(peers.SADB) != n {
		tb.Fatalf("%d peers were brought up: the hub has %d Child SAs, the peers %d", n, len(hub.SADB), len(peers.SADB))
	}
	return w, hub, peers
}

// sizes are the numbers of IKE SAs that the benchmarks compare: a step must cost about the same with all of them.
var sizes = []int{100, 1000, 10000}

// BenchmarkStep measures one step of the engine of a hub, by what happens to it.
func BenchmarkStep(b *testing.B) {
	for _, n := range sizes {
		w, hub, _ := crowd(b, n, 0)
		children := slices.Clone(hub.order)
		stray := make([]byte, 28)
		binary.BigEndian.PutUint64(stray, 1)
		binary.BigEndian.PutUint64(stray[8:], 2)
		stray[17], stray[18], stray[19], stray[27] = 0x20, 37, 0x20, 28
		b.Run(fmt.Sprintf("stray/sas=%d", n), func(b *testing.B) {
			for b.Loop() {
				hub.Engine.Step(w.Now, ike.Datagram{Local: netip.AddrPortFrom(addrA, 500), Remote: netip.AddrPortFrom(addrC, 500), Bytes: stray})
				hub.Engine.Deadline()
			}
		})
		b.Run(fmt.Sprintf("moved/sas=%d", n), func(b *testing.B) { // of a peer without NAT: nothing but the look-up
			i := 0
			for b.Loop() {
				hub.Engine.Step(w.Now, ike.PeerMoved{SPI: children[i%n], Remote: netip.AddrPortFrom(addrC, 4500)})
				hub.Engine.Deadline()
				i++
			}
		})
		b.Run(fmt.Sprintf("deadline/sas=%d", n), func(b *testing.B) { // retransmissions and liveness checks, sealed
			for b.Loop() {
				hub.Engine.Step(hub.Engine.Deadline(), ike.Timeout{})
			}
		})
	}
}

// BenchmarkRekey measures a rekey of a Child SA and its delete, both sides together: four messages.
func BenchmarkRekey(b *testing.B) {
	for _, n := range sizes {
		w, hub, peers := crowd(b, n, time.Hour)
		b.Run(fmt.Sprintf("sas=%d", n), func(b *testing.B) {
			i := 0
			for b.Loop() {
				hub.Do(ike.ChildExpiring{SPI: hub.order[i%len(hub.order)], Limit: ike.LimitSoft})
				w.Run(10 * time.Millisecond)
				i++
			}
			if len(hub.SADB) != n || len(peers.SADB) != n {
				b.Fatalf("%d and %d Child SAs after the rekeys, want %d", len(hub.SADB), len(peers.SADB), n)
			}
		})
	}
}

// BenchmarkRekeyOneOfMany measures the same where all Child SAs belong to one IKE SA, which may have a thousand.
func BenchmarkRekeyOneOfMany(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		w, hub, peer := pair(1, Faults{Delay: time.Millisecond}, pskAuth, nil)
		w.Tracing, w.unchecked = false, true
		for i := range n {
			f := flow(addrA, addrB)
			f.LocalTS.Protocol, f.RemoteTS.Protocol = 6, 6
			f.RemoteTS.PortFrom, f.RemoteTS.PortTo = uint16(i+1), uint16(i+1)
			hub.Do(ike.Acquire{Flow: f})
			w.Run(20 * time.Millisecond)
		}
		w.Run(time.Minute)
		if len(hub.SADB) != n || len(peer.SADB) != n {
			b.Fatalf("%d and %d Child SAs, want %d", len(hub.SADB), len(peer.SADB), n)
		}
		b.Run(fmt.Sprintf("children=%d", n), func(b *testing.B) {
			i := 0
			for b.Loop() {
				hub.Do(ike.ChildExpiring{SPI: hub.order[i%len(hub.order)], Limit: ike.LimitSoft})
				w.Run(20 * time.Millisecond)
				i++
			}
		})
	}
}

// TestTenThousandPeers brings up ten thousand IKE SAs with a Child SA each, rekeys a tenth of both kinds, and looks at
// the tables: what a linear table would make a matter of minutes.
func TestTenThousandPeers(t *testing.T) {
	const n = 10000
	w, hub, peers := crowd(t, n, 0)
	for i, s := range hub.Engine.Snapshot().SAs {
		switch i % 20 {
		case 0:
			hub.Do(ike.Rekey{IKE: ike.IKESPI(s.SPI)})
		case 10:
			hub.Do(ike.ChildExpiring{SPI: s.Children[0].In.SPI, Limit: ike.LimitSoft})
		}
		if i%200 == 0 {
			w.Run(20 * time.Millisecond)
		}
	}
	w.Run(time.Second)
	for _, node := range w.Nodes {
		if err := node.Engine.CheckTables(); err != nil {
			t.Errorf("%s: %s", node.Name, err)
		}
		v := node.Engine.Snapshot()
		if len(v.SAs) != n || len(node.SADB) != n || len(v.Waiting) != 0 {
			t.Errorf("%s has %d IKE SAs, %d Child SAs and %d flows, want %d, %d and none", node.Name, len(v.SAs), len(node.SADB), len(v.Waiting), n, n)
		}
	}
	if c := hub.Engine.Snapshot().Counters; c["ike_rekeyed"] != n/20 {
		t.Errorf("%d IKE SAs were rekeyed, want %d", c["ike_rekeyed"], n/20)
	}
	hub.Do(ike.Shutdown{})
	w.Run(5 * time.Second)
	for _, node := range []*Node{hub, peers} {
		if !node.Engine.Idle() || len(node.SADB) != 0 {
			t.Errorf("%s still has %d Child SAs after the shutdown of the hub", node.Name, len(node.SADB))
		}
	}
}
