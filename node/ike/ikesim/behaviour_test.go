package ikesim

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

func count(w *World, node, what string) int {
	n := 0
	for line := range strings.Lines(story(w)) {
		if strings.Contains(line, node) && strings.Contains(line, what) {
			n++
		}
	}
	return n
}

func results[A ike.Action](n *Node) []A {
	var list []A
	for _, r := range n.Results {
		if a, ok := r.(A); ok {
			list = append(list, a)
		}
	}
	return list
}

var calm = Faults{Delay: 5 * time.Millisecond}

func TestOrderedAuthentication(t *testing.T) {
	w, a, b := pair(1, calm, certAuth, func(r *ike.Rule) { r.Auth = []spd.Auth{certAuth, pskAuth} })
	c := b.Config
	c.Rules = slices.Clone(c.Rules)
	c.Rules[0].Auth = []spd.Auth{pskAuth}
	b.Do(ike.Reconfigure{Config: c})
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(2 * time.Second)
	mirrored(t, w, a, b, 1)
	if got := a.Engine.Snapshot().SAs[0].Auth; got != "preshared key" {
		t.Errorf("want the second entry of the list, have %s", got)
	}
	if f := a.Engine.Snapshot().Failures; len(f) != 1 || f[0].Reason != ike.ReasonAuthRefused {
		t.Errorf("the failure of the first entry is not remembered: %+v", f)
	}
}

func TestBadSignature(t *testing.T) {
	w := New(1, calm)
	w.Tracing = true
	a := w.Add("a.example", addrA, config("a.example", addrA, meshRule(addrA, certAuth)))
	b := w.Add("bad.example", addrB, config("bad.example", addrB, meshRule(addrB, certAuth)))
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(10 * time.Second)
	r := results[ike.Refuse](a)
	if len(r) != 1 || r[0].Reason != ike.ReasonAuthFailed {
		t.Fatalf("want Refuse for %s, have %+v", ike.ReasonAuthFailed, a.Results)
	}
	// The responder was told (RFC 7296 2.21.2).
	if len(a.SADB)+len(b.SADB) != 0 || len(b.Downs) != 1 || b.Downs[0].Reason != ike.ReasonAuthRefused {
		t.Errorf("the responder still believes: %+v\n%s", b.Downs, story(w))
	}
}

func TestInvalidKE(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	second := ikeOffer
	second.Group = proposal.GroupECP256
	ca, cb := a.Config, b.Config
	ca.Offers = []proposal.IKE{ikeOffer, second}
	cb.Offers = []proposal.IKE{second}
	a.Do(ike.Reconfigure{Config: ca})
	b.Do(ike.Reconfigure{Config: cb})
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
	if n := count(w, "a.example", "INVALID_KE_PAYLOAD"); n != 1 {
		t.Errorf("want one INVALID_KE_PAYLOAD, have %d", n)
	}
	a.rekeyIKE()
	w.Run(2 * time.Second)
	mirrored(t, w, a, b, 1)
}

func TestPFS(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, func(r *ike.Rule) {
		r.PFS = true
		second := espOffer
		second.Group = proposal.GroupECP384
		r.Offers = []proposal.ESP{espOffer, second}
	})
	c := b.Config
	c.Rules = slices.Clone(c.Rules)
	c.Rules[0].Offers = slices.Clone(c.Rules[0].Offers[1:])
	b.Do(ike.Reconfigure{Config: c})
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
	a.rekeyChild()
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
	if g := a.SADB[a.child()].Child.Suite.Group; g != proposal.GroupECP384 {
		t.Errorf("want a fresh key exchange with the only common group, have group %d\n%s", g, story(w))
	}
}

func TestFragmentation(t *testing.T) {
	w, a, b := pair(1, Faults{Delay: 5 * time.Millisecond, Jitter: 20 * time.Millisecond, Duplicate: 0.2}, certAuth, nil)
	for _, n := range []*Node{a, b} {
		c := n.Config
		c.Chain = [][]byte{bytes.Repeat([]byte{1}, 3000), bytes.Repeat([]byte{2}, 2500)}
		n.Do(ike.Reconfigure{Config: c})
	}
	var largest int
	w.Hold(func(*Node, *Node, uint8, bool) bool { return false })
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	for range 100 {
		w.Run(20 * time.Millisecond)
		for _, e := range w.pending {
			if d, ok := e.ev.(ike.Datagram); ok {
				largest = max(largest, len(d.Bytes))
			}
		}
	}
	w.Run(5 * time.Second)
	mirrored(t, w, a, b, 1)
	if largest > 1228 || largest < 1000 {
		t.Errorf("the largest datagram has %d octets", largest)
	}
	// A lost fragment brings all of them again.
	w2, a2, b2 := pair(3, Faults{Delay: 5 * time.Millisecond, Loss: 0.25}, certAuth, nil)
	for _, n := range []*Node{a2, b2} {
		c := n.Config
		c.Chain = [][]byte{bytes.Repeat([]byte{1}, 3000)}
		n.Do(ike.Reconfigure{Config: c})
	}
	a2.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w2.Run(80 * time.Second)
	w2.Faults = calm
	w2.Run(40 * time.Second)
	mirrored(t, w2, a2, b2, 1)
}

