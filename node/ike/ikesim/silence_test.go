package ikesim

import (
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// mobilePair is two nodes with a Child SA that tell each other their addresses.
func mobilePair(t *testing.T) (w *World, a, b *Node) {
	t.Helper()
	w, a, b = pair(1, calm, pskAuth, nil)
	for _, n := range []*Node{a, b} {
		n.Config.Mobility = ike.MobilityOn
		n.boot()
		n.addresses(n.Addr)
	}
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
	return w, a, b
}

// A peer may reach this side while nothing that this side begins reaches the peer, as behind a NAT that has changed its
// mapping. Its rekeys of the IKE SA must not grant it another whole time of silence each: the IKE SA ends, and traffic
// makes another one.
func TestRekeysOfThePeerDoNotHideItsSilence(t *testing.T) {
	w, a, b := mobilePair(t)
	w.Hold(func(from, _ *Node, _ uint8, response bool) bool { return from == b && !response })
	b.addresses(addrB, addrB2) // of which it tells the peer
	ended := func() bool {
		return slices.ContainsFunc(b.Downs, func(d ike.Down) bool { return d.Reason == ike.ReasonLiveness })
	}
	for range 6 {
		w.Run(30 * time.Second)
		if ended() {
			return
		}
		a.rekeyIKE()
		w.Run(0)
	}
	t.Errorf("after three minutes of silence the IKE SA lives: %+v\n%s", b.Downs, story(w))
}

// A rekey that comes while a request waits for its response takes nothing from the time that a peer has to answer.
func TestAnAnswerEndsTheSilence(t *testing.T) {
	w, a, b := mobilePair(t)
	for range 6 {
		w.Hold(func(from, _ *Node, _ uint8, response bool) bool { return from == b && !response })
		b.addresses(addrB)
		b.addresses(addrB, addrB2)
		w.Run(20 * time.Second)
		a.rekeyIKE()
		w.Run(10 * time.Second)
		w.Release()
		w.Run(20 * time.Second)
	}
	mirrored(t, w, a, b, 1)
	for _, d := range slices.Concat(a.Downs, b.Downs) {
		if d.Reason != ike.ReasonRekeyed {
			t.Errorf("down: %+v\n%s", d, story(w))
		}
	}
}
