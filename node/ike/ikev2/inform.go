package ikev2

import (
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// serveInformational answers INFORMATIONAL: deletes, liveness checks, status (RFC 7296 1.4).
func (s *SA) serveInformational(v *serving, m message) {
	for _, p := range m.payloads {
		if d, ok := p.(wire.Delete); ok && d.Protocol == wire.ProtocolIKE {
			// Nothing else in the message counts once the IKE SA is deleted.
			s.deletedIKE(v)
			return
		}
	}
	if _, ok := wire.FindNotify(m.payloads, wire.NotifyAuthenticationFailed); ok {
		s.respond(v)
		s.end(ike.ReasonAuthRefused, ike.FaultLocal, "the peer did not accept the authentication of this side")
		return
	}
	s.readAuthLifetime(m.payloads)
	s.takeToken(m.payloads)
	reply, then := s.mobilityAnswer(v, m)
	var answer []sa.SPI
	for _, p := range m.payloads {
		d, ok := p.(wire.Delete)
		if !ok || d.Protocol != wire.ProtocolESP {
			continue
		}
		s.adoptedByPeer()
		for _, spi := range d.SPIs {
			if in, ok := s.deletedByPeer(spi); ok {
				answer = append(answer, in)
			}
		}
	}
	if len(answer) > 0 {
		reply = append(reply, wire.Delete{Protocol: wire.ProtocolESP, SPIs: answer})
	}
	s.respond(v, reply...)
	if then != nil {
		then()
	}
}

// deletedByPeer removes the Child SA whose outbound SPI the peer deletes. ok tells to answer with the inbound SPI.
func (s *SA) deletedByPeer(out sa.SPI) (in sa.SPI, ok bool) {
	c := s.childByOut(out)
	v := s.judge(deleteChildIn, c)
	if c != nil && c.peerRekey != nil && !c.peerRekey.child.gone && !c.peerRekey.child.deleting && !impair.On(impair.NeverSwitch) {
		s.switchOut(c.peerRekey.child) // RFC 7296 2.8: the delete of the old SA is the sign to use the new one
	}
	switch v {
	case successorD:
		if s.successor != nil {
			s.successor.now = s.now
			s.touch(s.successor)
			return s.successor.deletedByPeer(out)
		}
		return 0, false
	case replyPlain:
		if c == nil {
			// The peer may delete what a response under way is about to make (RFC 7296 2.8.1).
			if s.current != nil && len(s.deleted) < limitDeleted {
				s.deleted = append(s.deleted, out)
			}
			return 0, false
		}
		if !c.deleting { // replaced, the own delete has not been sent: the answer is complete
			s.uninstall(c, ike.ReasonRekeyed)
			return c.In.SPI, true
		}
		s.uninstall(c, ike.ReasonDeleted)
		return 0, false
	default: // deleted below
	}
	if c == nil {
		return 0, false
	}
	reason := ike.ReasonDeletedByPeer
	if c.peerRekey != nil {
		reason = ike.ReasonRekeyed
	} else if s.redundantTo(c) {
		reason = ike.ReasonRedundant
	}
	s.uninstall(c, reason)
	return c.In.SPI, true
}

// redundantTo reports whether c came from the peer's rekey of a Child SA that this side rekeys as well.
func (s *SA) redundantTo(c *child) bool {
	if c.ReplacesIn == 0 || c.initiator {
		return false
	}
	for _, o := range s.children {
		if o.peerRekey != nil && o.peerRekey.child == c {
			return true
		}
		if o.initiator && o.ReplacesIn == c.ReplacesIn {
			return true
		}
	}
	return false
}

// deletedIKE answers the delete of the IKE SA, which wins over everything.
func (s *SA) deletedIKE(v *serving) {
	s.judge(deleteIKEIn, nil)
	if s.peerRekeyStands() && s.state == StateEstablished {
		s.trace("rekey collision: the peer ended this IKE SA before its answer came, IKE SA %s stays", s.peerRekey.sa.own)
		s.handOver(s.peerRekey.sa) // the peer decided the collision before the own answer came
	}
	s.respond(v)
	reason, fault := ike.ReasonDeletedByPeer, ike.FaultPeer
	if s.state == StateRekeyed {
		reason, fault = ike.ReasonRekeyed, ike.FaultNone
	}
	s.end(reason, fault, "")
}

// expiring handles a limit of the Child SA with this inbound SPI.
func (s *SA) expiring(e ike.ChildExpiring) {
	c := s.childByIn(e.SPI)
	if c == nil {
		return
	}
	switch e.Limit {
	case ike.LimitSoft:
		s.rekeyChild(c)
	case ike.LimitHard:
		s.closeChild(c, ike.ReasonExpired)
	case ike.LimitIdle:
		s.closeChild(c, ike.ReasonIdle)
	}
}
