package ikesim

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Additional key exchanges (RFC 9370) and ML-KEM as the first one.

// exchanging is the IKE offer of the other tests with another key exchange.
func exchanging(group proposal.Group, additional ...proposal.Group) proposal.IKE {
	o := ikeOffer
	o.Group, o.Additional = group, proposal.AdditionalOf(additional...)
	return o
}

var keyExchanges = []proposal.IKE{
	exchanging(proposal.GroupX25519, proposal.GroupMLKEM768),
	exchanging(proposal.GroupX25519, proposal.GroupMLKEM1024),
	exchanging(proposal.GroupMLKEM768),
	exchanging(proposal.GroupMLKEM1024),
	exchanging(proposal.GroupMLKEM768, proposal.GroupECP384),
	exchanging(proposal.GroupECP256, proposal.GroupMLKEM768, proposal.GroupX25519, proposal.GroupMLKEM1024, proposal.GroupECP384,
		proposal.GroupMODP2048, proposal.GroupMODP3072, proposal.GroupMODP4096),
}

// offering is a pair whose nodes have these offers for IKE SAs.
func offering(seed uint64, f Faults, auth spd.Auth, a, b []proposal.IKE) (*World, *Node, *Node) {
	w := New(seed, f)
	w.Tracing = true
	ca, cb := config("a.example", addrA, meshRule(addrA, auth)), config("b.example", addrB, meshRule(addrB, auth))
	ca.Offers, cb.Offers = a, b
	return w, w.Add("a.example", addrA, ca), w.Add("b.example", addrB, cb)
}

func suiteOf(t *testing.T, n *Node) proposal.IKE {
	t.Helper()
	v := n.Engine.Snapshot()
	if len(v.SAs) != 1 {
		t.Fatalf("want one IKE SA, have %d", len(v.SAs))
	}
	return v.SAs[0].Suite
}

func TestKeyExchanges(t *testing.T) {
	for _, o := range keyExchanges {
		for _, auth := range []spd.Auth{pskAuth, certAuth} {
			for seed := uint64(1); seed <= 12; seed++ {
				f := Faults{Delay: 5 * time.Millisecond}
				if seed > 1 { // each message and each job may be late, doubled or lost
					f.Loss, f.Duplicate, f.Jitter, f.JobTime = 0.2, 0.2, 300*time.Millisecond, 50*time.Millisecond
				}
				w, a, b := offering(seed, f, auth, []proposal.IKE{o}, []proposal.IKE{o})
				a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
				w.Run(3 * time.Minute)
				w.Faults = Faults{Delay: 5 * time.Millisecond}
				if len(a.SADB) == 0 { // lost too much: the next packet asks again
					a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
				}
				w.Run(10 * time.Second)
				mirrored(t, w, a, b, 1)
				if got := suiteOf(t, a); got != o || suiteOf(t, b) != o {
					t.Errorf("%s: the IKE SA has %s", o, got)
				}
				if n := strings.Count(story(w), "] send IKE_INTERMEDIATE request"); seed == 1 && n != len(o.Additional.Methods()) {
					t.Errorf("%s: %d IKE_INTERMEDIATE exchanges\n%s", o, n, story(w))
				}
			}
		}
	}
}

// pfs is meshRule with fresh keys for every Child SA that is not made in IKE_AUTH, by these offers.
func pfs(own netip.Addr, offers ...proposal.KeyExchange) ike.Rule {
	r := meshRule(own, pskAuth)
	r.PFS, r.Offers = true, nil
	for _, k := range offers {
		o := espOffer
		o.Group, o.Additional = k.Group, k.Additional
		r.Offers = append(r.Offers, o)
	}
	return r
}

const follow = uint8(wire.IKEFollowupKE)

// exchangingPair is a pair of which each node has its own key exchanges, for the IKE SA and for Child SAs.
func exchangingPair(seed uint64, f Faults, a, b []proposal.KeyExchange) (*World, *Node, *Node) {
	w := New(seed, f)
	w.Tracing = true
	add := func(name string, own netip.Addr, list []proposal.KeyExchange) *Node {
		c := config(name, own, pfs(own, list...))
		c.Offers = nil
		for _, k := range list {
			c.Offers = append(c.Offers, exchanging(k.Group, k.Additional.Methods()...))
		}
		return w.Add(name, own, c)
	}
	return w, add("a.example", addrA, a), add("b.example", addrB, b)
}

