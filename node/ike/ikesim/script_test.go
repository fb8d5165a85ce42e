package ikesim

import (
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// The timing cases of crossing exchanges (RFC 7296 2.8.1, 2.25). Where nonces decide, each side is made to have the lowest
// one in half of the worlds, and must lose there (loaded_test.go).

const (
	create = uint8(wire.CreateChildSA)
	inform = uint8(wire.Informational)
)

// crossing runs one case with many seeds. Its steps leave whatever they like; after them everything must come to rest
// with one Child SA in one IKE SA.
type crossing struct {
	name  string
	steps func(w *World, a, b *Node)
	// decides names a case in which nonces decide, so that the side with the lowest one must lose.
	decides bool
	none    bool // no Child SA is left
	single  bool // the response to CREATE_CHILD_SA completes the rekey
	late    bool // the peer's rekey is over when it reads a's request: a has to tell of the collision all the same
	alike   bool // makes sense only where both sides do the same
}

func (n *Node) child() sa.SPI {
	for _, spi := range n.order {
		if n.SADB[spi] != nil {
			return spi
		}
	}
	return 0
}

func (n *Node) ikeSPI() ike.IKESPI {
	for _, s := range n.Engine.Snapshot().SAs {
		if s.State == "established" {
			return ike.IKESPI(s.SPI)
		}
	}
	return 0
}

func (n *Node) rekeyChild()  { n.Do(ike.ChildExpiring{SPI: n.child(), Limit: ike.LimitSoft}) }
func (n *Node) deleteChild() { n.Do(ike.ChildExpiring{SPI: n.child(), Limit: ike.LimitHard}) }
func (n *Node) rekeyIKE()    { n.Do(ike.Rekey{IKE: n.ikeSPI()}) }
func (n *Node) deleteIKE()   { n.Do(ike.Close{IKE: n.ikeSPI()}) }

func messages(exchange uint8, response bool, from *Node) func(f, t *Node, e uint8, r bool) bool {
	return func(f, _ *Node, e uint8, r bool) bool { return f == from && e == exchange && r == response }
}

var crossings = []crossing{
	{name: "child rekey alone", steps: func(_ *World, a, _ *Node) { a.rekeyChild() }},
	{name: "IKE rekey alone", steps: func(_ *World, a, _ *Node) { a.rekeyIKE() }},
	{name: "child/child", decides: true, steps: func(_ *World, a, b *Node) {
		a.rekeyChild()
		b.rekeyChild()
	}},
	{name: "child/child, one response late", decides: true, steps: func(w *World, a, b *Node) {
		w.Hold(messages(create, true, b))
		a.rekeyChild()
		b.rekeyChild()
		w.Run(500 * time.Millisecond)
		w.Release()
	}},
	{name: "child/child, one response late, past the deletes", decides: true, steps: func(w *World, a, b *Node) {
		w.Hold(messages(create, true, b))
		a.rekeyChild()
		b.rekeyChild()
		w.Run(30 * time.Second)
		w.Release()
	}},
	{name: "child/child, one request late: the peer deletes already", late: true, steps: func(w *World, a, b *Node) {
		w.Hold(func(f, _ *Node, e uint8, r bool) bool {
			return f == a && e == create && !r || f == a && e == inform && r
		})
		a.rekeyChild()
		b.rekeyChild()
		w.Run(300 * time.Millisecond)
		w.Release()
	}},
	{name: "child/child, one request later still: the peer is done", late: true, steps: func(w *World, a, b *Node) {
		w.Hold(messages(create, false, a))
		a.rekeyChild()
		b.rekeyChild()
		w.Run(400 * time.Millisecond)
		w.Release()
	}},
	{name: "child/child, request lost, then repeated", steps: func(w *World, a, b *Node) {
		w.Hold(messages(create, false, a))
		a.rekeyChild()
		b.rekeyChild()
		w.Run(300 * time.Millisecond)
		w.DropHeld()
	}},
	{name: "child/child, every response lost once", decides: true, steps: func(w *World, a, b *Node) {
		w.Hold(func(_, _ *Node, e uint8, r bool) bool { return e == create && r })
		a.rekeyChild()
		b.rekeyChild()
		w.Run(200 * time.Millisecond)
		w.DropHeld()
	}},
	{name: "child/child, deletes lost once", decides: true, steps: func(w *World, a, b *Node) {
		w.Hold(func(_, _ *Node, e uint8, r bool) bool { return e == inform && !r })
		a.rekeyChild()
		b.rekeyChild()
		w.Run(200 * time.Millisecond)
		w.DropHeld()
	}},
	{name: "delete/rekey", none: true, steps: func(_ *World, a, b *Node) {
		a.deleteChild()
		b.rekeyChild()
	}},
	{name: "delete/rekey, delete lost", none: true, steps: func(w *World, a, b *Node) {
		w.Hold(messages(inform, false, a))
		a.deleteChild()
		b.rekeyChild()
		w.Run(300 * time.Millisecond)
		w.DropHeld()
	}},
	{name: "delete/rekey, rekey lost", none: true, steps: func(w *World, a, b *Node) {
		w.Hold(messages(create, false, b))
		a.deleteChild()
		b.rekeyChild()
		w.Run(300 * time.Millisecond)
		w.DropHeld()
	}},
	{name: "delete/delete", none: true, steps: func(_ *World, a, b *Node) {
		a.deleteChild()
		b.deleteChild()
	}},
	{name: "the new Child SA is deleted before its response comes", none: true, steps: func(w *World, a, b *Node) {
		old := b.child()
		w.Hold(messages(create, true, b))
		a.rekeyChild()
		w.Run(100 * time.Millisecond)
		for _, spi := range b.order {
			if b.SADB[spi] != nil && spi != old {
				b.Do(ike.ChildExpiring{SPI: spi, Limit: ike.LimitHard})
			}
		}
		w.Run(200 * time.Millisecond)
		b.Do(ike.ChildExpiring{SPI: old, Limit: ike.LimitHard})
		w.Run(200 * time.Millisecond)
		w.Release()
	}},
	{name: "the responder deletes the old Child SA itself", single: true, steps: func(w *World, a, b *Node) {
		old := b.child()
		w.Hold(messages(create, true, b))
		a.rekeyChild()
		w.Run(100 * time.Millisecond)
		b.Do(ike.ChildExpiring{SPI: old, Limit: ike.LimitHard})
		w.Run(100 * time.Millisecond)
		w.Release()
	}},
	{name: "soft limit at the responder while it waits for the delete", steps: func(w *World, a, b *Node) {
		old := b.child()
		w.Hold(messages(inform, false, a))
		a.rekeyChild()
		w.Run(100 * time.Millisecond)
		b.Do(ike.ChildExpiring{SPI: old, Limit: ike.LimitSoft})
		w.Run(100 * time.Millisecond)
		w.Release()
	}},
	{name: "hard limit at the responder while it waits for the delete", steps: func(w *World, a, b *Node) {
		old := b.child()
		w.Hold(messages(inform, false, a))
		a.rekeyChild()
		w.Run(100 * time.Millisecond)
		b.Do(ike.ChildExpiring{SPI: old, Limit: ike.LimitHard})
		w.Run(100 * time.Millisecond)
		w.Release()
	}},
	{name: "IKE/IKE", decides: true, steps: func(_ *World, a, b *Node) {
		a.rekeyIKE()
		b.rekeyIKE()
	}},
	// Where a loses, the delete of the old SA comes before it learns that.
	{name: "IKE/IKE, one response late", decides: true, steps: func(w *World, a, b *Node) {
		w.Hold(messages(create, true, b))
		a.rekeyIKE()
		b.rekeyIKE()
		w.Run(500 * time.Millisecond)
		w.Release()
	}},
	{name: "IKE/IKE, one request late", late: true, steps: func(w *World, a, b *Node) {
		w.Hold(messages(create, false, a))
		a.rekeyIKE()
		b.rekeyIKE()
		w.Run(400 * time.Millisecond)
		w.Release()
	}},
	{name: "IKE/IKE, request lost", steps: func(w *World, a, b *Node) {
		w.Hold(messages(create, false, a))
		a.rekeyIKE()
		b.rekeyIKE()
		w.Run(300 * time.Millisecond)
		w.DropHeld()
	}},
	{name: "IKE/IKE, responses lost once", decides: true, steps: func(w *World, a, b *Node) {
		w.Hold(func(_, _ *Node, e uint8, r bool) bool { return e == create && r })
		a.rekeyIKE()
		b.rekeyIKE()
		w.Run(200 * time.Millisecond)
		w.DropHeld()
	}},
	{name: "child/IKE", steps: func(_ *World, a, b *Node) {
		a.rekeyChild()
		b.rekeyIKE()
	}},
	{name: "child delete/IKE rekey", none: true, steps: func(_ *World, a, b *Node) {
		a.deleteChild()
		b.rekeyIKE()
	}},
	{name: "child rekey/IKE delete", none: true, steps: func(_ *World, a, b *Node) {
		a.rekeyChild()
		b.deleteIKE()
	}},
	{name: "IKE rekey/IKE delete", none: true, steps: func(_ *World, a, b *Node) {
		a.rekeyIKE()
		b.deleteIKE()
	}},
	{name: "IKE delete/IKE delete", none: true, steps: func(_ *World, a, b *Node) {
		a.deleteIKE()
		b.deleteIKE()
	}},
	{name: "delete of the IKE SA lost", none: true, steps: func(w *World, a, _ *Node) {
		w.Hold(messages(inform, false, a))
		a.deleteIKE()
		w.Run(100 * time.Millisecond)
		w.DropHeld()
	}},
	{name: "response to the delete of the IKE SA lost", none: true, steps: func(w *World, a, b *Node) {
		w.Hold(messages(inform, true, b))
		a.deleteIKE()
		w.Run(100 * time.Millisecond)
		w.DropHeld()
	}},
	{name: "both sides make the same Child SA", steps: func(w *World, a, b *Node) {
		a.deleteChild()
		w.Run(time.Second)
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		b.Do(ike.Acquire{Flow: flow(addrB, addrA)})
	}},
}

func TestCrossing(t *testing.T) {
	for _, c := range crossings {
		t.Run(strings.NewReplacer(" ", "-", "/", "-", ",", "").Replace(c.name), func(t *testing.T) {
			c.run(t, func(seed uint64) (*World, *Node, *Node) {
				return pair(seed, Faults{Delay: 10 * time.Millisecond}, pskAuth, nil)
			})
		})
	}
}

// run plays the case with 16 seeds.
func (c crossing) run(t *testing.T, world func(seed uint64) (*World, *Node, *Node)) {
	for seed := uint64(1); seed <= 16; seed++ {
		w, a, b := world(seed)
		dice := []*loaded{a.load(), b.load()}
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Second)
		mirrored(t, w, a, b, 1)
		before := a.child()
		loser, winner := a, b
		if seed%2 == 0 {
			loser, winner = b, a
		}
		if c.decides {
			dice[0].begin(loser == a)
			dice[1].begin(loser == b)
		}
		c.steps(w, a, b)
		w.Run(5 * time.Minute)
		children := 1
		if c.none {
			children = 0
		}
		mirrored(t, w, a, b, children)
		if n := len(a.Engine.Snapshot().SAs); n > 1 {
			t.Fatalf("seed %d: %d IKE SAs are left\n%s", seed, n, story(w))
		}
		text := story(w)
		if c.decides {
			if why := c.wrongSide(text, loser, winner); why != "" {
				t.Fatalf("seed %d: %s\n%s", seed, why, text)
			}
		}
		if c.late && !contains(text, a.Name, "rekey collision: ") {
			t.Fatalf("seed %d: nobody tells of the collision\n%s", seed, text)
		}
		if strings.Contains(c.name, "child/child") && a.child() == before {
			t.Fatalf("seed %d: the Child SA was not replaced\n%s", seed, text)
		}
		if strings.Contains(text, "down") && !c.none && !strings.Contains(text, "rekeyed") {
			t.Fatalf("seed %d: the IKE SA went down\n%s", seed, text)
		}
	}
}

func contains(text, node, what string) bool {
	for line := range strings.Lines(text) {
		if strings.Contains(line, node) && strings.Contains(line, what) {
			return true
		}
	}
	return false
}

// Two nodes that initiate at once keep one IKE SA, the same one on both sides, whoever has the lowest nonce.
func TestSimultaneousInitiation(t *testing.T) {
	survivors := make(map[bool]int)
	for seed := uint64(1); seed <= 16; seed++ {
		w, a, b := pair(seed, Faults{Delay: 10 * time.Millisecond}, pskAuth, nil)
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		b.Do(ike.Acquire{Flow: flow(addrB, addrA)})
		w.Run(20 * time.Second)
		mirrored(t, w, a, b, 1)
		survivors[a.Engine.Snapshot().SAs[0].Initiator]++
	}
	if len(survivors) != 2 {
		t.Errorf("16 seeds let always the same side survive")
	}
}
