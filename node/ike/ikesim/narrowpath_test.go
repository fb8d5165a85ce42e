package ikesim

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// A path that carries only small datagrams, and says nothing, stops no IKE SA: what gets no answer is cut smaller, by
// whichever side sends what is too large (RFC 7383 2.5.1).
func TestFragmentsShrinkOnANarrowPath(t *testing.T) {
	for _, narrow := range []string{"a.example", "b.example", "both"} {
		w, a, b := pair(1, calm, certAuth, nil)
		for _, n := range []*Node{a, b} {
			c := n.Config
			c.Chain = [][]byte{bytes.Repeat([]byte{1}, 1200), bytes.Repeat([]byte{2}, 900)}
			n.Do(ike.Reconfigure{Config: c})
		}
		w.disturbed = true
		w.translate = func(from, _ *Node, d *ike.Datagram) bool {
			return len(d.Bytes) <= 576-28 || narrow != "both" && from.Name != narrow
		}
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(20 * time.Second)
		if len(a.SADB) != 1 || len(b.SADB) != 1 {
			t.Errorf("%s cannot send large datagrams: have %d and %d Child SAs\n%s", narrow, len(a.SADB), len(b.SADB), story(w))
		}
		if !slices.ContainsFunc(w.Trace, func(line string) bool { return bytes.Contains([]byte(line), []byte("smaller fragments")) }) {
			t.Error("nothing was cut smaller")
		}
	}
}