var (
	plainKE  = proposal.KeyExchange{Group: proposal.GroupX25519}
	hybridKE = proposal.KeyExchange{Group: proposal.GroupX25519, Additional: proposal.AdditionalOf(proposal.GroupMLKEM768)}
	tripleKE = proposal.KeyExchange{Group: proposal.GroupECP256, Additional: proposal.AdditionalOf(proposal.GroupMLKEM768, proposal.GroupX25519)}
)

// Every crossing with additional key exchanges on both sides, and on one side only: the responder prefers by its own list,
// so that what a begins is plain and what b begins is not.
func TestCrossingWithAdditionalKeyExchanges(t *testing.T) {
	for name, lists := range map[string][2][]proposal.KeyExchange{
		"one":   {{hybridKE}, {hybridKE}},
		"two":   {{tripleKE}, {tripleKE}},
		"mixed": {{hybridKE, plainKE}, {plainKE, hybridKE}},
	} {
		for _, c := range slices.Concat(crossings, followups) {
			if name == "mixed" && c.alike || c.single {
				continue
			}
			t.Run(name+"/"+strings.NewReplacer(" ", "-", "/", "-", ",", "").Replace(c.name), func(t *testing.T) {
				if name == "mixed" { // which order of the messages comes up differs between the two
					c.decides = false
				}
				c.run(t, func(seed uint64) (*World, *Node, *Node) {
					return exchangingPair(seed, Faults{Delay: 10 * time.Millisecond}, lists[0], lists[1])
				})
			})
		}
	}
}

// followups are the cases that come up between CREATE_CHILD_SA and the last IKE_FOLLOWUP_KE.
var followups = []crossing{
	{name: "child/child, the winner's IKE_FOLLOWUP_KE late", decides: true, steps: func(w *World, a, b *Node) {
		w.Hold(func(_, _ *Node, e uint8, r bool) bool { return e == follow && !r })
		a.rekeyChild()
		b.rekeyChild()
		w.Run(500 * time.Millisecond)
		w.Release()
	}},
	{name: "child/child, the winner's IKE_FOLLOWUP_KE too late", alike: true, steps: func(w *World, a, b *Node) {
		w.Hold(func(_, _ *Node, e uint8, r bool) bool { return e == follow && !r })
		a.rekeyChild()
		b.rekeyChild()
		w.Run(40 * time.Second)
		w.Release()
	}},
	{name: "child/child, request past the peer's IKE_FOLLOWUP_KE", steps: func(w *World, a, b *Node) {
		w.Hold(func(f, _ *Node, e uint8, r bool) bool {
			return f == a && e == create && !r || f == b && e == follow && r
		})
		a.rekeyChild()
		b.rekeyChild()
		w.Run(300 * time.Millisecond)
		w.Release()
	}},
	{name: "child/child, every message of IKE_FOLLOWUP_KE lost once", steps: func(w *World, a, b *Node) {
		w.Hold(func(_, _ *Node, e uint8, _ bool) bool { return e == follow })
		a.rekeyChild()
		b.rekeyChild()
		w.Run(200 * time.Millisecond)
		w.DropHeld()
	}},
	{name: "IKE/IKE, the winner's IKE_FOLLOWUP_KE late", decides: true, steps: func(w *World, a, b *Node) {
		w.Hold(func(_, _ *Node, e uint8, r bool) bool { return e == follow && !r })
		a.rekeyIKE()
		b.rekeyIKE()
		w.Run(500 * time.Millisecond)
		w.Release()
	}},
	{name: "IKE/IKE, the winner's IKE_FOLLOWUP_KE too late", alike: true, steps: func(w *World, a, b *Node) {
		w.Hold(func(_, _ *Node, e uint8, r bool) bool { return e == follow && !r })
		a.rekeyIKE()
		b.rekeyIKE()
		w.Run(40 * time.Second)
		w.Release()
	}},
	{name: "IKE/IKE, request past the peer's IKE_FOLLOWUP_KE", steps: func(w *World, a, b *Node) {
		w.Hold(func(f, _ *Node, e uint8, r bool) bool {
			return f == a && e == create && !r || f == b && e == follow && r
		})
		a.rekeyIKE()
		b.rekeyIKE()
		w.Run(300 * time.Millisecond)
		w.Release()
	}},
	{name: "IKE rekey in IKE_FOLLOWUP_KE/child rekey", steps: func(w *World, a, b *Node) {
		w.Hold(func(_, _ *Node, e uint8, r bool) bool { return e == follow && !r })
		a.rekeyIKE()
		w.Run(100 * time.Millisecond)
		b.rekeyChild()
		w.Run(100 * time.Millisecond)
		w.Release()
	}},
	{name: "child rekey in IKE_FOLLOWUP_KE/IKE rekey", steps: func(w *World, a, b *Node) {
		w.Hold(func(_, _ *Node, e uint8, r bool) bool { return e == follow && !r })
		a.rekeyChild()
		w.Run(100 * time.Millisecond)
		b.rekeyIKE()
		w.Run(100 * time.Millisecond)
		w.Release()
	}},
	{name: "child rekey in IKE_FOLLOWUP_KE/delete", none: true, steps: func(w *World, a, b *Node) {
		w.Hold(func(_, _ *Node, e uint8, r bool) bool { return e == follow && !r })
		a.rekeyChild()
		w.Run(100 * time.Millisecond)
		b.deleteChild()
		w.Run(100 * time.Millisecond)
		w.Release()
		w.Run(time.Second)
		a.deleteChild() // what the rekey has made all the same, or nothing
		w.Run(time.Second)
	}},
	{name: "child rekey in IKE_FOLLOWUP_KE/IKE delete", none: true, steps: func(w *World, a, b *Node) {
		w.Hold(func(_, _ *Node, e uint8, r bool) bool { return e == follow && !r })
		a.rekeyChild()
		w.Run(100 * time.Millisecond)
		b.deleteIKE()
		w.Run(100 * time.Millisecond)
		w.Release()
	}},
}

