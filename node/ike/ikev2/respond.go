package ikev2

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Refusal is the unprotected answer to an IKE_SA_INIT request that makes no SA.
type Refusal struct {
	Notify wire.NotifyType
	Data   []byte
	Reason ike.Reason
	Detail string
}

// Respond reads an IKE_SA_INIT request and starts an SA for it, or refuses it without keeping anything. Cookies have
// been checked. The answer is sent when the key pair is made.
func Respond(host Host, now time.Time, cfg *ike.Config, local, remote netip.AddrPort, datagram []byte, m wire.Message) (*SA, *Refusal) {
	if r := accepted(StateKeyExchange, m.Header, m.Payloads); r != nil {
		return nil, &Refusal{Notify: wire.NotifyInvalidSyntax, Reason: ike.ReasonSyntax, Detail: r.Error()}
	}
	offer, _ := wire.Find[wire.SA](m.Payloads, nil)
	ke, _ := wire.Find[wire.KE](m.Payloads, nil)
	nonce, _ := wire.Find[wire.Nonce](m.Payloads, nil)
	chosen, number, ok := wire.ChooseIKE(withoutIntermediate(cfg.Offers, m), offer)
	if !ok {
		return nil, &Refusal{
			Notify: wire.NotifyNoProposalChosen, Reason: ike.ReasonNoProposal,
			Detail: fmt.Sprintf("none of the proposals for the IKE SA is allowed by the policy: offered is %s; allowed is %v", offer, cfg.Offers),
		}
	}
	if ke.Group != chosen.Group { // RFC 7296 1.2: tell the group that is wanted
		return nil, &Refusal{
			Notify: wire.NotifyInvalidKEPayload, Data: groupData(chosen.Group), Reason: ike.ReasonInvalidKE,
			Detail: "the key exchange payload is for another method than the chosen one",
		}
	}
	if err := suite.CheckNonce(chosen.PRF, nonce.Data); err != nil {
		return nil, &Refusal{Notify: wire.NotifyInvalidSyntax, Reason: ike.ReasonSyntax, Detail: err.Error()}
	}
	whole, ok := transcriptAgreed(cfg.Transcript, m)
	if !ok {
		return nil, &Refusal{Notify: wire.NotifyNoProposalChosen, Reason: ike.ReasonNoProposal, Detail: errNoTranscript}
	}
	if err := suite.CheckPublic(ke.Group, ke.Data); err != nil {
		return nil, &Refusal{Notify: wire.NotifyInvalidSyntax, Reason: ike.ReasonInvalidKE, Detail: err.Error()}
	}
	s := newSA(host, now, cfg, false, local, remote)
	s.peer = m.Header.SPIi
	s.suite = chosen
	s.hs = &handshake{
		request: slices.Clone(datagram),
		ni:      slices.Clone(nonce.Data), nr: host.Random(nonceLen),
		group:      ke.Group,
		transcript: whole,
		peerPublic: slices.Clone(ke.Data),
		answer:     wire.AnswerIKE(chosen, number, offer, 0),
	}
	s.initial = Exchange{Ni: s.hs.ni, Nr: s.hs.nr}
	s.giveUp = now.Add(HalfOpen)
	s.traceMessage(ike.TraceReceived, m)
	s.trace("choose proposal %d: %s", number, chosen)
	s.readInitNotifies(m, local, remote)
	s.win.expect = 1
	if ke.Group.KEM() {
		s.do(ike.Encapsulate{Group: ke.Group, Peer: s.hs.peerPublic}, func(r ike.Result) { s.encapsulated(r) })
		return s, nil
	}
	s.do(ike.Generate{Group: ke.Group}, func(r ike.Result) { s.answerInit(r) })
	return s, nil
}

func groupData(g proposal.Group) []byte { return []byte{byte(g >> 8), byte(g)} }

