package policies

import (
	"fmt"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// ExemptionLevel is a set of exemptions by the number that Windows has for it (NoDefaultExempt). The zero value is level 3,
// which exempts nothing beside what always is.
type ExemptionLevel uint8

// The levels.
const (
	exemptIKE     ExemptionLevel = iota // 3
	exemptHosts                         // 2: RSVP, Kerberos
	exemptGroups                        // 1: multicast, broadcast
	exemptMany                          // 0: all of these
	highestNumber = 3
)

// String prints the number.
func (l ExemptionLevel) String() string { return fmt.Sprint(highestNumber - int(l)) }

func parseLevel(s string) (ExemptionLevel, error) {
	n, err := decimal(s, highestNumber)
	if err != nil {
		return 0, fmt.Errorf("%q is not a level of 0-%d", printable(s), highestNumber)
	}
	return ExemptionLevel(highestNumber - n), nil
}

// effective adds what the level asks for to what is asked for by name.
func (e Exemptions) effective(breakGlass []uint16) spd.Exemptions {
	groups := e.Level == exemptGroups || e.Level == exemptMany
	hosts := e.Level == exemptHosts || e.Level == exemptMany
	return spd.Exemptions{
		Multicast: e.Multicast || groups, Broadcast: e.Broadcast || groups,
		Kerberos: e.Kerberos || hosts, RSVP: e.RSVP || hosts, ICMP: e.ICMP, BreakGlassTCP: breakGlass,
	}
}

func (e Exemptions) isZero() bool {
	return !e.Multicast && !e.Broadcast && !e.Kerberos && !e.RSVP && !e.ICMP && e.Level == exemptIKE && len(e.BreakGlassTCP) == 0
}

// exemptions finds what lets more pass than somebody may expect.
func (v *validator) exemptions(p Policy) {
	if p.Exemptions.effective(nil).Kerberos {
		v.find(Warning, CodeExempt, p.At, p, "exempts Kerberos: whoever sends from UDP port 88 reaches the UDP ports from 32768 on in clear; better permit it to the servers by a rule")
	}
}
