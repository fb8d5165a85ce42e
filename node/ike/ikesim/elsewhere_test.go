package ikesim

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// naming lets the tunnel rules of two gateways name the peer.
func naming(auth spd.Auth, peer string) spd.Auth {
	auth.RemoteID = "fqdn:" + peer
	return auth
}

// A peer of a tunnel that has moved, and has lost its IKE SA there by a crash, begins anew from where it is, if the rule
// names it and a certificate proves its name. Nobody else does, and without MOBIKE nobody at all.
func TestPeerBeginsAnewWhereItHasMoved(t *testing.T) {
	for _, c := range []struct {
		name     string
		auth     spd.Auth // of the side that stays, and of the other one
		m        ike.Mobility
		nat      bool
		admitted bool
	}{
		{"named, by certificate", naming(certAuth, "b.example"), ike.MobilityOn, false, true},
		{"named, by certificate, behind a NAT", naming(certAuth, "b.example"), ike.MobilityOn, true, true},
		{"named, by certificate, no NAT allowed", naming(certAuth, "b.example"), ike.MobilityWithoutNAT, false, true},
		{"named, by certificate, behind a NAT that is not allowed", naming(certAuth, "b.example"), ike.MobilityWithoutNAT, true, false},
		{"another name, by certificate", naming(certAuth, "c.example"), ike.MobilityOn, false, false},
		{"anybody, by certificate", certAuth, ike.MobilityOn, false, false},
		{"named, by preshared key", naming(pskAuth, "b.example"), ike.MobilityOn, false, false},
		{"named, by certificate, without MOBIKE", naming(certAuth, "b.example"), ike.MobilityOff, false, false},
	} {
		for _, childless := range []spd.Childless{spd.ChildlessAccept, spd.ChildlessPrefer} {
			t.Run(c.name+", "+childless.String(), func(t *testing.T) {
				w, a, b, wide, narrow := gateways(1, calm)
				for _, n := range []*Node{a, b} {
					n.Config.Mobility, n.Config.Childless = c.m, childless
					n.Config.Rules[0].Auth = []spd.Auth{c.auth}
				}
				b.Config.Rules[0].Auth = []spd.Auth{{Method: c.auth.Method, Secret: c.auth.Secret}}
				a.boot()
				a.addresses(addrA)
				b.Addr = addrB2
				b.Crash()
				b.addresses(addrB2)
				if c.nat {
					b.Hide(public)
				}
				narrow.Local = addrB2
				b.Do(ike.Acquire{Flow: narrow})
				w.Run(5 * time.Second)
				want := 0
				if c.admitted {
					want = 1
				}
				mirrored(t, w, a, b, want)
				if !c.admitted {
					return
				}
				// To the side that stays it is the peer of its rule: what it asks for goes there, and makes nothing anew.
				wide.RemoteTS = narrow.LocalTS
				a.Do(ike.Acquire{Flow: wide})
				w.Run(time.Second)
				if a.Engine.Queued() != 0 || a.Ups != 1 {
					t.Errorf("%d flows wait, %d IKE SAs were made\n%s", a.Engine.Queued(), a.Ups, story(w))
				}
				// And it may go home.
				b.nat = nil
				b.moveTo(addrB)
				w.Run(80 * time.Second)
				moved(t, w, a, b)
				verify(t, w)
			})
		}
	}
}

