package ikesim

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// In a fleet with certificates and preshared keys a responder tells what it accepts, and the initiator, whose rule allows
// both, does not try the other first (RFC 9593).
func TestAnnouncedMethodsSpareTheGuess(t *testing.T) {
	for _, announce := range []bool{true, false} {
		w, a, b := pair(1, calm, certAuth, func(r *ike.Rule) { r.Auth = []spd.Auth{certAuth, pskAuth} })
		c := b.Config
		c.Rules = slices.Clone(c.Rules)
		c.Rules[0].Auth = []spd.Auth{pskAuth}
		c.AnnounceAuthentication = announce
		b.Do(ike.Reconfigure{Config: c})
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(2 * time.Second)
		mirrored(t, w, a, b, 1)
		if got := a.Engine.Snapshot().SAs[0].Auth; got != "preshared key" {
			t.Errorf("announced %v: the SA is authenticated by %s", announce, got)
		}
		if failures := len(a.Engine.Snapshot().Failures); (failures == 0) != announce {
			t.Errorf("announced %v: %d attempts failed before", announce, failures)
		}
		if told := strings.Contains(story(w), "SUPPORTED_AUTH_METHODS"); told != announce {
			t.Errorf("announced %v: on the wire %v", announce, told)
		}
	}
}

// A forged announcement must not lead to what the policy does not allow.
func TestAnnouncementGrantsNothing(t *testing.T) {
	w, a, b := pair(1, calm, certAuth, nil)
	c := b.Config
	c.Rules = slices.Clone(c.Rules)
	c.Rules[0].Auth = []spd.Auth{pskAuth}
	c.AnnounceAuthentication = true
	b.Do(ike.Reconfigure{Config: c})
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(5 * time.Second)
	if len(a.SADB)+len(b.SADB) != 0 {
		t.Errorf("an association was made by a method that the rule does not name\n%s", story(w))
	}
	verify(t, w)
}
