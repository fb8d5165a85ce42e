package datapathtest

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// What a run of iperf3 may cost this process, which starts it and reads what it says: a hundred allocations, whatever it
// sends. One for each super-packet, of at most 47 packets, would be far more.
const (
	allocationsPerRun    = 200
	packetsPerAllocation = 200
)

// Allocations fails where a backend that works in this process allocates memory for each packet: it counts what the whole
// process allocates while programs outside send through SAs of every kind.
func Allocations(t *testing.T, prefix string, factory Factory) {
	w := NewWorld(t, prefix, factory)
	for _, v6 := range []bool{false, true} {
		address := w.B.V4
		if v6 {
			address = w.B.V6
		}
		server := w.B.Command("iperf3", "-s", "-p", "5201", "-B", address.String())
		if _, err := w.B.Start(server); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
		for _, encap := range []bool{true, false} {
			for _, v6 := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/encap=%v/v6=%v", mode, encap, v6), func(t *testing.T) {
					w.allocations(t, Options{Mode: mode, Encap: encap}, v6)
				})
			}
		}
	}
}

func (w *World) allocations(t *testing.T, o Options, v6 bool) {
	from, to := w.A.V4, w.B.V4
	if v6 {
		from, to = w.A.V6, w.B.V6
	}
	for _, p := range []*Peer{w.A, w.B} {
		p.SetPolicy(t, respondOnly())
	}
	pair, err := w.NewPair(w.A, ike.Flow{Local: from, Remote: to, LocalTS: whole(from), RemoteTS: whole(to)}, o)
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
	for _, load := range [][]string{{"-n", "40M"}, {"-u", "-b", "0", "-l", "64", "-n", "1M"}} {
		args := append([]string{"iperf3", "-c", to.String(), "-p", "5201"}, load...)
		// The first run fills caches and grows what grows to the size of the load. The server needs a moment to listen.
		eventually(t, "iperf3 has run once", func() bool {
			_, err := w.A.Run(args...)
			return err == nil
		})
		// What happens beside the packets, such as news of the kernel about links, allocates as well: allocations for
		// packets are there in every run.
		var packets, allocations uint64
		for range 4 {
			packets, allocations = measure(t, w, args)
			t.Logf("%v: %d allocations for %d packets", load, allocations, packets)
			if packets >= packetsPerAllocation && allocations <= allocationsPerRun+packets/packetsPerAllocation {
				break
			}
		}
		if packets < packetsPerAllocation || allocations > allocationsPerRun+packets/packetsPerAllocation {
			t.Errorf("%v: %d allocations for %d packets, want %d and one for each %d packets at most",
				load, allocations, packets, allocationsPerRun, packetsPerAllocation)
		}
	}
}

// measure runs a load of A, and returns how many packets were sealed for it and what was allocated meanwhile.
func measure(t *testing.T, w *World, args []string) (packets, allocations uint64) {
	t.Helper()
	packets = w.A.Counter("packets_sealed") + w.B.Counter("packets_sealed")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w.A.mustRun(t, args...)
	runtime.ReadMemStats(&after)
	return w.A.Counter("packets_sealed") + w.B.Counter("packets_sealed") - packets, after.Mallocs - before.Mallocs
}