// What somebody only claims opens nothing: a peer with a good certificate and another name is refused at the address of a
// stranger, and the IKE SA of the one who is named lives on.
func TestNobodyElseComesFromElsewhere(t *testing.T) {
	w, a, b, _, narrow := gateways(1, calm)
	for _, n := range []*Node{a, b} {
		n.Config.Mobility = ike.MobilityOn
	}
	a.Config.Rules[0].Auth = []spd.Auth{naming(certAuth, "b.example")}
	b.Config.Rules[0].Auth = []spd.Auth{certAuth}
	thief := b.Config
	thief.Local = ike.Identity{Type: 2, Data: []byte("bad.example")}
	a.boot()
	b.boot()
	a.addresses(addrA)
	b.addresses(addrB)
	b.Do(ike.Acquire{Flow: narrow})
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
	for _, claimed := range []string{"bad.example", "b.example"} { // the toy signature of "bad" verifies for nobody
		thief.Local.Data = []byte(claimed)
		c := w.Add("bad.example", netip.MustParseAddr("203.0.113.9"), thief)
		c.work = func(work ike.Work) ike.Result {
			if s, ok := work.(ike.Sign); ok {
				return ike.Signed{Method: 14, Data: toyMAC("bad.example", s.Octets)}
			}
			return c.toy(work)
		}
		c.addresses(c.Addr)
		f := narrow
		f.Local = c.Addr
		c.Do(ike.Acquire{Flow: f})
		w.Run(5 * time.Second)
		if len(c.SADB) != 0 || len(a.SADB) != 1 || sasWith(a, claimed)+sasWith(a, "b.example") != 1+map[bool]int{true: 1}[claimed == "b.example"] {
			t.Errorf("%s: %d Child SAs there, %d here\n%s", claimed, len(c.SADB), len(a.SADB), story(w))
		}
		w.Nodes = slices.DeleteFunc(w.Nodes, func(n *Node) bool { return n == c })
	}
}

// A Child SA of transport mode that was asked for before an address changed is not installed for an address that is gone.
func TestNoChildSAForAnAddressThatIsGone(t *testing.T) {
	for _, rekey := range []bool{false, true} {
		w, a, b := pair(1, calm, pskAuth, nil)
		for _, n := range []*Node{a, b} {
			n.Config.Mobility = ike.MobilityOn
			n.boot()
			n.addresses(n.Addr)
		}
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Second)
		before := len(a.SADB)
		w.Hold(messages(create, true, b))
		if rekey {
			a.rekeyChild()
		} else {
			f := flow(addrA, addrB)
			f.LocalTS.Protocol, f.RemoteTS.Protocol = 6, 6
			f.Rule = "mesh"
			a.deleteChild()
			w.Run(time.Second)
			before = len(a.SADB)
			a.Do(ike.Acquire{Flow: f})
		}
		w.Run(100 * time.Millisecond)
		installed := count(w, "a.example", "install in")
		a.moveTo(addrA2)
		w.Run(100 * time.Millisecond)
		w.Release()
		w.Run(time.Minute)
		if n := count(w, "a.example", "install in") - installed; n != 0 || len(a.SADB)+len(b.SADB) != 0 {
			t.Errorf("rekey %v: %d of %d Child SAs were installed after the move, %d and %d are left\n%s", rekey, n, before, len(a.SADB), len(b.SADB), story(w))
		}
		verify(t, w)
	}
}

// A move while the IKE SA is being rekeyed is told through the new one, and what has been told already counts there.
func TestMoveDuringRekeyOfTheIKESA(t *testing.T) {
	for name, steps := range map[string]func(w *World, a, b *Node){
		"the initiator moves while its key pair is made": func(w *World, a, b *Node) {
			w.Faults.JobTime = 20 * time.Millisecond
			b.rekeyIKE()
			b.moveTo(addrB2)
		},
		"the initiator moves before its response comes": func(w *World, a, b *Node) {
			w.Hold(messages(create, true, a))
			b.rekeyIKE()
			w.Run(50 * time.Millisecond)
			b.moveTo(addrB2)
			w.Run(50 * time.Millisecond)
			w.Release()
		},
		"the responder rekeys, the initiator moves before it has the response": func(w *World, a, b *Node) {
			w.Hold(messages(create, true, b))
			a.rekeyIKE()
			w.Run(50 * time.Millisecond)
			b.moveTo(addrB2)
			w.Run(50 * time.Millisecond)
			w.Release()
		},
		"the proof that the initiator receives there is late": func(w *World, a, b *Node) {
			w.Hold(messages(inform, true, b))
			b.moveTo(addrB2)
			w.Run(200 * time.Millisecond)
			b.rekeyIKE()
			w.Run(200 * time.Millisecond)
			w.Release()
		},
		"the responder moves while its key pair is made": func(w *World, a, b *Node) {
			w.Faults.JobTime = 20 * time.Millisecond
			a.rekeyIKE()
			a.moveTo(addrA2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed <= 8; seed++ {
				w, a, b := roaming(t, seed, calm, ike.MobilityOn)
				steps(w, a, b)
				w.Run(5 * time.Minute)
				moved(t, w, a, b)
				for _, n := range []*Node{a, b} {
					for _, s := range n.Engine.Snapshot().SAs {
						if other := map[*Node]*Node{a: b, b: a}[n]; s.Local.Addr() != n.Addr || s.Remote.Addr() != other.Addr {
							t.Errorf("seed %d: %s has its IKE SA between %s and %s\n%s", seed, n.Name, s.Local, s.Remote, story(w))
						}
					}
				}
				if len(a.Downs)+len(b.Downs) != 2 { // that of the old IKE SA, on both sides
					t.Errorf("seed %d: down: %+v, %+v", seed, a.Downs, b.Downs)
				}
			}
		})
	}
}

