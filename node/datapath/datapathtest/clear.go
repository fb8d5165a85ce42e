package datapathtest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Cases about clear traffic: who may send it, who accepts it, and when that ends. Host b has no security of its own in
// most of them: a machine without Bailiwick.

// refuseClear: inbound clear traffic of a rule without inpass is dropped.
func refuseClear(t *testing.T, w *World) {
	w.A.SetPolicy(t, policy())
	w.B.SetPolicy(t, requireAll())
	w.B.EchoTCP(t, 7)
	for _, to := range addresses(w.B) {
		if err := w.A.TryTCP(netip.AddrPortFrom(to, 7), short); err == nil {
			t.Errorf("clear TCP to %s was accepted, want it dropped", to)
		}
	}
	if w.B.Counter("nft/clear-in") == 0 {
		t.Error("nothing was counted as clear traffic that should have been secured")
	}
}

// acceptClear: with inpass a clear packet comes in, and its answer asks for security.
func acceptClear(t *testing.T, w *World) {
	w.A.SetPolicy(t, respondOnly())
	w.B.SetPolicy(t, requireAll(inpass))
	w.B.EchoTCP(t, 7)
	k := w.NewKeyer(t, func(from *Peer, f ike.Flow) *Pair {
		if from != w.B {
			t.Errorf("%s asked for security, want only b to", from.Name)
		}
		pair, err := w.NewPair(from, f, Options{Mode: sa.Transport, Encap: true, Rule: [2]string{ruleID, ""}})
		if err != nil {
			t.Error(err)
		}
		return pair
	})
	wire := w.Watch(t)
	for _, to := range addresses(w.B) {
		if err := w.A.TryTCP(netip.AddrPortFrom(to, 7), long); err != nil {
			t.Errorf("TCP to %s, first packet in clear: %v", to, err)
		}
	}
	seen := wire()
	// The SYN alone is in clear; the answer to it was held until the SA was there.
	if seen.Leaks > 0 || len(seen.Clear) > 2 || seen.Encap == 0 {
		t.Errorf("wire shows the payload %d times, %d packets in clear and %d ESP packets, want only the 2 SYNs in clear: %v",
			seen.Leaks, len(seen.Clear), seen.Encap, seen.Clear)
	}
	if n := len(k.Acquired()); n != 2 {
		t.Errorf("b asked %d times, want once for each address family", n)
	}
}

// fallBack: nothing passes before Fallback; then what waited goes first, and answers are accepted, until it ends.
func fallBack(t *testing.T, w *World) {
	w.A.SetPolicy(t, requireAll(soft))
	w.B.SetPolicy(t, policy())
	w.B.EchoTCP(t, 7)
	const ttl = 2 * time.Second
	k := w.NewKeyer(t, func(from *Peer, f ike.Flow) *Pair {
		if err := from.Node.Fallback(f, ttl); err != nil {
			t.Error(err)
		}
		return nil
	})
	for _, to := range addresses(w.B) {
		wire := w.Watch(t)
		begin := time.Now()
		if err := w.A.TryTCP(netip.AddrPortFrom(to, 7), long); err != nil {
			t.Errorf("TCP to %s after the fallback: %v", to, err)
		}
		if took := time.Since(begin); took > ttl {
			t.Errorf("first connection to %s took %s, want the packet that waited to go out at once", to, took)
		}
		if seen := wire(); seen.Leaks == 0 {
			t.Error("wire does not show the payload in clear")
		}
		status := w.A.Node.Status()
		if len(status.Soft) == 0 || status.Soft[0].Rule != ruleID {
			t.Errorf("status shows soft associations %+v, want one of rule %q", status.Soft, ruleID)
		}
	}
	asked := len(k.Acquired())
	eventually(t, "the soft associations have ended", func() bool { return len(w.A.Node.Status().Soft) == 0 })
	if err := w.A.TryTCP(netip.AddrPortFrom(w.B.V4, 7), long); err != nil {
		t.Errorf("TCP after the end of the first soft association: %v", err)
	}
	if n := len(k.Acquired()); n != asked+1 {
		t.Errorf("a asked %d times after the end of the soft association, want once", n-asked)
	}
}

// fallBackIsGranted: Fallback for a rule that does not allow it is an error, and nothing passes.
func fallBackIsGranted(t *testing.T, w *World) {
	w.A.SetPolicy(t, requireAll())
	w.B.SetPolicy(t, policy())
	w.B.EchoTCP(t, 7)
	refused := make(chan error, 16)
	w.NewKeyer(t, func(from *Peer, f ike.Flow) *Pair {
		refused <- from.Node.Fallback(f, time.Minute)
		return nil
	})
	wire := w.Watch(t)
	if err := w.A.TryTCP(netip.AddrPortFrom(w.B.V4, 7), short); err == nil {
		t.Error("TCP went through in clear although the rule has no fallback")
	}
	wire().wantNothing(t)
	if err := <-refused; err == nil {
		t.Error("Fallback returned no error for a rule that does not allow it")
	}
}

