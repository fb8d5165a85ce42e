package ikev2

import (
	"fmt"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// A rule may want its peers to be members of groups of the directory. Which groups a peer is in comes with the verdict
// about its certificate; a peer with a preshared key is in none. Being in no group of a rule does not end the IKE SA:
// other rules may accept the peer.

// WantedGroups are the groups that the rules of a configuration name, ascending; nil when none does.
func WantedGroups(cfg *ike.Config) []string {
	var list []string
	for i := range cfg.Rules {
		list = append(list, cfg.Rules[i].PeerGroups...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// admits reports whether a rule accepts the peer, once it is authenticated.
func (s *SA) admits(r *ike.Rule) bool {
	return spd.AdmitsPeer(r.PeerGroups, s.groups)
}

// notAdmitted says why a rule does not accept the peer.
func (s *SA) notAdmitted(r *ike.Rule) string {
	return fmt.Sprintf("%s is in none of the groups whose members rule %q accepts", s.name(), r.ID)
}

// regroup notes of which groups the peer is a member now, and ends what it may not have any more.
func (s *SA) regroup(groups []string) {
	if slices.Equal(s.groups, groups) {
		return
	}
	s.groups = groups
	for _, c := range s.children {
		if !c.gone && !s.admits(c.rule) {
			s.trace("%s", s.notAdmitted(c.rule))
			s.uninstall(c, ike.ReasonPeerNotInGroup) // at once, whether the peer answers or not
			s.deleteUnwanted(c.In.SPI)
		}
	}
}
