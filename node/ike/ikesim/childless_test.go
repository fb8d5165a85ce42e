package ikesim

import (
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// RFC 6023 3: only who heard CHILDLESS_IKEV2_SUPPORTED leaves the Child SA out of IKE_AUTH. The flow gets one either way.
func TestChildless(t *testing.T) {
	for _, c := range []struct {
		a, b      spd.Childless
		childless bool
	}{
		{spd.ChildlessAccept, spd.ChildlessAccept, false},
		{spd.ChildlessPrefer, spd.ChildlessAccept, true},
		{spd.ChildlessPrefer, spd.ChildlessPrefer, true},
		{spd.ChildlessPrefer, spd.ChildlessNever, false},
		{spd.ChildlessNever, spd.ChildlessPrefer, false},
	} {
		t.Run(c.a.String()+"-"+c.b.String(), func(t *testing.T) {
			w, a, b := pair(1, Faults{Delay: 5 * time.Millisecond}, pskAuth, nil)
			for n, v := range map[*Node]spd.Childless{a: c.a, b: c.b} {
				cfg := n.Config
				cfg.Childless = v
				n.Do(ike.Reconfigure{Config: cfg})
			}
			a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
			w.Run(2 * time.Second)
			mirrored(t, w, a, b, 1)
			created := strings.Contains(story(w), "received CREATE_CHILD_SA request")
			if created != c.childless {
				t.Errorf("the Child SA came by CREATE_CHILD_SA: %t, want %t\n%s", created, c.childless, story(w))
			}
		})
	}
}