// refuse: what waits for a refused flow is dropped, and a later packet asks again.
func refuse(t *testing.T, w *World) {
	w.A.SetPolicy(t, requireAll(soft))
	w.B.SetPolicy(t, policy())
	k := w.NewKeyer(t, func(from *Peer, f ike.Flow) *Pair {
		if err := from.Node.Refuse(f); err != nil {
			t.Error(err)
		}
		return nil
	})
	wire := w.Watch(t)
	eventually(t, "a asked for security a second time", func() bool {
		_ = w.A.TryUDP(netip.AddrPortFrom(w.B.V4, 9), 100, 50*time.Millisecond) // it is to be lost
		return len(k.Acquired()) >= 2
	})
	wire().wantNothing(t)
}

// softEndsWithAnSA: an SA replaces a soft association at once.
func softEndsWithAnSA(t *testing.T, w *World) {
	w.A.SetPolicy(t, requireAll(soft))
	w.B.SetPolicy(t, requireAll(soft, inpass))
	w.B.EchoUDP(t, netip.AddrPortFrom(w.B.V4, 9))
	asked := make(chan ike.Flow, 16)
	w.NewKeyer(t, func(from *Peer, f ike.Flow) *Pair {
		if err := from.Node.Fallback(f, time.Minute); err != nil {
			t.Error(err)
		}
		if from == w.A {
			asked <- f
		}
		return nil
	})
	to := netip.AddrPortFrom(w.B.V4, 9)
	if err := w.A.TryUDP(to, 100, long); err != nil {
		t.Fatalf("UDP in clear: %v", err)
	}
	pair, err := w.NewPair(w.A, <-asked, Options{Mode: sa.Transport, Encap: true, Rule: [2]string{ruleID, ruleID}})
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Install(); err != nil {
		t.Fatal(err)
	}
	wire := w.Watch(t)
	if err := w.A.TryUDP(to, 100, long); err != nil {
		t.Errorf("UDP through the SA: %v", err)
	}
	wire().wantProtected(t)
}