func (s *SA) answerInit(r ike.Result) {
	hs := s.hs
	g, ok := r.(ike.Generated)
	if !ok || g.Err != nil {
		s.end(ike.ReasonInternal, ike.FaultLocal, "generate a key pair: "+resultError(g.Err))
		return
	}
	hs.private = g.Private
	payloads := append(make([]wire.Payload, 0, usualPayloads),
		hs.answer,
		wire.KE{Group: hs.group, Data: g.Public},
		wire.Nonce{Data: hs.nr})
	payloads = append(payloads, s.initNotifies()...)
	payloads = append(payloads, s.intermediateSupport([]proposal.IKE{s.suite})...)
	payloads = append(payloads, s.answerPPK()...)
	payloads = append(payloads, s.transcriptSupport()...)
	if s.cfg.AnnounceAuthentication {
		payloads = append(payloads, s.announceAuth(s.announcedEntries())...)
	}
	if s.cfg.Childless != spd.ChildlessNever { // RFC 6023 3: the responder tells
		payloads = append(payloads, wire.Notify{Type: wire.NotifyChildlessIKEv2Supported})
	}
	payloads = append(payloads, s.certRequest()...)
	m := wire.Message{Header: s.header(wire.IKESAInit, 0, true), Payloads: payloads}
	hs.response = wire.AppendMessage(nil, m)
	s.traceMessage(ike.TraceSent, m)
	s.sendAll(s.local, s.remote, [][]byte{hs.response})
}

// InitRequest is the IKE_SA_INIT request that a half-open SA answered, nil otherwise: the engine recognises repetitions
// by it.
func (s *SA) InitRequest() []byte {
	if s.hs == nil || s.initiator {
		return nil
	}
	return s.hs.request
}

// RepeatInit sends the IKE_SA_INIT response again. latest is the request as it came with a valid cookie, or nil: it is the
// last that the initiator sent, and what its AUTH covers (RFC 7296 2.6, 2.15).
func (s *SA) RepeatInit(now time.Time, latest []byte) {
	s.now = now
	if s.hs != nil && latest != nil {
		s.hs.request = slices.Clone(latest)
	}
	if s.hs != nil && s.hs.response != nil && s.state == StateKeyExchange {
		s.sendAll(s.local, s.remote, [][]byte{s.hs.response})
	}
}

// hold keeps messages that came before the keys were computed, and computes them: the responder does so only when the
// peer has proved to receive at its address (RFC 7296 2.6).
func (s *SA) hold(local, remote netip.AddrPort, datagram []byte, m wire.Message) {
	hs := s.hs
	if hs == nil || s.initiator || hs.response == nil || m.Header.Response() || m.Header.Exchange != s.firstProtected() || m.Header.MessageID != 1 {
		s.drop(ike.ReasonUnexpected, m.Header, nil)
		return
	}
	if len(hs.early) < limitFragments && hs.octets+len(datagram) <= wire.LimitBeforeAuth && s.host.Room(len(datagram)) {
		hs.early = append(hs.early, early{local, remote, slices.Clone(datagram)})
		hs.octets += len(datagram)
	} else {
		s.drop(ike.ReasonBufferLimit, m.Header, nil)
	}
	if hs.agreeing {
		return
	}
	hs.agreeing = true
	s.agree(func() {
		held := hs.early
		hs.early, hs.octets = nil, 0
		for _, e := range held {
			if m, err := wire.ParseMessage(e.datagram, wire.LimitBeforeAuth); err == nil {
				s.receive(e.local, e.remote, e.datagram, m)
			}
		}
	})
}