func TestCookies(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	// Six peers of one address begin and never go on: the fifth and later get a cookie.
	for i := range 12 {
		from := netip.AddrPortFrom(addrC, uint16(1000+i))
		b.Do(ike.Datagram{Local: netip.AddrPortFrom(addrB, 500), Remote: from, Bytes: initRequest(uint64(i+1), nil)})
		w.Run(time.Millisecond)
	}
	v := b.Engine.Snapshot()
	if len(v.SAs) != 4 || v.Counters["cookies_sent"] != 8 {
		t.Fatalf("want 4 half-open SAs and 8 cookies, have %d and %d", len(v.SAs), v.Counters["cookies_sent"])
	}
	// Another address is not concerned; sixty more are needed for everybody.
	for i := range 60 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 500)
		b.Do(ike.Datagram{Local: netip.AddrPortFrom(addrB, 500), Remote: from, Bytes: initRequest(uint64(i+100), nil)})
		w.Run(time.Millisecond)
	}
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	if count(w, "a.example", "N(COOKIE)") < 2 {
		t.Errorf("a is not asked for a cookie\n%s", story(w))
	}
	mirroredNow(t, a, b)
	// Half-open SAs do not stay.
	w.Run(30 * time.Second)
	if n := len(b.Engine.Snapshot().SAs); n != 1 {
		t.Errorf("%d SAs are left after the time of half-open ones", n)
	}
	verify(t, w)
}

func mirroredNow(t *testing.T, a, b *Node) {
	t.Helper()
	if len(a.SADB) != 1 || len(b.SADB) != 1 {
		t.Fatalf("want one Child SA on both sides, have %d and %d", len(a.SADB), len(b.SADB))
	}
}

// initRequest is a first message with valid contents.
func initRequest(spi uint64, cookie []byte) []byte {
	m := wire.Message{
		Header: wire.Header{SPIi: wire.SPI(spi), Exchange: wire.IKESAInit, Flags: wire.FlagInitiator},
		Payloads: []wire.Payload{
			wire.SAFromIKE([]proposal.IKE{ikeOffer}, 0),
			wire.KE{Group: ikeOffer.Group, Data: make([]byte, 32)},
			wire.Nonce{Data: bytes.Repeat([]byte{byte(spi)}, 32)},
		},
	}
	if cookie != nil {
		m.Payloads = append([]wire.Payload{wire.Notify{Type: wire.NotifyCookie, Data: cookie}}, m.Payloads...)
	}
	return wire.AppendMessage(nil, m)
}

func TestGarbageGetsNoAnswer(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	from := netip.AddrPortFrom(addrC, 500)
	send := func(octets []byte) int {
		before := len(w.pending)
		actions := b.Engine.Step(w.Now, ike.Datagram{Local: netip.AddrPortFrom(addrB, 500), Remote: from, Bytes: octets})
		n := 0
		for _, x := range actions {
			if s, ok := x.(ike.Send); ok {
				n++
				if len(s.Bytes) > len(octets) {
					t.Errorf("the answer of %d octets is longer than the %d that came", len(s.Bytes), len(octets))
				}
			}
		}
		_ = before
		return n
	}
	valid := initRequest(7, nil)
	for name, octets := range map[string][]byte{
		"nothing":             {},
		"short":               valid[:20],
		"wrong length":        append(bytes.Clone(valid), 0),
		"IKEv1":               replace(valid, 17, 0x10),
		"response":            replace(valid, 19, 0x20),
		"zero initiator SPI":  initRequest(0, nil),
		"other exchange":      replace(valid, 18, 35),
		"message ID not zero": replace(valid, 23, 1),
		"response to unknown": replace(replace(valid, 15, 9), 19, 0x28),
	} {
		if n := send(octets); n != 0 {
			t.Errorf("%s: %d answers", name, n)
		}
	}
	if n := send(replace(valid, 17, 0x30)); n != 1 {
		t.Errorf("major version 3: want one answer, have %d", n)
	}
	if n := send(replace(valid, 15, 9)); n != 0 {
		t.Errorf("unknown SPI: want no second answer within a second, have %d", n)
	}
	w.Run(2 * time.Second)
	if n := send(replace(valid, 15, 9)); n != 1 {
		t.Errorf("unknown SPI: want one answer, have %d", n)
	}
	// What the SAs of others are concerned, nothing has changed.
	mirrored(t, w, a, b, 1)
}

