package ikesim

import (
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// withTokens is two nodes with a Child SA that have given each other crash detection tokens.
func withTokens(t *testing.T) (w *World, a, b *Node) {
	t.Helper()
	w, a, b = pair(1, calm, pskAuth, nil)
	for _, n := range []*Node{a, b} {
		n.Config.CrashSecret = sa.NewSecret([]byte("the crash secret of " + n.Name))
		n.boot()
	}
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
	return w, a, b
}

// A peer that was restarted without a word is noticed by its first answer to ESP, not after minutes of silence (RFC 6290);
// the same after a rekey, which changes the SPIs and so the tokens.
func TestQuickCrashDetection(t *testing.T) {
	for _, rekeyed := range []bool{false, true} {
		w, a, b := withTokens(t)
		if rekeyed {
			b.rekeyIKE()
			w.Run(2 * time.Second)
		}
		out := a.SADB[a.child()].Child.Out.SPI
		b.Crash()
		b.Do(ike.UnknownESP{SPI: out, Local: a.SADB[a.child()].Child.Remote, Remote: a.SADB[a.child()].Child.Local, Octets: 100})
		w.Run(2 * time.Second)
		if len(a.SADB) != 0 || len(a.Downs) == 0 || a.Downs[len(a.Downs)-1].Reason != ike.ReasonPeerRestarted {
			t.Errorf("rekeyed %v: want the IKE SA down for %s, have %+v\n%s", rekeyed, ike.ReasonPeerRestarted, a.Downs, story(w))
		}
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Second)
		if len(a.SADB) != 1 || len(b.SADB) != 1 {
			t.Errorf("no Child SA after the restart\n%s", story(w))
		}
	}
}

// What is not protected and proves nothing causes one early liveness check in a while, whoever sends it and however often.
func TestUnprotectedMessagesAreHints(t *testing.T) {
	w, a, b := withTokens(t)
	s := a.Engine.Snapshot().SAs[0]
	forged := wire.AppendMessage(nil, wire.Message{
		Header: wire.Header{SPIi: wire.SPI(s.SPI), SPIr: wire.SPI(s.PeerSPI), Exchange: wire.Informational, Flags: wire.FlagResponse},
		Payloads: []wire.Payload{
			wire.Notify{Type: wire.NotifyInvalidIKESPI},
			wire.Notify{Protocol: wire.ProtocolIKE, Type: wire.NotifyQuickCrashDetection, Data: make([]byte, 16)},
		},
	})
	lost := wire.AppendMessage(nil, wire.Message{
		Header:   wire.Header{SPIi: 1, Exchange: wire.Informational, Flags: wire.FlagInitiator},
		Payloads: []wire.Payload{wire.Notify{Type: wire.NotifyInvalidSPI, Data: spiOctets(a.SADB[a.child()].Child.Out.SPI)}},
	})
	before := count(w, "a.example", "send INFORMATIONAL request")
	for range 100 {
		a.Do(ike.Datagram{Local: s.Local, Remote: s.Remote, Bytes: forged})
		a.Do(ike.Datagram{Local: s.Local, Remote: s.Remote, Bytes: lost})
		w.Run(20 * time.Millisecond)
	}
	if n := count(w, "a.example", "send INFORMATIONAL request") - before; n != 1 {
		t.Errorf("want one liveness check in two seconds of forged messages, have %d", n)
	}
	mirrored(t, w, a, b, 1)
	if len(a.Downs) != 0 {
		t.Errorf("forged messages end the IKE SA: %+v", a.Downs)
	}
}

func spiOctets(s sa.SPI) []byte { return []byte{byte(s >> 24), byte(s >> 16), byte(s >> 8), byte(s)} }

// No message, whatever role its flags claim, gets the token of an IKE SA that lives out of its maker (RFC 6290 7.1), and
// the answer with a token of another is no longer than what asked for it.
func TestTokensOfLivingSAsStaySecret(t *testing.T) {
	w, a, b := withTokens(t)
	s := b.Engine.Snapshot().SAs[0]
	answers := func(spii, spir uint64, flags wire.Flags, padding int) (tokens int) {
		w.Run(2 * time.Second)
		octets := wire.AppendMessage(nil, wire.Message{
			Header:   wire.Header{SPIi: wire.SPI(spii), SPIr: wire.SPI(spir), Exchange: wire.Informational, Flags: flags, MessageID: 7},
			Payloads: []wire.Payload{wire.VendorID{Data: make([]byte, padding)}},
		})
		for _, x := range b.Engine.Step(w.Now, ike.Datagram{Local: s.Local, Remote: s.Remote, Bytes: octets}) {
			send, ok := x.(ike.Send)
			if !ok {
				continue
			}
			if len(send.Bytes) > len(octets) {
				t.Errorf("%d octets answer %d", len(send.Bytes), len(octets))
			}
			m, err := wire.ParseMessage(send.Bytes, wire.LimitBeforeAuth)
			if err != nil {
				t.Fatal(err)
			}
			if _, has := wire.FindNotify(m.Payloads, wire.NotifyQuickCrashDetection); has {
				tokens++
			}
		}
		return tokens
	}
	for _, flags := range []wire.Flags{0, wire.FlagInitiator} {
		for _, spis := range [][2]uint64{{s.PeerSPI, s.SPI}, {s.SPI, s.PeerSPI}, {9, s.SPI}, {s.SPI, 9}} {
			if answers(spis[0], spis[1], flags, 64) != 0 {
				t.Errorf("flags %x, SPIs %x: the token of a living SA was given", flags, spis)
			}
		}
	}
	if answers(9, 8, wire.FlagInitiator, 64) != 1 {
		t.Error("no token for an IKE SA that is not there")
	}
	if answers(9, 8, wire.FlagInitiator, 1) != 0 {
		t.Error("a short message is answered with a longer one")
	}
	_ = a
}
