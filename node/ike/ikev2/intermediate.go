package ikev2

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// errIntermediateExtras: AUTH covers such payloads (RFC 9242 3.3.2), and nobody sends any.
var errIntermediateExtras = errors.New("IKE_INTERMEDIATE message with payloads that are not encrypted")

// intermediate is the state of the IKE_INTERMEDIATE exchanges (RFC 9242), one for each additional key exchange of the IKE
// SA (RFC 9370 2.2.2). Each is protected by the keys that the one before has made.
type intermediate struct {
	left        []proposal.Group // methods of the exchanges to come
	ofInitiator []byte           // IntAuth_iN
	ofResponder []byte           // IntAuth_rN
}

// appendIntAuth adds what AUTH covers of the IKE_INTERMEDIATE exchanges: IntAuth_iN | IntAuth_rN | Message ID of IKE_AUTH,
// or nothing when there were none (RFC 9242 3.3.2).
func (i *intermediate) appendIntAuth(octets []byte, authID uint32) []byte {
	if i.ofInitiator == nil {
		return octets
	}
	return binary.BigEndian.AppendUint32(slices.Concat(octets, i.ofInitiator, i.ofResponder), authID)
}

// cover adds one message to IntAuth of its sender. It is called while the keys that protect the message are in use.
func (s *SA) cover(h wire.Header, p plaintext) error {
	i := &s.hs.intermediate
	of, skp := &i.ofInitiator, s.keys.PI
	if h.Response() {
		of, skp = &i.ofResponder, s.keys.PR
	}
	sum, err := suite.IntermediateAuth(s.suite.PRF, skp, *of, h, p.first, p.inner)
	if err == nil {
		*of = sum
	}
	return err
}

// intermediateSupport announces IKE_INTERMEDIATE where an offer needs it.
func (s *SA) intermediateSupport(offers []proposal.IKE) []wire.Payload {
	if !slices.ContainsFunc(offers, needsIntermediate) {
		return nil
	}
	return []wire.Payload{wire.Notify{Type: wire.NotifyIntermediateExchangeSupported}}
}

func needsIntermediate(o proposal.IKE) bool { return o.Additional != proposal.Additional{} }

// intermediateAgreed reports whether the responder, who chose an offer, also knows the exchanges that it needs.
func (s *SA) intermediateAgreed(chosen proposal.IKE, m wire.Message) bool {
	_, known := wire.FindNotify(m.Payloads, wire.NotifyIntermediateExchangeSupported)
	return known || !needsIntermediate(chosen)
}

// withoutIntermediate leaves out the offers that need IKE_INTERMEDIATE when the initiator does not know it.
func withoutIntermediate(offers []proposal.IKE, m wire.Message) []proposal.IKE {
	if _, known := wire.FindNotify(m.Payloads, wire.NotifyIntermediateExchangeSupported); known {
		return offers
	}
	return slices.DeleteFunc(slices.Clone(offers), needsIntermediate)
}

// firstProtected is the exchange with which the initiator goes on after IKE_SA_INIT.
func (s *SA) firstProtected() wire.ExchangeType {
	if needsIntermediate(s.suite) {
		return wire.IKEIntermediate
	}
	return wire.IKEAuth
}

// lastKeys reports whether the keys that are being put into use stay.
func (s *SA) lastKeys() bool {
	return s.hs == nil || !needsIntermediate(s.suite) || s.state == StateIntermediate && len(s.hs.left) == 1
}

// beginIntermediate is called when the first keys are in use.
func (s *SA) beginIntermediate() {
	s.state = StateAuthenticating
	if s.hs.left = s.suite.Additional.Methods(); len(s.hs.left) > 0 {
		s.state = StateIntermediate
	}
}

// nextIntermediate makes, as initiator, the next additional key exchange, and goes on to IKE_AUTH after the last.
func (s *SA) nextIntermediate() {
	hs := s.hs
	if len(hs.left) == 0 {
		s.sendAuth()
		return
	}
	s.float()
	group := hs.left[0]
	s.do(ike.Generate{Group: group}, func(r ike.Result) {
		g, ok := r.(ike.Generated)
		if !ok || g.Err != nil {
			s.end(ike.ReasonInternal, ike.FaultLocal, "generate a key pair: "+resultError(g.Err))
			return
		}
		hs.private = g.Private
		payloads := []wire.Payload{wire.KE{Group: group, Data: g.Public}}
		h := s.header(wire.IKEIntermediate, s.win.next, false)
		if err := s.cover(h, plaintext{wire.First(payloads), wire.AppendPayloads(nil, payloads)}); err != nil {
			s.end(ike.ReasonInternal, ike.FaultLocal, err.Error())
			return
		}
		s.giveUp = s.now.Add(RetransmitTotal + jobTimeout)
		s.request(wire.IKEIntermediate, payloads...)
	})
}

