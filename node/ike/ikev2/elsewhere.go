package ikev2

import (
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// A tunnel rule knows its peer by an address. With MOBIKE the peer may leave it, but only while its IKE SA lives: after a
// crash, or at the end of its authentication, it would have to come from home again, where it is not. So it may begin
// anew from elsewhere, under these conditions, which accept nobody who could not have moved there:
//
//   - the policy lets IKE SAs move, to a path like this one, and the peer supports it (RFC 4555 3.1);
//   - the rule names the identity of the peer, and the peer proves it by a certificate. Where the rule believes whoever
//     the trust bundle vouches for, its address is what tells the peer from all others; and who has a preshared key can
//     claim any identity. Both must come from the address of the rule, as ever.
//
// The IKE SA is then as one that has moved: the address of the rule is its home.

// names reports whether an entry accepts one identity only, and by a certificate.
func names(e spd.Auth) bool { return e.Method == spd.AuthCertificate && e.RemoteID != "" }

// mayRoam reports whether the policy lets IKE SAs be on a path like the present one, wherever it leads.
func (s *SA) mayRoam() bool {
	switch s.cfg.Mobility {
	case ike.MobilityOn:
		return true
	case ike.MobilityWithoutNAT:
		return !s.natLocal && !s.natRemote
	default:
		return false
	}
}

// roamers are the entries that name peers who may come from elsewhere, as far as accept lets them, and the home of the
// first of them whose rule lets them have what they want: anything, when that is nil.
func (s *SA) roamers(want *childRequest, accept func(spd.Auth) bool) (home netip.Addr, entries []spd.Auth) {
	if !s.mayRoam() || want != nil && want.transport {
		return netip.Addr{}, nil
	}
	for i := range s.cfg.Rules {
		r := &s.cfg.Rules[i]
		if r.Mode != sa.Tunnel || !r.Tunnel.IsValid() || r.Tunnel == s.remote.Addr() || home.IsValid() && r.Tunnel != home {
			continue
		}
		for _, e := range r.Auth {
			if !names(e) || !accept(e) {
				continue
			}
			if want != nil {
				s.claimed = r.Tunnel
				_, ok := s.search(want)
				if s.claimed = (netip.Addr{}); !ok {
					continue
				}
			}
			home, entries = r.Tunnel, append(entries, e)
		}
	}
	return home, entries
}

// fromElsewhere finds by which entries a peer may authenticate that no rule expects where it is, and remembers the home
// that it claims with that. Nothing is believed of it before one of them has accepted the peer.
func (s *SA) fromElsewhere(want *childRequest, id wire.ID, payloads []wire.Payload) []spd.Auth {
	if _, supported := wire.FindNotify(payloads, wire.NotifyMOBIKESupported); !supported {
		return nil
	}
	home, entries := s.roamers(want, claimOf(id).is)
	s.claimed, s.claimedBy = home, entries
	if want != nil {
		want.narrowed = narrowing{}
		return entries
	}
	return append(slices.Clone(entries), peerAuth(s.cfg, s.remote.Addr())...)
}

// announcedEntries are the entries by which somebody may authenticate who is where the peer is.
func (s *SA) announcedEntries() []spd.Auth {
	_, entries := s.roamers(nil, func(spd.Auth) bool { return true })
	return append(peerAuth(s.cfg, s.remote.Addr()), entries...)
}

// claimsHome notes at an initiator that the peer of a tunnel is asked where it has moved.
func (s *SA) claimsHome(rule *ike.Rule) {
	if rule.Mode == sa.Tunnel && rule.Tunnel.IsValid() && rule.Tunnel != s.remote.Addr() && names(s.auth) {
		s.claimed, s.claimedBy = rule.Tunnel, []spd.Auth{s.auth}
	}
}

// settleHome is where rules expect the peer, now that it is authenticated.
func (s *SA) settleHome() {
	s.home = s.remote.Addr()
	if s.claimed.IsValid() && slices.Contains(s.claimedBy, s.auth) && s.mobile {
		s.home, s.left = s.claimed, true
	}
	s.claimed, s.claimedBy = netip.Addr{}, nil
}

// expects reports whether the peer is whom a tunnel to an address leads to.
func (s *SA) expects(tunnel netip.Addr) bool {
	return tunnel == s.remote.Addr() || tunnel == s.home || s.claimed.IsValid() && tunnel == s.claimed
}

// displaced reports whether a Child SA of transport mode was asked for between addresses that are not those of the IKE SA
// any more. Nobody could use it.
func (s *SA) displaced(c *child) bool {
	return c.Mode == sa.Transport && (!bound(c.LocalTS, s.local.Addr()) || !bound(c.RemoteTS, s.remote.Addr()))
}
