package datapathtest

import (
	"net/netip"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// heard: authentic packets of a peer are reported as signs of life, by either end for its own inbound SA.
func heard(t *testing.T, w *World) {
	pair := w.Connect(t, Options{Encap: true})
	k := w.NewKeyer(t, func(*Peer, ike.Flow) *Pair { return nil })
	w.B.EchoUDP(t, netip.AddrPortFrom(w.B.V4, 9))
	if err := w.A.TryUDP(netip.AddrPortFrom(w.B.V4, 9), 100, long); err != nil {
		t.Fatal(err)
	}
	for name, spi := range map[string]sa.SPI{"the answering": pair.ToEnd.In.SPI, "the asking": pair.FromEnd.In.SPI} {
		eventually(t, name+" end reports that it heard the other", func() bool {
			for _, e := range k.Events() {
				if h, ok := e.(ike.Heard); ok && h.SPI == spi {
					return true
				}
			}
			return false
		})
	}
	if err := pair.Remove(); err != nil {
		t.Fatal(err)
	}
}