// receiveIntermediate completes an additional key exchange as initiator.
func (s *SA) receiveIntermediate(m message) {
	hs := s.hs
	ke, ok := wire.Find[wire.KE](m.payloads, nil)
	if !ok {
		for _, p := range m.payloads {
			if n, ok := p.(wire.Notify); ok && n.Type.IsError() {
				s.end(reasonOf(n.Type), ike.FaultPeer, "the peer answered IKE_INTERMEDIATE with "+n.Type.String())
				return
			}
		}
		s.end(ike.ReasonSyntax, ike.FaultPeer, "IKE_INTERMEDIATE response without KE payload")
		return
	}
	if ke.Group != hs.left[0] {
		s.end(ike.ReasonInvalidKE, ike.FaultPeer, "the peer answered IKE_INTERMEDIATE with another key exchange method than was agreed on")
		return
	}
	if err := s.cover(m.header, m.plaintext); err != nil {
		s.end(ike.ReasonInternal, ike.FaultLocal, err.Error())
		return
	}
	s.giveUp = s.now.Add(jobTimeout)
	s.do(ike.Agree{Group: ke.Group, Private: hs.private, Peer: ke.Data}, func(r ike.Result) {
		hs.private = nil
		a, ok := r.(ike.Agreed)
		if !ok || a.Err != nil {
			s.end(ike.ReasonInvalidKE, ike.FaultPeer, "compute an additional secret: "+resultError(a.Err))
			return
		}
		if s.mixIn(a.Shared) {
			s.nextIntermediate()
		}
	})
}

// serveIntermediate answers an additional key exchange. The new keys are in use behind the response (RFC 9370 2.2.2).
func (s *SA) serveIntermediate(v *serving, m message) {
	ke, _ := wire.Find[wire.KE](m.payloads, nil)
	if ke.Group != s.hs.left[0] {
		s.respond(v, wire.Notify{Type: wire.NotifyInvalidSyntax})
		s.end(ike.ReasonInvalidKE, ike.FaultPeer, "the peer began another additional key exchange than was agreed on")
		return
	}
	if err := s.cover(m.header, m.plaintext); err != nil {
		s.end(ike.ReasonInternal, ike.FaultLocal, err.Error())
		return
	}
	s.exchange(v, ke, func(public []byte, shared sa.Secret) {
		payloads := []wire.Payload{wire.KE{Group: ke.Group, Data: public}}
		h := s.header(v.exchange, v.id, true)
		if err := s.cover(h, plaintext{wire.First(payloads), wire.AppendPayloads(nil, payloads)}); err != nil {
			s.end(ike.ReasonInternal, ike.FaultLocal, err.Error())
			return
		}
		s.respond(v, payloads...)
		if s.mixIn(shared) {
			s.giveUp = s.now.Add(HalfOpen)
		}
	})
}

// mixIn makes the keys that follow an additional key exchange and puts them into use; false when that has ended the SA.
func (s *SA) mixIn(shared sa.Secret) bool {
	hs, old := s.hs, s.keys
	if s.state == StateClosed {
		return false
	}
	keys, err := suite.UpdateIKE(s.suite, old.D, shared, hs.ni, hs.nr, s.spii(), s.spir())
	if err == nil {
		err = s.protect(keys)
	}
	shared.Wipe()
	if err != nil {
		s.end(ike.ReasonInternal, ike.FaultLocal, "derive the keys of the IKE SA: "+err.Error())
		return false
	}
	old.D.Wipe() // the protection may still repeat the last message; nothing else needs the old keys
	old.PI.Wipe()
	old.PR.Wipe()
	s.trace("mixed in %s", hs.left[0])
	if hs.left = hs.left[1:]; len(hs.left) == 0 {
		s.state = StateAuthenticating
	}
	return true
}

// encapsulated answers IKE_SA_INIT with a KEM, whose secret the responder knows at once.
func (s *SA) encapsulated(r ike.Result) {
	e, ok := r.(ike.Encapsulated)
	if !ok || e.Err != nil {
		s.end(ike.ReasonInvalidKE, ike.FaultPeer, "encapsulate a secret for the peer: "+resultError(e.Err))
		return
	}
	s.hs.shared = e.Shared
	s.answerInit(ike.Generated{Public: e.Public})
}