// serveAuth authenticates the initiator, then this side, and makes the first Child SA.
func (s *SA) serveAuth(v *serving, m message) {
	hs := s.hs
	idi, _ := wire.Find(m.payloads, func(p wire.ID) bool { return !p.Responder })
	auth, hasAuth := wire.Find[wire.Auth](m.payloads, nil)
	if !hasAuth { // RFC 7296 2.16: the initiator wants EAP, which this program does not speak
		detail := idString(idi) + " sends no AUTH payload, which asks for EAP: there is no such authentication here"
		s.refuseAuth(v, ike.ReasonAuthFailed, detail, wire.NotifyAuthenticationFailed)
		return
	}
	s.readAnnounced(m.payloads)
	var want *childRequest // nil when the IKE SA is to have no Child SA yet
	var entries []spd.Auth
	if s.cfg.Childless == spd.ChildlessNever || !childless(m.payloads) {
		var err error
		if want, err = s.readChildRequest(m.payloads); err != nil {
			s.refuseAuth(v, ike.ReasonSyntax, err.Error(), wire.NotifyInvalidSyntax)
			return
		}
		want.ni, want.nr = hs.ni, hs.nr
		// The rule that covers the selectors decides who may authenticate how; only after that anything is made for them.
		if chosen, ok := s.narrow(want); ok {
			entries = chosen.rule.Auth
		}
	}
	if entries == nil {
		entries = s.fromElsewhere(want, idi, m.payloads)
	}
	if entries == nil {
		entries = peerAuth(s.cfg, s.remote.Addr())
	}
	chain := chainOf(m.payloads)
	s.verify(entries, idi, chain, auth, m, func(entry spd.Auth, made proof, p ike.Verified) {
		if s.win.serving != v {
			return
		}
		if p.Reason != ike.ReasonNone {
			s.peerName = ""
			s.refuseAuth(v, p.Reason, p.Detail, wire.NotifyAuthenticationFailed)
			return
		}
		s.auth = entry
		if err := s.adoptPPK(entry, made); err != nil {
			s.refuseAuth(v, ike.ReasonInternal, err.Error(), wire.NotifyAuthenticationFailed)
			return
		}
		s.believe(idi, entry, p, chain)
		s.authenticateBack(v, m, want)
	})
}

// childless reports whether an IKE_AUTH request asks for no Child SA: it has nothing of one (RFC 6023 3).
func childless(payloads []wire.Payload) bool {
	return !slices.ContainsFunc(payloads, func(p wire.Payload) bool {
		t := p.PayloadType()
		return t == wire.TypeSA || t == wire.TypeTSi || t == wire.TypeTSr
	})
}

// authenticateBack signs as responder and completes IKE_AUTH.
func (s *SA) authenticateBack(v *serving, m message, want *childRequest) {
	hs := s.hs
	id, err := s.ownID(s.auth, true)
	if err != nil {
		s.refuseAuth(v, ike.ReasonNoCredential, err.Error(), wire.NotifyAuthenticationFailed)
		return
	}
	octets, err := s.ownProof(id, v.id, hs.mixed)
	if err != nil {
		s.end(ike.ReasonInternal, ike.FaultLocal, err.Error())
		return
	}
	s.sign(s.auth, octets, func(auth wire.Auth, failure *refusal) {
		if s.win.serving != v {
			return
		}
		if failure != nil {
			s.refuseAuth(v, failure.reason, failure.detail, wire.NotifyAuthenticationFailed)
			return
		}
		payloads := append(make([]wire.Payload, 0, usualPayloads), id)
		payloads = append(payloads, s.certificates(s.auth)...)
		payloads = append(payloads, auth)
		payloads = append(payloads, s.confirmPPK()...)
		payloads = append(payloads, s.authLifetime()...)
		s.becomeEstablished(m.payloads)
		payloads = append(payloads, s.answerMobility()...)
		payloads = append(payloads, s.ownToken()...)
		if want == nil {
			s.respond(v, payloads...)
			return
		}
		// A Child SA that cannot be made does not end the IKE SA (RFC 7296 1.3).
		answer, c := s.acceptChild(want, nil)
		payloads = append(payloads, answer...)
		s.respond(v, payloads...)
		s.announce(c)
	})
}

// refuseAuth answers IKE_AUTH with one error and closes (RFC 7296 2.21.2).
func (s *SA) refuseAuth(v *serving, reason ike.Reason, detail string, n wire.NotifyType) {
	s.respond(v, wire.Notify{Type: n})
	s.end(reason, reason.Fault(), detail)
}