// On a path that takes small datagrams only, both messages of IKE_INTERMEDIATE are cut again: the response under the keys
// from before it, although its sender uses the next ones already.
func TestIntermediateOnANarrowPath(t *testing.T) {
	for name, narrow := range map[string]func(from *Node) bool{
		"both ways": func(*Node) bool { return true },
		"response":  func(from *Node) bool { return from.Name == "b.example" },
		"request":   func(from *Node) bool { return from.Name == "a.example" },
	} {
		hybrid := []proposal.IKE{exchanging(proposal.GroupX25519, proposal.GroupMLKEM768)}
		w, a, b := offering(2, Faults{Delay: 5 * time.Millisecond}, pskAuth, hybrid, hybrid)
		w.translate = func(from, _ *Node, d *ike.Datagram) bool { return !narrow(from) || len(d.Bytes) <= 548 }
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Minute)
		mirrored(t, w, a, b, 1)
		if !strings.Contains(story(w), "smaller fragments") || a.Ups != 1 {
			t.Errorf("%s: %d IKE SAs, want one, with messages cut smaller\n%s", name, a.Ups, story(w))
		}
	}
}

// A new configuration while the secret of the last exchange is being computed ends what was agreed on under the old one: no
// side makes keys of it, and the initiator begins anew.
func TestReconfigureDuringFollowup(t *testing.T) {
	for what, begin := range map[string]func(a *Node){"child": (*Node).rekeyChild, "IKE": (*Node).rekeyIKE} {
		w, a, b := exchangingPair(5, Faults{Delay: 10 * time.Millisecond}, []proposal.KeyExchange{hybridKE}, []proposal.KeyExchange{hybridKE})
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Second)
		w.Faults.JobTime = 400 * time.Millisecond
		begin(a)
		for range 4000 {
			if strings.Contains(story(w), "received IKE_FOLLOWUP_KE request") {
				break
			}
			w.Run(time.Millisecond)
		}
		b.Do(ike.Reconfigure{Config: b.Config})
		w.Run(time.Minute)
		mirrored(t, w, a, b, 1)
		if text := story(w); !strings.Contains(text, "send IKE_FOLLOWUP_KE response") || !strings.Contains(text, "N(STATE_NOT_FOUND)") ||
			strings.Count(text, "] send CREATE_CHILD_SA request") != 2 {
			t.Errorf("%s: the initiator has not begun anew\n%s", what, text)
		}
	}
}

