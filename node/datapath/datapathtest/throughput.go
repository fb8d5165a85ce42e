package datapathtest

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Throughput measures one TCP flow with iperf3: through an SA in UDP, through one without, and for comparison in clear
// over the same wire.
func Throughput(b *testing.B, prefix string, factory Factory) {
	w := NewWorld(b, prefix, factory)
	server := w.B.Command("iperf3", "-s", "-p", "5201")
	if _, err := w.B.Start(server); err != nil {
		b.Fatal(err)
	}
	clear := 0.0
	for _, name := range []string{"clear", "native ESP", "ESP in UDP"} {
		for _, p := range []*Peer{w.A, w.B} {
			p.SetPolicy(b, respondOnly())
		}
		remove := func() error { return nil }
		if name != "clear" {
			flow := ike.Flow{Local: w.A.V4, Remote: w.B.V4, LocalTS: whole(w.A.V4), RemoteTS: whole(w.B.V4)}
			pair, err := w.NewPair(w.A, flow, Options{Mode: sa.Transport, Encap: name == "ESP in UDP"})
			if err != nil {
				b.Fatal(err)
			}
			if err := pair.Install(); err != nil {
				b.Fatal(err)
			}
			remove = pair.Remove
		}
		b.Run(name, func(b *testing.B) {
			rate, err := w.iperf(netip.AddrPortFrom(w.B.V4, 5201))
			if err != nil {
				b.Fatal(err)
			}
			if name == "clear" {
				clear = rate
			}
			b.ReportMetric(rate/1e6, "Mbit/s")
			b.ReportMetric(100*rate/clear, "%ofclear")
			b.ReportMetric(0, "ns/op")
		})
		if err := remove(); err != nil {
			b.Fatal(err)
		}
	}
}

func (w *World) iperf(to netip.AddrPort) (bitsPerSecond float64, err error) {
	var out string
	// The server needs a moment after its start.
	for range 20 {
		out, err = w.A.Run("iperf3", "-c", to.Addr().String(), "-p", fmt.Sprint(to.Port()), "-t", "2", "-J")
		if err == nil {
			break
		}
		<-time.After(100 * time.Millisecond)
	}
	if err != nil {
		return 0, err
	}
	var report struct {
		End struct {
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return 0, fmt.Errorf("read the report of iperf3: %w", err)
	}
	return report.End.Received.BitsPerSecond, nil
}