func replace(b []byte, at int, with byte) []byte {
	b = bytes.Clone(b)
	b[at] = with
	return b
}

func TestForcedEncapsulation(t *testing.T) {
	for _, forced := range []string{"initiator", "responder"} {
		w, a, b := pair(1, calm, pskAuth, nil)
		n := map[string]*Node{"initiator": a, "responder": b}[forced]
		c := n.Config
		c.ForceEncap = true
		n.Do(ike.Reconfigure{Config: c})
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Second)
		mirrored(t, w, a, b, 1)
		for _, x := range []*Node{a, b} {
			i := x.SADB[x.child()]
			if !i.Child.Encap || i.Child.Local.Port() != 4500 || i.Child.Remote.Port() != 4500 {
				t.Errorf("forced by the %s: %s has encapsulation %v between %s and %s", forced, x.Name, i.Child.Encap, i.Child.Local, i.Child.Remote)
			}
		}
		a.rekeyIKE()
		w.Run(time.Second)
		b.rekeyChild()
		w.Run(time.Second)
		mirrored(t, w, a, b, 1)
	}
}

func TestLiveness(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(5 * time.Minute)
	mirrored(t, w, a, b, 1)
	if count(w, "a.example", "send INFORMATIONAL request") == 0 {
		t.Error("nobody looks whether the other side is alive")
	}
	b.Off = true
	w.Run(3 * time.Minute)
	if len(a.SADB) != 0 || len(a.Downs) != 1 || a.Downs[0].Reason != ike.ReasonLiveness || a.Downs[0].Fault != ike.FaultNetwork {
		t.Errorf("want one Down for %s, have %+v", ike.ReasonLiveness, a.Downs)
	}
}

func TestRestartOfThePeer(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	b.Crash()
	b.Do(ike.Acquire{Flow: flow(addrB, addrA)})
	w.Run(2 * time.Second)
	mirrored(t, w, a, b, 1)
	if len(a.Downs) != 1 || a.Downs[0].Reason != ike.ReasonInitialContact {
		t.Errorf("want one Down for %s, have %+v", ike.ReasonInitialContact, a.Downs)
	}
}

func TestReconfigure(t *testing.T) {
	start := func() (*World, *Node, *Node) {
		w, a, b := pair(1, calm, pskAuth, nil)
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Second)
		return w, a, b
	}
	t.Run("what did not change goes on", func(t *testing.T) {
		w, a, b := start()
		c := a.Config
		c.Rules = slices.Clone(c.Rules)
		c.Rules[0].Fallback.Mode = spd.FallbackWait
		c.Rules[0].Pairs = append(slices.Clone(c.Rules[0].Pairs), ike.Pair{Local: host(addrC), Remote: everything()})
		before := a.child()
		a.Do(ike.Reconfigure{Config: c})
		w.Run(5 * time.Second)
		mirrored(t, w, a, b, 1)
		if a.child() != before {
			t.Error("the Child SA did not survive")
		}
	})
	for name, change := range map[string]func(c *ike.Config){
		"rule gone":      func(c *ike.Config) { c.Rules = nil },
		"rule changed":   func(c *ike.Config) { c.Rules[0].Lifetime.Time = time.Minute },
		"offers changed": func(c *ike.Config) { c.Rules[0].Offers = []proposal.ESP{{Encryption: proposal.EncrChaCha20Poly1305}} },
		"other secret":   func(c *ike.Config) { c.Rules[0].Auth = []spd.Auth{certAuth} },
		"other suite": func(c *ike.Config) {
			c.Offers = []proposal.IKE{{Encryption: proposal.EncrChaCha20Poly1305, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, b := start()
			c := a.Config
			c.Rules = slices.Clone(c.Rules)
			change(&c)
			a.Do(ike.Reconfigure{Config: c})
			w.Run(5 * time.Second)
			verify(t, w)
			if len(a.SADB)+len(b.SADB) != 0 {
				t.Errorf("a Child SA is left\n%s", story(w))
			}
			if !strings.Contains(story(w), string(ike.ReasonPolicyChanged)) {
				t.Error("the reason is not the policy")
			}
		})
	}
}

func TestShutdown(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	a.Do(ike.Shutdown{})
	w.Run(time.Second)
	if !a.Engine.Idle() || len(a.SADB)+len(b.SADB) != 0 {
		t.Errorf("the end is not complete\n%s", story(w))
	}
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	if r := results[ike.Refuse](a); len(r) != 1 || r[0].Reason != ike.ReasonShutdown {
		t.Errorf("want Refuse for %s, have %+v", ike.ReasonShutdown, a.Results)
	}
}

