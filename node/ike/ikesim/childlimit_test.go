package ikesim

import (
	"fmt"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// limitChildren has a side make no more than so many Child SAs of one key exchange of IKE.
func limitChildren(n *Node, limit int) {
	cfg := n.Config
	cfg.ChildLimit = limit
	n.Do(ike.Reconfigure{Config: cfg})
}

// TestChildLimit: whichever side has the limit, all flows get their Child SAs, and the IKE SA is rekeyed as often as they need
// keys. Either side may ask first, or both at once.
func TestChildLimit(t *testing.T) {
	const flows = 6
	for _, c := range []struct {
		a, b, keys int
	}{
		{0, 0, 1}, {1, 1, flows}, {1, 0, flows}, {0, 1, flows}, {2, 0, flows / 2}, {4, 3, flows / 3}, {flows, 0, 1},
	} {
		for _, both := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d-%d, both ask %v", c.a, c.b, both), func(t *testing.T) {
				w, a, b := pair(1, Faults{Delay: 5 * time.Millisecond}, pskAuth, nil)
				limitChildren(a, c.a)
				limitChildren(b, c.b)
				for port := range uint16(flows) {
					f, back := flow(addrA, addrB), flow(addrB, addrA)
					f.LocalTS.Protocol, f.RemoteTS.Protocol, back.LocalTS.Protocol, back.RemoteTS.Protocol = 17, 17, 17, 17
					f.RemoteTS.PortFrom, f.RemoteTS.PortTo = port+1, port+1
					back.LocalTS.PortFrom, back.LocalTS.PortTo = port+1, port+1
					if both && port%2 == 1 {
						b.Do(ike.Acquire{Flow: back})
					} else {
						a.Do(ike.Acquire{Flow: f})
					}
				}
				w.Run(time.Minute)
				verify(t, w)
				mirrored(t, w, a, b, flows)
				if a.Ups < c.keys || !both && a.Ups > c.keys {
					t.Errorf("%d Child SAs have the keys of %d IKE SAs, want %d\n%s", flows, a.Ups, c.keys, story(w))
				}
			})
		}
	}
}

// TestChildLimitHoldsForRekeys: what takes the place of a Child SA counts as well, and nothing is interrupted.
func TestChildLimitHoldsForRekeys(t *testing.T) {
	w, a, b := pair(1, Faults{Delay: 20 * time.Millisecond}, pskAuth, func(r *ike.Rule) { r.Lifetime.Time = 30 * time.Second })
	for _, n := range []*Node{a, b} {
		n.expire = true
		limitChildren(n, 1)
	}
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	for range 600 {
		w.Run(time.Second)
		if len(a.SADB) == 0 || len(b.SADB) == 0 {
			t.Fatalf("no Child SA at %s\n%s", w.Now.Sub(Start), story(w))
		}
	}
	verify(t, w)
	if a.Ups < 20 {
		t.Errorf("want the keys of an IKE SA for each rekey of a Child SA, twenty or more in ten minutes, have %d", a.Ups)
	}
	for _, d := range append(a.Downs, b.Downs...) {
		if d.Reason != ike.ReasonRekeyed {
			t.Errorf("an IKE SA went down for %s %s", d.Reason, d.Detail)
		}
	}
}
