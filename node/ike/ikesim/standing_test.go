package ikesim

import (
	"fmt"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// deny lets a node learn that a peer is not to be believed any more.
func deny(n *Node, name string) {
	n.Denied = map[string]bool{name: true}
	n.Do(ike.Recheck{})
}

// sasWith counts the IKE SAs of a node with a peer.
func sasWith(n *Node, peer string) int {
	count := 0
	for _, s := range n.Engine.Snapshot().SAs {
		if s.Peer == peer {
			count++
		}
	}
	return count
}

func TestDeniedPeerIsCutAtOnce(t *testing.T) {
	w, a, b := pair(1, calm, certAuth, nil)
	c := w.Add("c.example", addrC, config("c.example", addrC, meshRule(addrC, certAuth)))
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	a.Do(ike.Acquire{Flow: flow(addrA, addrC)})
	w.Run(2 * time.Second)
	if len(a.SADB) != 2 || len(b.SADB) != 1 || len(c.SADB) != 1 {
		t.Fatalf("want Child SAs with both peers, have %d\n%s", len(a.SADB), story(w))
	}
	deny(a, "b.example")
	w.Run(0) // the verdict comes in the same moment
	if len(a.SADB) != 1 || sasWith(a, "c.example") != 1 {
		t.Fatalf("the denied peer still has its Child SA, or another lost its own: %d left\n%s", len(a.SADB), story(w))
	}
	w.Run(time.Second)
	if len(b.SADB) != 0 || len(c.SADB) != 1 {
		t.Fatalf("the denied peer was not told, or another was: %d and %d\n%s", len(b.SADB), len(c.SADB), story(w))
	}
	// It does not come back, from either side.
	b.Do(ike.Acquire{Flow: flow(addrB, addrA)})
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(10 * time.Second)
	if len(b.SADB) != 0 || len(a.SADB) != 1 || sasWith(a, "b.example")+sasWith(b, "a.example") != 0 {
		t.Errorf("the denied peer is back\n%s", story(w))
	}
	found := false
	for _, f := range a.Engine.Snapshot().Failures {
		found = found || f.Reason == ike.ReasonPeerDenied
	}
	if !found {
		t.Errorf("no failure tells that the peer is not admitted: %+v", a.Engine.Snapshot().Failures)
	}
	verify(t, w)
}

// Whatever is under way when a node learns that a peer is denied, nothing of that peer is left.
func TestDenialWinsEveryRace(t *testing.T) {
	faults := Faults{Delay: 5 * time.Millisecond, Jitter: 5 * time.Millisecond, JobTime: 40 * time.Millisecond}
	for seed := range uint64(150) {
		w, a, b := pair(seed, faults, certAuth, nil)
		b.Do(ike.Acquire{Flow: flow(addrB, addrA)})
		if seed%3 > 0 { // else in the middle of the handshake
			w.Run(2 * time.Second)
			from := a
			if seed%3 == 2 {
				from = b
			}
			for _, s := range from.Engine.Snapshot().SAs {
				from.Do(ike.Rekey{IKE: ike.IKESPI(s.SPI)})
			}
		}
		w.Run(time.Duration(seed) * time.Millisecond)
		deny(a, "b.example")
		w.Run(time.Second)
		if len(a.SADB) != 0 {
			t.Fatalf("seed %d: the denied peer still has %d Child SAs\n%s", seed, len(a.SADB), story(w))
		}
		w.Run(5 * time.Minute) // a delete may wait for an answer that does not come
		if len(a.SADB)+len(b.SADB) != 0 || sasWith(a, "b.example") != 0 {
			t.Fatalf("seed %d: %d and %d Child SAs are left\n%s", seed, len(a.SADB), len(b.SADB), story(w))
		}
		verify(t, w)
	}
}

// A preshared key has no standing that could change.
func TestRecheckLeavesPresharedKeysAlone(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(2 * time.Second)
	deny(a, "b.example")
	w.Run(2 * time.Second)
	mirrored(t, w, a, b, 1)
}

func TestNoSAOutlivesTheCertificate(t *testing.T) {
	for _, initiator := range []string{"the holder of the certificate", "its peer"} {
		w, a, b := pair(1, calm, certAuth, nil)
		end := w.Now.Add(90 * time.Minute)
		a.Expiry = map[string]time.Time{"b.example": end}
		from, to := b, flow(addrB, addrA)
		if initiator == "its peer" {
			from, to = a, flow(addrA, addrB)
		}
		from.Do(ike.Acquire{Flow: to})
		w.Run(time.Second)
		for _, s := range a.Engine.Snapshot().SAs { // new keys prove no identity
			a.Do(ike.Rekey{IKE: ike.IKESPI(s.SPI)})
		}
		w.Run(end.Sub(w.Now) - 2*time.Second)
		if len(a.SADB) == 0 {
			t.Fatalf("begun by %s: the Child SA ended before the certificate\n%s", initiator, story(w))
		}
		w.Run(2 * time.Second)
		if len(a.SADB) != 0 {
			t.Fatalf("begun by %s: the Child SA outlives the certificate\n%s", initiator, story(w))
		}
		w.Run(time.Minute)
		if len(b.SADB) != 0 || sasWith(a, "b.example") != 0 {
			t.Errorf("begun by %s: something is left\n%s", initiator, story(w))
		}
		verify(t, w)
	}
}

// covered reports whether each side has an outbound SA in use whose inbound half the other has.
func covered(a, b *Node) error {
	for _, n := range [][2]*Node{{a, b}, {b, a}} {
		var newest *Installed
		for _, i := range n[0].SADB {
			if i.Out && i.Switched > 0 && (newest == nil || i.Switched > newest.Switched) {
				newest = i
			}
		}
		if newest == nil {
			return fmt.Errorf("%s has no Child SA in use", n[0].Name)
		}
		if peer := n[1].SADB[newest.Child.Out.SPI]; peer == nil || !peer.In {
			return fmt.Errorf("%s sends by %s, which %s does not have", n[0].Name, newest.Child.Out.SPI, n[1].Name)
		}
	}
	return nil
}

// A new authentication takes over without a moment in which packets are lost (RFC 7296 2.8.3).
func TestReauthenticationMakesBeforeItBreaks(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(w *World, a, b *Node)
	}{
		{"the initiator's policy", func(_ *World, a, _ *Node) { a.Config.Reauthentication = time.Hour }},
		{"AUTH_LIFETIME of the responder (RFC 4478)", func(_ *World, _, b *Node) { b.Config.Reauthentication = time.Hour }},
		{"the peer's certificate is renewed", func(w *World, a, _ *Node) {
			a.Expiry = map[string]time.Time{"b.example": w.Now.Add(time.Hour)}
		}},
		{"the own certificate is renewed", func(w *World, a, _ *Node) { a.Config.NotAfter = w.Now.Add(time.Hour) }},
	} {
		for seed := range uint64(5) {
			faults := Faults{Delay: 5 * time.Millisecond, JobTime: 20 * time.Millisecond}
			if seed > 0 {
				faults.Loss, faults.Jitter = 0.2, 10*time.Millisecond
			}
			w, a, b := pair(seed, faults, certAuth, nil)
			c.setup(w, a, b)
			a.Do(ike.Reconfigure{Config: a.Config})
			b.Do(ike.Reconfigure{Config: b.Config})
			for from := uint16(1); from <= 3; from++ { // three Child SAs
				f := flow(addrA, addrB)
				f.LocalTS.Protocol, f.RemoteTS.Protocol = 6, 6
				f.RemoteTS.PortFrom, f.RemoteTS.PortTo = from, from
				a.Do(ike.Acquire{Flow: f})
			}
			w.Run(5 * time.Minute)
			first := a.Engine.Snapshot().SAs[0].SPI
			children := len(a.SADB)
			if a.Expiry != nil {
				a.Expiry["b.example"] = w.Now.Add(24 * time.Hour)
			}
			if !a.Config.NotAfter.IsZero() {
				a.Config.NotAfter = w.Now.Add(24 * time.Hour)
				a.Do(ike.Reconfigure{Config: a.Config})
			}
			for end := w.Now.Add(65 * time.Minute); w.Now.Before(end); {
				w.Run(20 * time.Millisecond)
				if err := covered(a, b); err != nil {
					t.Fatalf("%s, seed %d, at %s: %v\n%s", c.name, seed, w.Now.Sub(Start), err, story(w))
				}
			}
			w.Faults.Loss = 0
			w.Run(5 * time.Minute)
			if s := a.Engine.Snapshot(); len(s.SAs) != 1 || s.SAs[0].SPI == first || s.Counters["ike_rekeyed"] != 0 {
				t.Fatalf("%s, seed %d: want one other IKE SA that no rekey made, have %+v\n%s", c.name, seed, s.SAs, story(w))
			}
			mirrored(t, w, a, b, children)
		}
	}
}
