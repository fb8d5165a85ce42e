package driver

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// Two nodes with the real cryptography of additional key exchanges, and of ML-KEM alone: the handshake, and a rekey of
// Child SA and IKE SA from either side.
func TestPostQuantum(t *testing.T) {
	for _, k := range []proposal.KeyExchange{
		{Group: proposal.GroupX25519, Additional: proposal.AdditionalOf(proposal.GroupMLKEM768)},
		{Group: proposal.GroupECP384, Additional: proposal.AdditionalOf(proposal.GroupMLKEM1024, proposal.GroupX25519, proposal.GroupMLKEM768)},
		{Group: proposal.GroupMLKEM768},
		{Group: proposal.GroupMLKEM1024},
	} {
		t.Run(k.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				c := &cable{make(map[netip.Addr]*end)}
				change := func(i *ike.Config, _ *Config) {
					i.Offers[0].Group, i.Offers[0].Additional = k.Group, k.Additional
				}
				a := start(t, c, "a.example", addrA, addrB, f.join("a.example", time.Now().Add(time.Hour)), change)
				b := start(t, c, "b.example", addrB, addrA, f.join("b.example", time.Now().Add(time.Hour)), change)
				a.acquire(addrA, addrB)
				<-time.After(time.Second)
				for _, n := range []*node{a, b} {
					v, err := n.Snapshot(t.Context())
					if err != nil || len(v.SAs) != 1 || v.SAs[0].Suite.KeyExchange() != k || len(v.SAs[0].Children) != 1 {
						t.Fatalf("snapshot %+v, %v", v, err)
					}
					ikeSPI, child := ike.IKESPI(v.SAs[0].SPI), v.SAs[0].Children[0].In.SPI
					if err := n.Rekey(t.Context(), ikeSPI, child); err != nil {
						t.Fatal(err)
					}
					<-time.After(time.Second)
					v, err = n.Snapshot(t.Context())
					if err != nil || len(v.SAs) != 1 || len(v.SAs[0].Children) != 1 {
						t.Fatalf("after the rekey of the Child SA: snapshot %+v, %v", v, err)
					}
					if got := v.SAs[0].Children[0]; got.In.SPI == child || got.Suite.KeyExchange() != k {
						t.Errorf("the Child SA is %s with %s", got.In.SPI, got.Suite)
					}
					if err := n.Rekey(t.Context(), ikeSPI, 0); err != nil {
						t.Fatal(err)
					}
					<-time.After(time.Second)
					v, err = n.Snapshot(t.Context())
					if err != nil || len(v.SAs) != 1 || ike.IKESPI(v.SAs[0].SPI) == ikeSPI || v.SAs[0].Suite.KeyExchange() != k {
						t.Fatalf("after the rekey of the IKE SA: snapshot %+v, %v", v, err)
					}
				}
				a.finish(t)
				b.finish(t)
			})
		})
	}
}
