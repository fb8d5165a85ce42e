package ikev2

import (
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Reconfigure puts a new configuration into force: what it does not allow any more is closed, the rest goes on.
func (s *SA) Reconfigure(now time.Time, cfg *ike.Config) {
	s.now, s.cfg = now, cfg
	switch {
	case s.state == StateClosed:
		return
	case s.hs != nil:
		if s.hs.flow != nil && !sameNegotiation(s.hs.rule, ruleOf(cfg, *s.hs.flow)) || s.win.serving == nil && !s.suiteAllowed() {
			s.end(ike.ReasonPolicyChanged, ike.FaultLocal, "")
		}
		return
	case !s.suiteAllowed() || !s.authAllowed():
		s.closeIKE(ike.ReasonPolicyChanged)
		s.advance()
		return
	}
	s.reconfigureStanding()
	s.abandonAll() // the peer begins anew, under this configuration
	for _, c := range s.children {
		if !c.gone && !s.keep(c) {
			s.closeChild(c, ike.ReasonPolicyChanged)
		}
	}
	var queue []queued
	for _, q := range s.queue {
		if t, ok := q.task.(*newChild); ok {
			r := ruleOf(cfg, t.flow)
			if r == nil {
				s.note(FlowFailed{Flow: t.flow, Reason: ike.ReasonPolicyChanged, Fault: ike.FaultLocal})
				continue
			}
			t.rule = *r
		}
		queue = append(queue, q)
	}
	s.queue = queue
	s.advance()
}

// keep finds the rule that stands for a Child SA now; false when there is none that would make it the same way.
func (s *SA) keep(c *child) bool {
	r := ruleByID(s.cfg, c.Rule)
	if c.DefaultResponse {
		r = s.cfg.DefaultResponse
	}
	if !sameNegotiation(c.rule, r) || !slices.Contains(r.Auth, s.auth) {
		return false
	}
	covered := c.DefaultResponse
	for _, p := range r.Pairs {
		covered = covered || p.Local.Covers(c.LocalTS) && p.Remote.Covers(c.RemoteTS)
	}
	if covered {
		c.rule = r
	}
	return covered
}

// sameNegotiation reports whether two versions of a rule make the same Child SAs.
func sameNegotiation(a, b *ike.Rule) bool {
	return a != nil && b != nil && a.Mode == b.Mode && a.Tunnel == b.Tunnel && slices.Equal(a.Offers, b.Offers) &&
		slices.Equal(a.PeerGroups, b.PeerGroups) && a.PFS == b.PFS && a.Associations == b.Associations && a.Lifetime == b.Lifetime && a.Idle == b.Idle
}

// ruleOf finds what decides about a flow.
func ruleOf(cfg *ike.Config, f ike.Flow) *ike.Rule {
	if f.DefaultResponse {
		return cfg.DefaultResponse
	}
	return ruleByID(cfg, f.Rule)
}

func ruleByID(cfg *ike.Config, id string) *ike.Rule {
	for i := range cfg.Rules {
		if cfg.Rules[i].ID == id {
			return &cfg.Rules[i]
		}
	}
	return nil
}

func (s *SA) suiteAllowed() bool {
	return s.state == StateKeyExchange || slices.Contains(s.cfg.Offers, s.suite)
}

func (s *SA) authAllowed() bool {
	for _, r := range s.cfg.Rules {
		if slices.Contains(r.Auth, s.auth) {
			return true
		}
	}
	return s.cfg.DefaultResponse != nil && slices.Contains(s.cfg.DefaultResponse.Auth, s.auth)
}

// InstallFailed ends a Child SA that the datapath refused.
func (s *SA) InstallFailed(now time.Time, in sa.SPI) {
	s.now = now
	if c := s.childByIn(in); c != nil {
		s.closeChild(c, ike.ReasonInstallFailed)
	}
	s.advance()
}

// Expire handles a limit of a Child SA.
func (s *SA) Expire(now time.Time, e ike.ChildExpiring) {
	s.now = now
	s.expiring(e)
	s.advance()
}