func TestDefaultResponse(t *testing.T) {
	w := New(1, calm)
	w.Tracing = true
	a := w.Add("a.example", addrA, config("a.example", addrA, meshRule(addrA, pskAuth)))
	cb := config("b.example", addrB)
	cb.DefaultResponse = &ike.Rule{Mode: sa.Transport, Offers: []proposal.ESP{espOffer}, Auth: []spd.Auth{pskAuth}}
	b := w.Add("b.example", addrB, cb)
	f := flow(addrA, addrB)
	f.RemoteTS = everything()
	a.Do(ike.Acquire{Flow: f})
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
	i := b.SADB[b.child()].Child
	if !i.DefaultResponse || i.Rule != "" || i.Idle != 5*time.Minute || fmt.Sprint(i.LocalTS) != fmt.Sprint([]sa.Selector{host(addrB)}) {
		t.Errorf("not a Child SA of the default response: %+v", i)
	}
	if got := a.SADB[a.child()].Child.RemoteTS; !slices.Equal(got, []sa.Selector{host(addrB)}) {
		t.Errorf("the initiator was not narrowed: %v", got)
	}
	b.rekeyChild()
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
}

func TestChildRefusedKeepsTheIKESA(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	c := b.Config
	c.Rules = slices.Clone(c.Rules)
	c.Rules[0].Offers = []proposal.ESP{{Encryption: proposal.EncrChaCha20Poly1305}}
	b.Do(ike.Reconfigure{Config: c})
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	r := results[ike.Refuse](a)
	if len(r) != 1 || r[0].Reason != ike.ReasonNoProposal || a.Ups != 1 || len(a.Downs) != 0 {
		t.Fatalf("want the IKE SA up and the flow refused for %s, have %+v", ike.ReasonNoProposal, a.Results)
	}
	// The rule fits again: the IKE SA that is there is used.
	c.Rules = slices.Clone(c.Rules)
	c.Rules[0].Offers = []proposal.ESP{espOffer}
	b.Do(ike.Reconfigure{Config: c})
	w.Run(3 * time.Second)
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
	if a.Ups != 1 {
		t.Errorf("want one IKE SA, %d have been up", a.Ups)
	}
}

func TestManyFlowsUseOneIKESA(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	for port := range uint16(10) {
		f := flow(addrA, addrB)
		f.LocalTS.Protocol, f.RemoteTS.Protocol = 17, 17
		f.RemoteTS.PortFrom, f.RemoteTS.PortTo = port+1, port+1
		a.Do(ike.Acquire{Flow: f})
		a.Do(ike.Acquire{Flow: f})
	}
	w.Run(5 * time.Second)
	mirrored(t, w, a, b, 10)
	if a.Ups != 1 {
		t.Errorf("want one IKE SA, %d have been up", a.Ups)
	}
}

func TestLifetimes(t *testing.T) {
	w, a, b := pair(1, Faults{Delay: 20 * time.Millisecond}, pskAuth, func(r *ike.Rule) { r.Lifetime.Time = 30 * time.Second })
	for _, n := range []*Node{a, b} {
		n.expire = true
		c := n.Config
		c.IKELifetime = 70 * time.Second
		n.Do(ike.Reconfigure{Config: c})
	}
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	for range 600 {
		w.Run(time.Second)
		if len(a.SADB) == 0 || len(b.SADB) == 0 {
			t.Fatalf("no Child SA at %s\n%s", w.Now.Sub(Start), story(w))
		}
	}
	verify(t, w)
	for _, d := range append(a.Downs, b.Downs...) {
		if d.Reason != ike.ReasonRekeyed {
			t.Errorf("an IKE SA went down for %s %s", d.Reason, d.Detail)
		}
	}
	if a.Ups < 8 {
		t.Errorf("want a rekey of the IKE SA about every minute, have %d in ten minutes", a.Ups-1)
	}
}

func TestInstallFailed(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	b.Do(ike.InstallFailed{SPI: b.child(), Detail: "no room"})
	w.Run(time.Second)
	mirrored(t, w, a, b, 0)
}

func TestPresharedKeyOfAnotherPeer(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	c := b.Config
	c.Rules = slices.Clone(c.Rules)
	c.Rules[0].Auth = []spd.Auth{{Method: spd.AuthPSK, Secret: "shared", RemoteID: "fqdn:another.example"}}
	b.Do(ike.Reconfigure{Config: c})
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	if f := b.Engine.Snapshot().Failures; len(f) != 1 || f[0].Reason != ike.ReasonIDMismatch || f[0].Fault != ike.FaultPeer {
		t.Errorf("the responder has the failures %+v, want %s", f, ike.ReasonIDMismatch)
	}
	if f := a.Engine.Snapshot().Failures; len(f) != 1 || f[0].Reason != ike.ReasonAuthRefused || f[0].Fault != ike.FaultLocal {
		t.Errorf("the initiator has the failures %+v, want %s", f, ike.ReasonAuthRefused)
	}
	verify(t, w)
}
