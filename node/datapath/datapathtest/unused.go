package datapathtest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// unusedRemoved: IKE answers an Acquire with an SA that comes anyway, and the peer deletes that before its first packet. What
// waited for it asks again by itself.
func unusedRemoved(t *testing.T, w *World) {
	for _, p := range []*Peer{w.A, w.B} {
		p.SetPolicy(t, requireAll())
	}
	k := w.NewKeyer(t, func(*Peer, ike.Flow) *Pair { return nil })
	wire := w.Watch(t)
	_ = w.A.TryUDP(netip.AddrPortFrom(w.B.V4, 9), 100, 50*time.Millisecond) // it waits
	eventually(t, "a asked for security", func() bool { return len(k.Acquired()) == 1 })
	pair, err := w.NewPair(w.A, k.Acquired()[0], Options{Mode: sa.Transport, Encap: true, Rule: [2]string{ruleID, ruleID}})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { return w.A.Node.InstallIn(pair.FromEnd) },
		func() error { return w.A.Node.InstallOut(pair.FromEnd) },
		func() error { return w.A.Node.Remove(pair.FromEnd.In.SPI) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a asked again", func() bool { return len(k.Acquired()) == 2 })
	wire().wantNothing(t)
}
