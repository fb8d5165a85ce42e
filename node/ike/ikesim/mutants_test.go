//go:build ikebug

package ikesim

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// mutantSeeds is how many worlds a bug may hide in before it counts as not found.
const mutantSeeds = 20000

// Every seeded bug is found, by the worlds of TestRandom or by one of the attacks. A bug that survives says that the
// invariants are too weak. The test prints what found it.
func TestMutants(t *testing.T) {
	seen := make(map[impair.Fault]bool)
	for _, bug := range impair.Bugs() {
		if seen[bug] {
			t.Fatalf("%s stands in the list twice", bug)
		}
		seen[bug] = true
		t.Run(string(bug), func(t *testing.T) {
			by := wrong{first: []impair.Fault{bug}, others: []impair.Fault{bug}}
			if bug == impair.WrongTieBreak { // on both sides it would be another rule, and no mistake
				by.others = nil
			}
			if attack, ok := attacks[bug]; ok {
				if got := attack([]impair.Fault{bug}); got == "" {
					t.Errorf("%s is not found by the attack", bug)
				} else {
					t.Logf("found by an attack: %s", got)
				}
				if got := attack(nil); got != "" {
					t.Errorf("without the bug: %s", got)
				}
				return
			}
			for _, c := range crossings {
				for seed := uint64(1); seed <= 4; seed++ {
					if got := cross(c, seed, by); got != "" {
						t.Logf("found by %q, seed %d: %s", c.name, seed, got)
						return
					}
				}
			}
			for seed := uint64(1); seed <= mutantSeeds; seed++ {
				if w := playWrong(PlanOf(seed), by, false); len(w.Broken) > 0 {
					t.Logf("found by seed %d: %s", seed, strings.Join(strings.Fields(w.Broken[0]), " "))
					return
				}
			}
			t.Errorf("%s survives %d worlds", bug, mutantSeeds)
		})
	}
	if len(seen) < 12 {
		t.Errorf("only %d bugs are seeded", len(seen))
	}
}

// cross plays a crossing and tells what is wrong at its end, "" when nothing is.
func cross(c crossing, seed uint64, by wrong) string {
	w, a, b := pair(seed, Faults{Delay: 10 * time.Millisecond}, pskAuth, nil)
	a.Wrong, b.Wrong = by.first, by.others
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	if len(a.SADB) == 0 || len(b.SADB) == 0 {
		return "no Child SA comes up"
	}
	c.steps(w, a, b)
	w.Run(5 * time.Minute)
	w.CheckRest()
	children := 1
	if c.none {
		children = 0
	}
	switch {
	case len(w.Broken) > 0:
		return strings.Join(strings.Fields(w.Broken[0]), " ")
	case len(a.SADB) != children || len(b.SADB) != children:
		return fmt.Sprintf("%d and %d Child SAs are left, want %d", len(a.SADB), len(b.SADB), children)
	}
	return ""
}

// attacks are what no engine does of its own accord. They return what went wrong, "" when nothing did.
var attacks = map[impair.Fault]func(faults []impair.Fault) string{
	// Somebody on the path answers IKE_SA_INIT with INVALID_KE_PAYLOAD for a group that is weak.
	impair.UnofferedGroup: func(faults []impair.Fault) string {
		w, a, b := pair(1, calm, pskAuth, nil)
		a.Wrong, b.Off = faults, true
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Millisecond)
		var sent wire.Header
		for _, e := range w.pending {
			if d, ok := e.ev.(ike.Datagram); ok {
				sent, _ = wire.ParseHeader(d.Bytes)
			}
		}
		answer := wire.Message{
			Header:   wire.Header{SPIi: sent.SPIi, Exchange: wire.IKESAInit, Flags: wire.FlagResponse},
			Payloads: []wire.Payload{wire.Notify{Type: wire.NotifyInvalidKEPayload, Data: []byte{0, byte(proposal.GroupMODP2048)}}},
		}
		a.Do(ike.Datagram{Local: netip.AddrPortFrom(addrA, 500), Remote: netip.AddrPortFrom(addrB, 500), Bytes: wire.AppendMessage(nil, answer)})
		w.Run(time.Millisecond)
		for _, e := range w.pending {
			if d, ok := e.ev.(ike.Datagram); ok {
				m, err := wire.ParseMessage(d.Bytes, wire.LimitBeforeAuth)
				if ke, has := wire.Find[wire.KE](m.Payloads, nil); err == nil && has && ke.Group != proposal.GroupX25519 {
					return "a key exchange with a group that was not offered"
				}
			}
		}
		return ""
	},
	// A cookie that one address got is used from another.
	impair.CookieUnbound: func(faults []impair.Fault) string {
		w, _, b := pair(1, calm, pskAuth, nil)
		b.Wrong = faults
		from := func(last byte) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, last}), 500)
		}
		local := netip.AddrPortFrom(addrB, 500)
		for i := range 70 { // more than are let in without a cookie
			b.Do(ike.Datagram{Local: local, Remote: from(byte(i)), Bytes: initRequest(uint64(i+1), nil)})
			w.Run(time.Millisecond)
		}
		thief, victim := w.Add("thief.example", from(200).Addr(), config("thief.example", from(200).Addr())), from(201)
		_ = thief
		b.Do(ike.Datagram{Local: local, Remote: from(200), Bytes: initRequest(1000, nil)})
		var cookie []byte
		for _, e := range w.pending {
			if d, ok := e.ev.(ike.Datagram); ok && d.Local == from(200) {
				m, _ := wire.ParseMessage(d.Bytes, wire.LimitBeforeAuth)
				if n, ok := wire.FindNotify(m.Payloads, wire.NotifyCookie); ok {
					cookie = bytes.Clone(n.Data)
				}
			}
		}
		if cookie == nil {
			return "no cookie was asked for"
		}
		before := b.sas()
		b.Do(ike.Datagram{Local: local, Remote: victim, Bytes: initRequest(1000, cookie)})
		if b.sas() != before {
			return "a cookie of one address makes an SA for another"
		}
		return ""
	},
}
