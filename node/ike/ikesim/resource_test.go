package ikesim

import (
	"maps"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// A rule that wants several Child SAs with the same selectors gets them where the peer's rule wants as many, fewer where
// it wants fewer, and one from a peer that knows nothing of it (RFC 9611). Each is rekeyed by itself.
func TestChildSAsPerResource(t *testing.T) {
	for _, c := range []struct {
		own, peer uint8
		want      int
	}{{4, 4, 4}, {4, 2, 2}, {4, 0, 1}, {0, 4, 1}} {
		w, a, b := pair(1, calm, pskAuth, nil)
		w.unchecked = true
		a.Config.Rules[0].Associations, b.Config.Rules[0].Associations = c.own, c.peer
		a.boot()
		b.boot()
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(3 * time.Second)
		if len(a.SADB) != c.want || len(b.SADB) != c.want {
			t.Errorf("%d wanted here and %d there: have %d and %d, want %d\n%s", c.own, c.peer, len(a.SADB), len(b.SADB), c.want, story(w))
		}
		lanes := []map[sa.Lane]bool{bundled(t, a), bundled(t, b)}
		for _, n := range []*Node{a, b} {
			for spi := range n.SADB {
				n.Do(ike.ChildExpiring{SPI: spi, Limit: ike.LimitSoft})
			}
			w.Run(10 * time.Second)
		}
		if len(a.SADB) != c.want || len(b.SADB) != c.want || len(a.Downs)+len(b.Downs) > 0 {
			t.Errorf("%d wanted here and %d there, after rekeys: have %d and %d, want %d\n%s", c.own, c.peer, len(a.SADB), len(b.SADB), c.want, story(w))
		}
		for i, n := range []*Node{a, b} {
			if after := bundled(t, n); n.Config.Rules[0].Associations > 1 && !maps.Equal(after, lanes[i]) {
				t.Errorf("%d wanted here and %d there: rekeys brought the SAs from lanes %v to %v", c.own, c.peer, lanes[i], after)
			}
		}
	}
}

// Where both ends ask for Child SAs at once, each end has one bundle, whose SAs carry what the threads of the other send.
func TestChildSAsOfBothEndsAreOneBundle(t *testing.T) {
	for _, first := range []bool{false, true} { // does it happen before there is an IKE SA, or in one
		for seed := range uint64(5) {
			w, a, b := pair(seed+1, calm, pskAuth, nil)
			w.unchecked = true
			a.Config.Rules[0].Associations, b.Config.Rules[0].Associations = 4, 4
			a.boot()
			b.boot()
			if !first {
				a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
				w.Run(5 * time.Second)
				for spi := range a.SADB {
					a.Do(ike.ChildExpiring{SPI: spi, Limit: ike.LimitHard})
				}
				w.Run(5 * time.Second)
			}
			a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
			b.Do(ike.Acquire{Flow: flow(addrB, addrA)})
			w.Run(10 * time.Second)
			for _, n := range []*Node{a, b} {
				bundles := map[sa.SPI]int{}
				for _, c := range n.SADB {
					bundles[c.Child.Bundle]++
				}
				if len(bundles) != 1 || len(n.SADB) < 2 || len(n.SADB) > 5 {
					t.Errorf("first %v, seed %d: %d Child SAs in bundles %v, want up to five in one\n%s", first, seed, len(n.SADB), bundles, story(w))
				}
			}
		}
	}
}

// bundled returns the lanes of the SAs of a node, which are of one bundle and in different lanes where the node wants
// several.
func bundled(t *testing.T, n *Node) map[sa.Lane]bool {
	t.Helper()
	lanes, bundles := map[sa.Lane]bool{}, map[sa.SPI]bool{}
	for spi, c := range n.SADB {
		lanes[spi.Lane()], bundles[c.Child.Bundle] = true, true
	}
	if n.Config.Rules[0].Associations > 1 && (len(lanes) != len(n.SADB) || len(bundles) != 1 || bundles[0]) {
		t.Errorf("%d SAs are in lanes %v, of bundles %v", len(n.SADB), lanes, bundles)
	}
	return lanes
}
