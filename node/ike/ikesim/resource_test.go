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
