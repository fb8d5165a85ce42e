//go:build ikebug

package ikesim

import (
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
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
		{impair.OtherAuth, false, nil, "send IKE_AUTH response 1 N(AUTHENTICATION_FAILED)", 0},
		{impair.Unknown, true, (*Node).deleteChild, "send INFORMATIONAL response 2 D(ESP)", 0}, // it is passed over
		{impair.DeleteAH, true, (*Node).deleteChild, "send INFORMATIONAL response 2", 1},
	} {
		t.Run(string(c.fault), func(t *testing.T) {
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
