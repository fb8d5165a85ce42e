//go:build ikebug

package ikesim

import (
	"fmt"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// A peer that violates the protocol once gets exactly the answer that the RFCs name, and nothing of what it asked for.
func TestImpair(t *testing.T) {
	for _, c := range []struct {
		fault  impair.Fault
		up     bool // the fault begins when both are up
		does   func(bad *Node)
		answer string // of the other side
		left   int    // Child SAs of the other side
	}{
		{impair.NoAuth, false, nil, "send IKE_AUTH response 1 N(AUTHENTICATION_FAILED)", 0}, // it asks for EAP (RFC 7296 2.16)
		{impair.BadAuth, false, nil, "send IKE_AUTH response 1 N(AUTHENTICATION_FAILED)", 0},
		{impair.ShortNonce, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(INVALID_SYNTAX)", 0},
		{impair.TwoNonces, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(INVALID_SYNTAX)", 0},
		{impair.OtherGroup, true, (*Node).rekeyIKE, "send CREATE_CHILD_SA response 2 N(INVALID_KE_PAYLOAD)", 1},
		{impair.ZeroSPI, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(NO_PROPOSAL_CHOSEN)", 1},
		{impair.RekeyAH, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(CHILD_SA_NOT_FOUND)", 2}, // the other then makes a new one
		{impair.RekeySPI, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(INVALID_SYNTAX)", 0},
		{impair.OfferAH, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(NO_PROPOSAL_CHOSEN)", 1},
		{impair.NoKeyBits, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(NO_PROPOSAL_CHOSEN)", 1},
		{impair.ShortKE, true, (*Node).rekeyIKE, "send CREATE_CHILD_SA response 2 N(INVALID_SYNTAX)", 0},
		{impair.ZeroKE, true, (*Node).rekeyIKE, "send CREATE_CHILD_SA response 2 N(INVALID_SYNTAX)", 0},
		{impair.EmptyKE, true, (*Node).rekeyIKE, "send CREATE_CHILD_SA response 2 N(INVALID_SYNTAX)", 0},
		{impair.TwoKE, true, (*Node).rekeyIKE, "send CREATE_CHILD_SA response 2 N(INVALID_SYNTAX)", 0},
		{impair.TwoSA, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(INVALID_SYNTAX)", 0},
		{impair.ZeroKeyBits, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(NO_PROPOSAL_CHOSEN)", 1},
		{impair.TwoKeyBits, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(NO_PROPOSAL_CHOSEN)", 1},
		{impair.Critical, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(UNSUPPORTED_CRITICAL_PAYLOAD)", 1},
		{impair.Critical, false, nil, "send IKE_AUTH response 1 N(UNSUPPORTED_CRITICAL_PAYLOAD)", 0},
		{impair.Outside, true, (*Node).deleteChild, "send INFORMATIONAL response 2 D(ESP)", 0}, // passed over
		{impair.Outside, false, nil, "send IKE_AUTH response 1 IDr AUTH", 1},
		// What cannot be read before its origin is proved gets no answer: anybody could have put it there (RFC 7296 2.21).
		{impair.OutsideCritical, true, (*Node).deleteChild, "drop: malformed", 1},
		{impair.OmitChild, false, nil, "send IKE_AUTH response 1 IDr AUTH", 0}, // an IKE SA without a Child SA (RFC 6023)
		{impair.OmitChild, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(INVALID_SYNTAX)", 0},
		{impair.OutsideDelete, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(USE_TRANSPORT_MODE) SA Nonce TSi TSr", 1},
		{impair.RepeatNotifies, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(USE_TRANSPORT_MODE) SA Nonce TSi TSr", 1},
		{impair.RepeatNotifies, false, nil, "send IKE_AUTH response 1 IDr AUTH", 1},
		{impair.OmitNotifies, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(TS_UNACCEPTABLE)", 1},
		{impair.OmitNotifies, false, nil, "send IKE_AUTH response 1 IDr AUTH N(TS_UNACCEPTABLE)", 0},
		{impair.OmitTransport, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(TS_UNACCEPTABLE)", 1},
		{impair.OmitTS, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(INVALID_SYNTAX)", 0},
		{impair.OmitTS, false, nil, "send IKE_AUTH response 1 N(INVALID_SYNTAX)", 0},
		{impair.ForeignTS, true, (*Node).rekeyChild, "send CREATE_CHILD_SA response 2 N(TS_UNACCEPTABLE)", 1},
		{impair.ForeignTS, false, nil, "send IKE_AUTH response 1 IDr AUTH N(TS_UNACCEPTABLE)", 0},
		{impair.OtherAuth, false, nil, "send IKE_AUTH response 1 N(AUTHENTICATION_FAILED)", 0},
		{impair.Unknown, true, (*Node).deleteChild, "send INFORMATIONAL response 2 D(ESP)", 0}, // it is passed over
		{impair.DeleteAH, true, (*Node).deleteChild, "send INFORMATIONAL response 2", 1},
	} {
		t.Run(fmt.Sprintf("%s-%v", c.fault, c.up), func(t *testing.T) {
			w, bad, good := pair(1, calm, pskAuth, nil)
			if !c.up {
				bad.Wrong = []impair.Fault{c.fault}
			}
			bad.Do(ike.Acquire{Flow: flow(addrA, addrB)})
			w.Run(time.Second)
			if c.up {
				bad.Wrong = []impair.Fault{c.fault}
				c.does(bad)
				w.Run(100 * time.Millisecond)
			}
			if n := count(w, "b.example", c.answer); n != 1 {
				t.Errorf("want one %q, have %d\n%s", c.answer, n, story(w))
			}
			if len(good.SADB) != c.left {
				t.Errorf("want %d Child SAs at the other side, have %d\n%s", c.left, len(good.SADB), story(w))
			}
		})
	}
}

// A rekey that asks for other selectors gets what both Child SAs have in common, and never more than the old one had
// (RFC 7296 2.8): other implementations ask for more, or for less.
func TestImpairedSelectorsOfARekey(t *testing.T) {
	small := host(addrA)
	small.Protocol, small.PortFrom, small.PortTo = 6, 80, 80
	for _, c := range []struct {
		fault impair.Fault
		want  sa.Selector // of the peer, at the other side
	}{{impair.WideTS, host(addrA)}, {impair.SmallTS, small}} {
		w, bad, good := pair(1, calm, pskAuth, nil)
		bad.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Second)
		old := good.child()
		bad.Wrong = []impair.Fault{c.fault}
		bad.rekeyChild()
		w.Run(20 * time.Millisecond)
		found := 0
		for spi, i := range good.SADB {
			if spi == old {
				continue
			}
			found++
			if len(i.Child.RemoteTS) != 1 || i.Child.RemoteTS[0] != c.want || i.Child.LocalTS[0].From != addrB || i.Child.LocalTS[0].To != addrB {
				t.Errorf("%s: the new Child SA is for %v to %v\n%s", c.fault, i.Child.LocalTS, i.Child.RemoteTS, story(w))
			}
		}
		if found != 1 {
			t.Errorf("%s: %d new Child SAs\n%s", c.fault, found, story(w))
		}
	}
	// The same in IKE_AUTH: a request for everything is narrowed to the two hosts of the rule.
	w, bad, good := pair(1, calm, pskAuth, nil)
	bad.Wrong = []impair.Fault{impair.WideTS}
	bad.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(15 * time.Millisecond)
	for range 10 {
		w.Run(time.Millisecond)
		for _, i := range good.SADB {
			if fmt.Sprint(i.Child.LocalTS, i.Child.RemoteTS) != fmt.Sprint([]sa.Selector{host(addrB)}, []sa.Selector{host(addrA)}) {
				t.Fatalf("the Child SA is for %v to %v\n%s", i.Child.LocalTS, i.Child.RemoteTS, story(w))
			}
		}
	}
	if count(w, "b.example", "install in") != 1 {
		t.Errorf("want one Child SA\n%s", story(w))
	}
}
