package ikesim

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// occasion is a point of a conversation where one of the two begins to say whatever it likes.
type occasion struct {
	name      string
	responder bool // the one who listens is the responder, else the initiator
	early     bool // IKE_AUTH is not over: the listener knows nobody yet
	// pending lets the listener begin something with its Child SA or its IKE SA.
	pending func(listener *Node, child sa.SPI, peer ike.IKESPI)
}

var occasions = []occasion{
	{name: "the responder waits for IKE_AUTH", responder: true, early: true},
	{name: "the initiator waits for IKE_AUTH", early: true},
	{name: "the responder has a Child SA", responder: true},
	{name: "the initiator has a Child SA"},
	{name: "the initiator rekeys the Child SA", pending: rekeysChild},
	{name: "the responder rekeys the IKE SA", responder: true, pending: rekeysIKE},
	{name: "the initiator deletes the Child SA", pending: deletesChild},
	{name: "the responder deletes the IKE SA", responder: true, pending: deletesIKE},
}

func rekeysChild(n *Node, child sa.SPI, _ ike.IKESPI) {
	n.Do(ike.ChildExpiring{SPI: child, Limit: ike.LimitSoft})
}

func deletesChild(n *Node, child sa.SPI, _ ike.IKESPI) {
	n.Do(ike.ChildExpiring{SPI: child, Limit: ike.LimitHard})
}
func rekeysIKE(n *Node, _ sa.SPI, of ike.IKESPI)  { n.Do(ike.Rekey{IKE: of}) }
func deletesIKE(n *Node, _ sa.SPI, of ike.IKESPI) { n.Do(ike.Close{IKE: of}) }

// with are the newest IKE SA of a node with another, and its Child SA.
func (n *Node) with(m *Node) (child sa.SPI, of ike.IKESPI) {
	for s := range n.Engine.SAs() {
		if _, remote := s.Addresses(); remote.Addr() != m.Addr {
			continue
		}
		of = ike.IKESPI(s.SPI())
		for c := range s.Each() {
			child = c.In.SPI
		}
	}
	return child, of
}

// The bits of how FuzzSealed's worlds are; the lowest three choose the occasion.
const (
	sealedMobile  = 1 << 3 // gateways in tunnel mode that follow changes of address
	sealedCert    = 1 << 4 // certificates instead of preshared keys
	sealedQuantum = 1 << 5 // an additional key exchange with ML-KEM-768
)

// sealedWorld is a world of two nodes that log their keys, and a third one where the two are a mesh.
func sealedWorld(how byte) (w *World, a, b, c *Node) {
	const seed = 9
	switch {
	case how&sealedMobile != 0:
		w, a, b, _, _ = gateways(seed, calm)
	case how&sealedQuantum != 0:
		w, a, b = exchangingPair(seed, calm, []proposal.KeyExchange{hybridKE}, []proposal.KeyExchange{hybridKE})
	default:
		w, a, b = pair(seed, calm, pskAuth, nil)
		w.oracle = true
		c = w.Add("c.example", addrC, config("c.example", addrC, meshRule(addrC, pskAuth)))
	}
	w.disturbed = true
	for _, n := range w.Nodes {
		n.Config.KeyLog = true
		if how&sealedMobile != 0 {
			n.Config.Mobility = ike.MobilityOn
		}
		if how&sealedCert != 0 {
			n.Config.Rules[0].Auth = []spd.Auth{certAuth}
		}
		n.boot()
	}
	return w, a, b, c
}

// arrange brings a world to its occasion and gives who speaks there, and to whom. heard is what has been said meanwhile,
// and what the speaker would say next.
func arrange(how byte) (x *impostor, bystander *Node, heard *[]heardOf) {
	w, a, b, c := sealedWorld(how)
	o := occasions[int(how&7)]
	x = &impostor{w: w, to: a, from: b, port: 500}
	if o.responder {
		x.to, x.from = b, a
	}
	if c != nil {
		x.to.Do(ike.Acquire{Flow: between(x.to, c)})
		w.Run(time.Second)
		x.to.keyLog = nil
	}
	heard = overheard(w)
	auth := uint8(wire.IKEAuth)
	if o.early {
		w.Hold(messages(auth, !o.responder, x.from))
	}
	a.Do(ike.Acquire{Flow: a.asks(b)})
	w.Run(500 * time.Millisecond)
	for _, m := range *heard {
		if p, ok := wire.Find[wire.Auth](m.payloads, nil); ok && m.from == x.from {
			x.auth = p
		}
	}
	if !o.early && o.pending != nil {
		w.Hold(func(from, _ *Node, _ uint8, _ bool) bool { return from == x.from })
		child, of := x.to.with(x.from)
		o.pending(x.to, child, of)
		w.Run(100 * time.Millisecond)
	}
	for s := range x.to.Engine.SAs() {
		if _, remote := s.Addresses(); remote.Addr() == x.from.Addr {
			x.port = remote.Port()
		}
	}
	x.from.Off = true
	w.DropHeld()
	for k, owner := range w.keys { // the impostor may name the SPIs of what it receives anew
		if owner.node == x.from {
			delete(w.keys, k)
		}
	}
	return x, c, heard
}

