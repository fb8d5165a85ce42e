package ikesim

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Two machines that talk over IPv4 and over IPv6 have an IKE SA for each pair of addresses, with the same identities. The
// second is no sign that the first is lost, whoever initiates it and whenever.
func TestAPeerWithSeveralAddresses(t *testing.T) {
	a6, b6 := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	everything6 := sa.Selector{From: netip.IPv6Unspecified(), To: netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), PortTo: 65535}
	for _, c := range []struct {
		name  string
		apart time.Duration // between the two initiations
		swap  bool          // the other side initiates the second
	}{
		{"the same side, at once", 0, false},
		{"the same side, later", time.Minute, false},
		{"the other side, at once", 0, true},
		{"the other side, later", time.Minute, true},
	} {
		for _, auth := range []spd.Auth{pskAuth, certAuth} {
			w, a, b := pair(1, Faults{Delay: 5 * time.Millisecond}, auth, nil)
			for _, n := range []struct {
				*Node
				address netip.Addr
			}{{a, a6}, {b, b6}} {
				n.Others = []netip.Addr{n.address}
				config := n.Config
				config.Rules[0].Pairs = append(config.Rules[0].Pairs, ike.Pair{Local: host(n.address), Remote: everything6})
				n.Do(ike.Reconfigure{Config: config})
			}
			a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
			w.Run(c.apart)
			if c.swap {
				b.Do(ike.Acquire{Flow: flow(b6, a6)})
			} else {
				a.Do(ike.Acquire{Flow: flow(a6, b6)})
			}
			w.Run(4 * time.Minute)
			verify(t, w)
			if len(a.SADB) != 2 || len(b.SADB) != 2 || len(a.Downs) != 0 || len(b.Downs) != 0 {
				t.Errorf("%s, %v: want a Child SA for each pair of addresses and no IKE SA closed; have %d and %d Child SAs, closed %v and %v",
					c.name, auth.Method, len(a.SADB), len(b.SADB), a.Downs, b.Downs)
			}
		}
	}
}
