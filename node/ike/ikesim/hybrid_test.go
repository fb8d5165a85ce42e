package ikesim

import (
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
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