// FuzzSealed lets one of two nodes, who has all keys, say whatever the script makes it say: with a protection that is
// right, from before its authentication on, to all that the other one may wait for. The engine does not panic, the
// invariants hold, no Child SA covers what the rule does not allow, those of others stay what they are, and when the peer
// has come to its senses the two meet again.
func FuzzSealed(f *testing.F) {
	seedSealed(f)
	f.Fuzz(func(t *testing.T, script []byte, how byte) {
		if len(script) > 4096 {
			return
		}
		x, bystander, _ := arrange(how)
		w := x.w
		var others sa.SPI
		if bystander != nil {
			others = bystander.child()
		}
		x.say(script)
		w.Run(time.Second)
		for _, i := range x.to.SADB {
			if i.Child.Remote.Addr() == addrC && i.Child.Out.SPI == others {
				continue
			}
			if why := forbidden(x, &i.Child); why != "" {
				t.Fatalf("Child SA %s: %s\n%s", i.Child.In.SPI, why, story(w))
			}
		}
		// The peer is silent, starts anew, and behaves.
		w.Run(10 * time.Minute)
		if why := w.unrest(); why != "" {
			t.Fatalf("no rest: %s\n%s", why, story(w))
		}
		x.from.Off = false
		x.from.Crash()
		x.from.Do(ike.Acquire{Flow: x.from.asks(x.to)})
		x.to.Do(ike.Acquire{Flow: x.to.asks(x.from)})
		w.Run(30 * time.Second)
		if len(x.from.SADB) != 1 {
			t.Fatalf("the two have %d Child SAs\n%s", len(x.from.SADB), story(w))
		}
		if bystander != nil && (bystander.child() != others || len(bystander.SADB) != 1) {
			t.Fatalf("the Child SA with somebody else has gone\n%s", story(w))
		}
		verify(t, w)
	})
}

// forbidden tells why a Child SA with the impostor is not what a rule of its peer allows; "" when it is.
func forbidden(x *impostor, c *sa.Child) string {
	within := func(inner, outer sa.Selector) bool {
		return inner.From.Compare(outer.From) >= 0 && inner.To.Compare(outer.To) <= 0
	}
	r := x.to.rule(c)
	switch {
	case r == nil:
		return "no rule allows it"
	case c.Mode != r.Mode:
		return "its mode is " + c.Mode.String()
	}
	for _, l := range c.LocalTS {
		for _, remote := range c.RemoteTS {
			covered := false
			for _, p := range r.Pairs {
				covered = covered || within(l, p.Local) && within(remote, p.Remote)
			}
			if !covered {
				return "its selectors are wider than the rule's"
			}
			if c.Mode == sa.Transport && !within(remote, host(x.from.Addr)) {
				return "its selectors cover another machine"
			}
		}
	}
	return ""
}

// seedSealed adds what nodes really say at each occasion, and some of what they must not.
func seedSealed(f *testing.F) {
	for how := range byte(64) {
		// What the speaker says by itself is heard in a world where it is left to speak.
		o := occasions[int(how&7)]
		w, a, b, _ := sealedWorld(how)
		heard := overheard(w)
		listener, speaker := a, b
		if o.responder {
			listener, speaker = b, a
		}
		a.Do(ike.Acquire{Flow: a.asks(b)})
		w.Run(time.Second)
		before := len(*heard)
		switch {
		case o.early:
			before = 0
		case o.pending != nil:
			child, of := listener.with(speaker)
			o.pending(listener, child, of)
			w.Run(time.Second)
		default:
			for _, act := range []func(*Node, sa.SPI, ike.IKESPI){rekeysChild, rekeysIKE, deletesChild} {
				child, of := speaker.with(listener)
				act(speaker, child, of)
				w.Run(time.Second)
			}
			if how&sealedMobile != 0 {
				speaker.addresses(netip.MustParseAddr("10.0.0.77"))
				w.Run(time.Second)
			}
			_, of := speaker.with(listener)
			speaker.Do(ike.Close{IKE: of})
			w.Run(time.Second)
		}
		var all []byte
		for _, m := range (*heard)[before:] {
			if m.from == speaker {
				script := scripted(m, listener)
				all = append(all, script...)
				f.Add(script, how)
			}
		}
		f.Add(all, how)
	}
	for how := range byte(8) {
		f.Add([]byte{1 | saidRaw, byte(wire.TypeDelete), 0, 8, 0, 0, 0, 8, 1, 0, 0, 0}, how)                                    // delete the IKE SA
		f.Add([]byte{1 | saidParts, 1, byte(wire.TypeDelete), 0, 8, 3, 4, 0, 1, 0xff, 0xff, 0xff, 0xf2}, how)                   // and the Child SA
		f.Add([]byte{1, 1, byte(wire.TypeNotify), 0, 4, 0, 0, 0x40, 0x00, 1, 0, 7, 20, 1 | saidAgain, 0}, how)                  // INITIAL_CONTACT, liveness
		f.Add([]byte{1, 1, 46, 0, 4, 0, 0, 0, 0, 0 | saidOldest, 1, 99, 0, 0, 0 | saidResponse, 1, 41, 0, 4, 0, 0, 0, 14}, how) // unknown, NO_PROPOSAL_CHOSEN
	}
}