// discovers: clear at once with a negotiation in parallel; once protected, never clear again.
func discovers(t *testing.T, w *World) {
	w.A.SetPolicy(t, requireAll(discover))
	w.B.SetPolicy(t, respondOnly())
	w.B.EchoUDP(t, netip.AddrPortFrom(w.B.V4, 9))
	asked := make(chan ike.Flow, 16)
	w.NewKeyer(t, func(_ *Peer, f ike.Flow) *Pair {
		asked <- f
		return nil
	})
	to := netip.AddrPortFrom(w.B.V4, 9)
	wire := w.Watch(t)
	begin := time.Now()
	if err := w.A.TryUDP(to, 100, long); err != nil {
		t.Fatalf("UDP in clear during discovery: %v", err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("first packet took %s, want it to go out at once", took)
	}
	if seen := wire(); seen.Leaks == 0 {
		t.Error("wire does not show the payload in clear")
	}
	flow := <-asked
	pair, err := w.NewPair(w.A, flow, Options{Mode: sa.Transport, Encap: true, Rule: [2]string{ruleID, ""}})
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Install(); err != nil {
		t.Fatal(err)
	}
	wire = w.Watch(t)
	if err := w.A.TryUDP(to, 100, long); err != nil {
		t.Errorf("UDP through the SA: %v", err)
	}
	wire().wantProtected(t)
	if err := pair.Remove(); err != nil {
		t.Fatal(err)
	}
	wire = w.Watch(t)
	if err := w.A.TryUDP(to, 100, short); err == nil {
		t.Error("UDP went through after the SA was gone, want it held: a flow once protected never goes back")
	}
	wire().wantNothing(t)
	if err := w.A.Node.Fallback(flow, time.Minute); err == nil {
		t.Error("Fallback of a flow that was protected once returned no error")
	}
}

// defaultResponse: an SA that no filter asks for protects both directions while it lives, and clear traffic of its flow
// is no longer accepted.
func defaultResponse(t *testing.T, w *World) {
	w.A.SetPolicy(t, respondOnly())
	w.B.SetPolicy(t, respondOnly())
	w.B.EchoTCP(t, 7)
	to := netip.AddrPortFrom(w.B.V4, 7)
	if err := w.A.TryTCP(to, long); err != nil {
		t.Fatalf("TCP in clear without an SA: %v", err)
	}
	flow := ike.Flow{Local: w.A.V4, Remote: w.B.V4, LocalTS: whole(w.A.V4), RemoteTS: whole(w.B.V4)}
	pair, err := w.NewPair(w.A, flow, Options{Mode: sa.Transport})
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Install(); err != nil {
		t.Fatal(err)
	}
	wire := w.Watch(t)
	if err := w.A.TryTCP(to, long); err != nil {
		t.Errorf("TCP through the SA of the default response: %v", err)
	}
	wire().wantProtected(t)
	next, err := pair.Rekey(w)
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Remove(); err != nil {
		t.Fatal(err)
	}
	wire = w.Watch(t)
	if err := w.A.TryTCP(to, long); err != nil {
		t.Errorf("TCP after the rekey: %v", err)
	}
	wire().wantProtected(t)

	// a forgets the SA and speaks clear; b must not accept it.
	if err := w.A.Node.Remove(next.FromEnd.In.SPI); err != nil {
		t.Fatal(err)
	}
	if err := w.A.TryTCP(to, short); err == nil {
		t.Error("clear TCP was accepted for a flow that an SA protects")
	}
	if err := w.B.Node.Remove(next.ToEnd.In.SPI); err != nil {
		t.Fatal(err)
	}
	if err := w.A.TryTCP(to, long); err != nil {
		t.Errorf("TCP in clear after the SAs are gone: %v", err)
	}
}

// defaultResponseOfPorts: the SA covers one port; others stay in clear.
func defaultResponseOfPorts(t *testing.T, w *World) {
	w.A.SetPolicy(t, respondOnly())
	w.B.SetPolicy(t, respondOnly())
	w.B.EchoTCP(t, 7)
	w.B.EchoTCP(t, 8)
	for _, v6 := range []bool{false, true} {
		local, remote := w.A.V4, w.B.V4
		if v6 {
			local, remote = w.A.V6, w.B.V6
		}
		flow := ike.Flow{Local: local, Remote: remote,
			LocalTS:  sa.Selector{Protocol: 6, From: local, To: local, PortTo: 65535},
			RemoteTS: sa.Selector{Protocol: 6, From: remote, To: remote, PortFrom: 7, PortTo: 7},
		}
		pair, err := w.NewPair(w.A, flow, Options{Mode: sa.Transport})
		if err != nil {
			t.Fatal(err)
		}
		if err := pair.Install(); err != nil {
			t.Fatal(err)
		}
		wire := w.Watch(t)
		if err := w.A.TryTCP(netip.AddrPortFrom(remote, 7), long); err != nil {
			t.Errorf("TCP to %s port 7 through the SA: %v", remote, err)
		}
		wire().wantProtected(t)
		wire = w.Watch(t)
		if err := w.A.TryTCP(netip.AddrPortFrom(remote, 8), long); err != nil {
			t.Errorf("TCP to %s port 8 beside the SA: %v", remote, err)
		}
		if seen := wire(); seen.ESP > 0 || seen.Leaks == 0 {
			t.Errorf("wire shows %d ESP packets and the payload %d times, want port 8 in clear", seen.ESP, seen.Leaks)
		}
	}
}

// groups: what the policy wants protected is not sent to multicast and broadcast addresses.
func groups(t *testing.T, w *World) {
	w.A.Facts.Broadcasts = []netip.Addr{netip.MustParseAddr("10.61.0.255")}
	w.A.SetPolicy(t, requireAll(soft, inpass))
	w.B.SetPolicy(t, policy())
	k := w.NewKeyer(t, func(*Peer, ike.Flow) *Pair { return nil })
	w.A.mustRun(t, "ip", "route", "add", "224.0.0.0/4", "dev", "eth0")
	wire := w.Watch(t)
	for _, to := range []string{"239.1.2.3", "10.61.0.255"} {
		_, _ = w.A.Run("ping", "-b", "-c", "1", "-W", "0.2", to) // it is to be lost
	}
	wire().wantNothing(t)
	if flows := k.Acquired(); len(flows) > 0 {
		t.Errorf("backend asked for a negotiation with a group: %+v", flows)
	}
}

// exemptions: neighbour discovery and the break-glass port work under a policy that blocks everything.
func exemptions(t *testing.T, w *World) {
	blockAll := policy(rule(ruleID, spd.FilterAction{Action: spd.ActionBlock}, everything()))
	blockAll.Exemptions.BreakGlassTCP = []uint16{22}
	w.A.SetPolicy(t, policy())
	w.B.SetPolicy(t, blockAll)
	w.B.EchoTCP(t, 22)
	w.B.EchoTCP(t, 23)
	for _, to := range addresses(w.B) {
		if err := w.A.TryTCP(netip.AddrPortFrom(to, 22), long); err != nil {
			t.Errorf("TCP to the break-glass port of %s: %v", to, err)
		}
		if err := w.A.TryTCP(netip.AddrPortFrom(to, 23), short); err == nil {
			t.Errorf("TCP to port 23 of %s went through a policy that blocks everything", to)
		}
	}
	w.B.EchoTCP(t, 9)
	if err := w.B.TryTCP(netip.MustParseAddrPort("127.0.0.1:9"), long); err != nil {
		t.Errorf("TCP over loopback: %v", err)
	}
}
