package ikesim

import (
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
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
		for _, n := range []*Node{a, b} {
			for spi := range n.SADB {
				n.Do(ike.ChildExpiring{SPI: spi, Limit: ike.LimitSoft})
			}
			w.Run(10 * time.Second)
		}
		if len(a.SADB) != c.want || len(b.SADB) != c.want || len(a.Downs)+len(b.Downs) > 0 {
			t.Errorf("%d wanted here and %d there, after rekeys: have %d and %d, want %d\n%s", c.own, c.peer, len(a.SADB), len(b.SADB), c.want, story(w))
		}
	}
}
