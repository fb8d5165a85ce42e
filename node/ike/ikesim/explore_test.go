package ikesim

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

var exploreStates = flag.Int("ikesim.explore", 0, "explore up to so many states of each small world, with more faults, as make explore does")

// smallBase is two peers with one IKE SA and one Child SA, at rest. The lowest nonces are those of a or of b.
func smallBase(lowFirst bool) func() *World {
	return func() *World {
		w, a, b := pair(1, Faults{Delay: time.Millisecond}, pskAuth, nil)
		w.Tracing = false
		for _, n := range []*Node{a, b} {
			c := n.Config
			c.Untraced = true
			n.Config = c
			n.bootWith(nonceSource{rand.NewChaCha8([32]byte{byte(len(n.Name)), n.Addr.As4()[3]}), (n == a) == lowFirst})
		}
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Second)
		return w
	}
}

// smallWorlds are all pairs of what two peers may do at once with the one Child SA and the one IKE SA.
func smallWorlds(large bool) []Small {
	ops := []Op{OpRekeyChild, OpExpireChild, OpRekeyIKE, OpDeleteIKE}
	var list []Small
	for i, a := range ops {
		for _, b := range ops[i:] {
			for _, low := range []bool{true, false} {
				for _, f := range [][3]int{{0, 0, 0}, {1, 0, 1}, {0, 1, 1}, {1, 1, 1}, {2, 1, 2}} {
					if !large && f[0]+f[1] > 1 {
						continue
					}
					name := fmt.Sprintf("%s-%s-%d-%d-%d-low-%t", a, b, f[0], f[1], f[2], low)
					// Beside a rekey a limit may reach the old Child SA alone, and the new one stays.
					none := a == OpExpireChild || a == OpDeleteIKE || b == OpDeleteIKE || a == OpRekeyIKE && b == OpExpireChild
					list = append(list, Small{
						Name: name, First: []Op{a}, Second: []Op{b}, Loss: f[0], Dup: f[1], Retransmit: f[2], LowFirst: low, None: none,
					})
				}
			}
		}
	}
	return list
}

// TestExplore tries every order of rekeys and deletes of both peers, with losses, copies and retransmissions, whoever has
// the lowest nonce, and prints how much it has seen.
func TestExplore(t *testing.T) {
	limit := 800
	if *exploreStates > 0 {
		limit = *exploreStates
	}
	begin := time.Now()
	worlds, states, ends, cut := 0, 0, 0, 0
	for _, spec := range smallWorlds(*exploreStates > 0) {
		x := Explore(spec, smallBase(spec.LowFirst), limit, nil)
		worlds++
		states += x.States
		ends += x.Ends
		if x.States >= limit {
			cut++
		}
		if x.Broken != "" {
			t.Errorf("%s: %s\nafter %v", spec.Name, x.Broken, x.Path)
		}
	}
	t.Logf("%d worlds, %d states, %d ends, %d worlds cut off at %d states, %.1f s", worlds, states, ends, cut, limit, time.Since(begin).Seconds())
}