// A peer that starts anew where it has not been, or at home again after it had moved, says so by INITIAL_CONTACT: nothing of
// what it had before is left, at once and not only when it has been silent for long.
func TestFirstContactFromElsewhere(t *testing.T) {
	for name, path := range map[string][]netip.Addr{
		"home, then elsewhere":           {addrB2},
		"elsewhere, then home":           {addrB2, addrB},
		"elsewhere, then elsewhere else": {addrB2, netip.MustParseAddr("10.9.0.3")},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, b, _, narrow := gateways(1, calm)
			for _, n := range []*Node{a, b} {
				n.Config.Mobility = ike.MobilityOn
				n.Config.Rules[0].Auth = []spd.Auth{naming(certAuth, map[*Node]string{a: "b.example", b: "a.example"}[n])}
				n.boot()
				n.addresses(n.Addr)
			}
			b.Do(ike.Acquire{Flow: narrow})
			w.Run(2 * time.Second)
			for i, at := range path {
				if i < len(path)-1 {
					b.moveTo(at)
					w.Run(10 * time.Second)
					continue
				}
				old := a.Engine.Snapshot().SAs
				if len(old) != 1 || len(a.Downs) != 0 {
					t.Fatalf("before the crash there are %+v, down %+v\n%s", old, a.Downs, story(w))
				}
				b.Addr, b.Others = at, nil
				b.Crash()
				b.addresses(at)
				narrow.Local = at
				b.Do(ike.Acquire{Flow: narrow})
				w.Run(time.Second)
				now := a.Engine.Snapshot().SAs
				if len(now) != 1 || now[0].SPI == old[0].SPI || now[0].Remote.Addr() != at || len(a.Downs) != 1 || a.Downs[0].Reason != ike.ReasonInitialContact {
					t.Errorf("the node has %+v, had %+v, down %+v\n%s", now, old, a.Downs, story(w))
				}
			}
		})
	}
}

// A NAT that changes its mapping is noticed although the peer always has an answer to give: what the other side begins
// would else go to the old mapping for ever.
func TestNATRebindingOfABusyPeer(t *testing.T) {
	w, a, b, _, narrow := gateways(1, calm)
	port := uint16(20001)
	w.nat(b, &port)
	a.Config.Rules[0].Tunnel = public
	for _, n := range []*Node{a, b} {
		n.Config.Mobility = ike.MobilityOn
		n.boot()
		n.addresses(n.Addr)
	}
	b.Do(ike.Acquire{Flow: narrow})
	w.Run(time.Minute)
	port = 20002
	for range 20 {
		b.rekeyChild()
		w.Run(10 * time.Second)
	}
	s := a.Engine.Snapshot().SAs[0]
	if at := a.SADB[a.child()].Child.Remote; s.Remote.Port() != 20002 || at.Port() != 20002 {
		t.Errorf("the IKE SA is with %s, the Child SA with %s\n%s", s.Remote, at, story(w))
	}
	mirrored(t, w, a, b, 1)
}