// A responder that has forgotten what it agreed on says so, and the initiator begins anew.
func TestStateNotFound(t *testing.T) {
	for what, begin := range map[string]func(a *Node){"child": (*Node).rekeyChild, "IKE": (*Node).rekeyIKE} {
		w, a, b := exchangingPair(5, Faults{Delay: 10 * time.Millisecond}, []proposal.KeyExchange{hybridKE}, []proposal.KeyExchange{hybridKE})
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Second)
		w.Hold(func(_, _ *Node, e uint8, r bool) bool { return e == follow && !r })
		begin(a)
		w.Run(40 * time.Second)
		w.Release()
		w.Run(time.Minute)
		mirrored(t, w, a, b, 1)
		text := story(w)
		if !strings.Contains(text, "send IKE_FOLLOWUP_KE response") || !strings.Contains(text, "N(STATE_NOT_FOUND)") {
			t.Errorf("%s: no STATE_NOT_FOUND\n%s", what, text)
		}
		if n := strings.Count(text, "] send CREATE_CHILD_SA request"); n != 2 {
			t.Errorf("%s: %d CREATE_CHILD_SA requests, want one and one more\n%s", what, n, text)
		}
	}
}

// FuzzEventsPostQuantum is FuzzEvents with additional key exchanges.
func FuzzEventsPostQuantum(f *testing.F) {
	f.Add([]byte{0, 1, 40, 4, 1, 8, 20, 1, 1, 4, 1, 200})
	f.Add([]byte{0, 1, 40, 6, 22, 1, 4, 1, 1, 1, 200})
	f.Add([]byte{0, 1, 40, 7, 1, 2, 4, 20, 1, 2, 1, 200})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 200 {
			return
		}
		w, a, b := exchangingPair(7, Faults{Delay: 3 * time.Millisecond}, []proposal.KeyExchange{hybridKE}, []proposal.KeyExchange{hybridKE})
		play(w, []*Node{a, b}, script)
		w.Release()
		w.Run(5 * time.Second)
		if len(w.Broken) > 0 {
			t.Fatalf("%v\n%s", w.Broken, story(w))
		}
	})
}

// What both can is preferred; what only one of them can falls back to what both policies list, and to nothing else.
func TestKeyExchangePreference(t *testing.T) {
	hybrid, plain := exchanging(proposal.GroupX25519, proposal.GroupMLKEM768), exchanging(proposal.GroupX25519)
	both, only := []proposal.IKE{hybrid, plain}, []proposal.IKE{plain}
	for name, c := range map[string]struct {
		a, b []proposal.IKE
		want proposal.IKE
	}{
		"both can":               {both, both, hybrid},
		"the responder cannot":   {both, only, plain},
		"the initiator cannot":   {only, both, plain},
		"the responder insists":  {only, both[:1], proposal.IKE{}},
		"the initiator insists":  {both[:1], only, proposal.IKE{}},
		"KEM first, then plain":  {[]proposal.IKE{exchanging(proposal.GroupMLKEM768), plain}, only, plain},
		"plain first, KEM asked": {[]proposal.IKE{plain, exchanging(proposal.GroupMLKEM768)}, []proposal.IKE{exchanging(proposal.GroupMLKEM768)}, exchanging(proposal.GroupMLKEM768)},
	} {
		w, a, b := offering(3, Faults{Delay: 5 * time.Millisecond}, pskAuth, c.a, c.b)
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(2 * time.Minute)
		verify(t, w)
		if c.want == (proposal.IKE{}) {
			if len(a.SADB)+len(b.SADB) > 0 || a.Ups+b.Ups > 0 {
				t.Errorf("%s: an SA is up\n%s", name, story(w))
			}
			continue
		}
		if len(a.SADB) != 1 || suiteOf(t, a) != c.want {
			t.Errorf("%s: the IKE SA has %s, want %s\n%s", name, suiteOf(t, a), c.want, story(w))
		}
	}
}
