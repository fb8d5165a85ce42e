package ikesim

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Both sides make the same Child SA, and the peer rekeys the redundant one before its delete comes. That very request is
// the sign on which its creator deletes it: the rekey is refused (RFC 7296 2.25.1), or its successor would stay beside
// the other Child SA for good.
func TestRekeyOfWhatIsRedundant(t *testing.T) {
	refused := false
	for seed := uint64(1); seed <= 16; seed++ {
		w, a, b := pair(seed, Faults{Delay: 10 * time.Millisecond}, pskAuth, func(r *ike.Rule) { r.PFS = true })
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Second)
		a.deleteChild()
		w.Run(time.Second)
		mirrored(t, w, a, b, 0)

		w.Hold(messages(create, false, b)) // a's exchange is over when b's begins to be served
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		b.Do(ike.Acquire{Flow: flow(addrB, addrA)})
		w.Run(300 * time.Millisecond)
		made := b.child()
		w.Release()
		w.Run(50 * time.Millisecond)
		both := slices.DeleteFunc(slices.Clone(b.order), func(spi sa.SPI) bool { return b.SADB[spi] == nil })
		if len(both) == 2 {
			b.Do(ike.ChildExpiring{SPI: made, Limit: ike.LimitSoft})
		}
		w.Run(5 * time.Minute)
		mirrored(t, w, a, b, 1)
		refused = refused || strings.Contains(story(w), "N(TEMPORARY_FAILURE)")
	}
	if !refused {
		t.Error("no seed had the redundant Child SA rekeyed")
	}
}
