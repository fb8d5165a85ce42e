package ikesim

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// The responder of a rekey uses the new IKE SA before its answer has come: the initiator, which does not have it yet, must
// not prove by its token that it knows nothing of it. What it says comes late, when both have given their tokens.
func TestNoTokenForAnIKESAThatARekeyIsAboutToMake(t *testing.T) {
	w, a, b := withTokens(t)
	w.Hold(func(from, _ *Node, exchange uint8, response bool) bool {
		return response && (from == b && exchange == create || from == a && exchange == inform)
	})
	a.rekeyIKE()
	w.Run(500 * time.Millisecond)
	if count(w, "b.example", "send INFORMATIONAL request 0") == 0 {
		t.Fatalf("the responder does not use the new IKE SA\n%s", story(w))
	}
	held := w.held
	w.DropHeld()
	deliver := func(from *Node) {
		for _, e := range held {
			if e.from == from {
				w.schedule(0, e)
			}
		}
		w.Run(100 * time.Millisecond)
	}
	deliver(b)
	deliver(a)
	w.Run(10 * time.Second)
	mirrored(t, w, a, b, 1)
	for _, d := range slices.Concat(a.Downs, b.Downs) {
		if d.Reason != ike.ReasonRekeyed {
			t.Errorf("down: %+v\n%s", d, story(w))
		}
	}
}

// The flow that a Child SA was asked for does not wait on when the peer has moved before the answer has come.
func TestNoFlowWaitsForAPeerThatHasMoved(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	for _, n := range []*Node{a, b} {
		n.Config.Mobility = ike.MobilityOn
		n.boot()
		n.addresses(n.Addr)
	}
	b.Do(ike.Acquire{Flow: flow(addrB, addrA)})
	w.Run(time.Second)
	moves := func(to netip.Addr) {
		c := a.Config
		c.Rules = slices.Clone(c.Rules)
		c.Rules[0].Pairs = []ike.Pair{{Local: host(to), Remote: everything()}}
		a.moveTo(to)
		a.Do(ike.Reconfigure{Config: c})
	}
	moves(addrA2)
	w.Run(time.Second)
	w.Hold(messages(create, true, a))
	b.Do(ike.Acquire{Flow: flow(addrB, addrA2)})
	w.Run(50 * time.Millisecond)
	moves(netip.MustParseAddr("10.9.0.9"))
	w.Run(7 * time.Millisecond) // the initiator has heard of it, and not yet of the end of its Child SA
	w.Release()
	w.Run(20 * time.Second)
	if n := b.Engine.Queued(); n != 0 {
		t.Errorf("%d flows wait\n%s", n, story(w))
	}
	if len(a.SADB)+len(b.SADB) != 0 {
		t.Errorf("a Child SA of an address that is gone is left: %v, %v\n%s", a.SADB, b.SADB, story(w))
	}
	verify(t, w)
}
