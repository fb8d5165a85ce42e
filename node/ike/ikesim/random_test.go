package ikesim

import (
	"flag"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

var (
	oneSeed = flag.Uint64("ikesim.seed", 0, "run this seed of TestRandom alone, with its story")
	seeds   = flag.Uint64("ikesim.seeds", 200, "number of seeds of TestRandom")
)

// scenario makes a world, disturbs it for some minutes, heals it and lets it come to rest.
func scenario(seed uint64, tracing bool) *World {
	r := rand.New(rand.NewPCG(seed, 99))
	f := Faults{Delay: time.Duration(1+r.IntN(40)) * time.Millisecond}
	if r.IntN(4) > 0 {
		f.Loss = r.Float64() * 0.3
		f.Duplicate = r.Float64() * 0.3
		f.Jitter = time.Duration(r.IntN(400)+1) * time.Millisecond
	}
	if r.IntN(2) == 0 {
		f.JobTime = time.Duration(r.IntN(300)+1) * time.Millisecond
	}
	auth := []spd.Auth{pskAuth, certAuth}[r.IntN(2)]
	pfs := r.IntN(2) == 0
	w := New(seed, f)
	w.Tracing = tracing
	addrs := []netip.Addr{addrA, addrB, addrC}[:2+r.IntN(2)]
	names := []string{"a.example", "b.example", "c.example"}
	lifetime := time.Duration(20+r.IntN(100)) * time.Second
	for i, addr := range addrs {
		rule := meshRule(addr, auth)
		rule.PFS = pfs
		rule.Lifetime.Time = lifetime
		c := config(names[i], addr, rule)
		c.IKELifetime = lifetime * time.Duration(1+r.IntN(3))
		w.Add(names[i], addr, c)
	}
	for i, n := range w.Nodes {
		n.expire = true
		for j := range w.Nodes {
			if i != j && r.IntN(3) > 0 {
				n.Do(ike.Acquire{Flow: flow(addrs[i], addrs[j])})
			}
		}
	}
	for range 20 + r.IntN(30) {
		w.Run(time.Duration(r.IntN(4000)) * time.Millisecond)
		n := w.Nodes[r.IntN(len(w.Nodes))]
		m := w.Nodes[r.IntN(len(w.Nodes))]
		v := n.Engine.Snapshot()
		switch r.IntN(12) {
		case 0, 1:
			if n != m {
				n.Do(ike.Acquire{Flow: flow(n.Addr, m.Addr)})
			}
		case 2, 3, 4: // both sides rekey the same at about the same time
			for _, s := range v.SAs {
				for _, c := range s.Children {
					n.Do(ike.ChildExpiring{SPI: c.In.SPI, Limit: ike.LimitSoft})
					if p := w.at(c.Remote.Addr()); r.IntN(2) == 0 {
						p.Do(ike.ChildExpiring{SPI: c.Out.SPI, Limit: ike.LimitSoft})
					}
				}
			}
		case 5, 6:
			for _, s := range v.SAs {
				n.Do(ike.Rekey{IKE: ike.IKESPI(s.SPI)})
				if p := w.at(s.Remote.Addr()); r.IntN(2) == 0 {
					p.Do(ike.Rekey{IKE: ike.IKESPI(s.PeerSPI)})
				}
			}
		case 7:
			for _, s := range v.SAs {
				for _, c := range s.Children {
					n.Do(ike.ChildExpiring{SPI: c.In.SPI, Limit: []ike.Limit{ike.LimitHard, ike.LimitIdle}[r.IntN(2)]})
				}
			}
		case 8:
			if len(v.SAs) > 0 {
				n.Do(ike.Close{IKE: ike.IKESPI(v.SAs[r.IntN(len(v.SAs))].SPI)})
			}
		case 9:
			if r.IntN(3) == 0 {
				n.Crash()
			}
		case 10:
			c := n.Config
			if r.IntN(2) == 0 { // a change that closes what there is
				c.Rules = []ike.Rule{c.Rules[0]}
				c.Rules[0].Lifetime.Time += time.Second
				for _, o := range w.Nodes {
					oc := o.Config
					oc.Rules = []ike.Rule{oc.Rules[0]}
					oc.Rules[0].Lifetime = c.Rules[0].Lifetime
					o.Config = oc
					o.Do(ike.Reconfigure{Config: oc})
				}
				break
			}
			n.Do(ike.Reconfigure{Config: c})
		}
	}
	// Heal, let everything end, then nobody rekeys while the result is looked at.
	w.Faults = Faults{Delay: 5 * time.Millisecond}
	for i, n := range w.Nodes {
		for j := range w.Nodes {
			if i != j {
				n.Do(ike.Acquire{Flow: flow(addrs[i], addrs[j])})
			}
		}
	}
	w.Run(10 * time.Minute)
	for range 240 { // rest may fall into a rekey
		if w.atRest() {
			break
		}
		w.logf("no rest: %s", w.unrest())
		w.Run(500 * time.Millisecond)
	}
	w.CheckRest()
	return w
}

func TestRandom(t *testing.T) {
	if *oneSeed != 0 {
		w := scenario(*oneSeed, true)
		t.Log(story(w))
		verify(t, w)
		return
	}
	for seed := uint64(1); seed <= *seeds; seed++ {
		w := scenario(seed, false)
		if len(w.Broken) > 0 {
			t.Errorf("%s\nreproduce: go test ./node/ike/ikesim -run TestRandom -ikesim.seed %d -v", strings.Join(w.Broken, "\n"), seed)
			if t.Failed() && seed > 20 {
				return
			}
		}
	}
}

// I9: the same seed is the same world.
func TestDeterminism(t *testing.T) {
	for seed := uint64(1); seed <= 5; seed++ {
		a, b := scenario(seed, true), scenario(seed, true)
		if story(a) != story(b) {
			t.Errorf("seed %d gives two different stories", seed)
		}
	}
}
