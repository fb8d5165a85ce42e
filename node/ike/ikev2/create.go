package ikev2

import (
	"fmt"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// newChild makes a Child SA for a flow with CREATE_CHILD_SA (RFC 7296 1.3.1).
type newChild struct {
	flow     ike.Flow
	rule     ike.Rule
	attempt  int
	want     *childRequest
	moved    bool   // INVALID_KE_PAYLOAD was followed once
	resource uint32 // RFC 9611; 0 for the one that the flow waits for
}

func (*newChild) rank() int { return rankNewChild }

// Acquire makes a Child SA for a flow when the SA is established.
func (s *SA) Acquire(now time.Time, flow ike.Flow, rule ike.Rule) {
	s.now = now
	s.enqueue(&newChild{flow: flow, rule: rule}, timeZero)
	s.advance()
}

func (t *newChild) begin(s *SA) bool {
	if c := s.carrying(t.flow); c != nil && t.resource == 0 { // the peer was faster
		s.trace("Child SA in %s carries the flow already", c.In.SPI)
		s.note(FlowServed{Flow: t.flow})
		return false
	}
	if !s.admits(&t.rule) {
		s.note(FlowFailed{
			Flow: t.flow, Reason: ike.ReasonPeerNotInGroup, Fault: ike.ReasonPeerNotInGroup.Fault(), Detail: s.notAdmitted(&t.rule),
		})
		return false
	}
	t.want = s.newChildRequest(t.flow, t.rule, true, t.resource)
	s.startCreate(t, t.want, nil)
	return true
}

// startCreate sends CREATE_CHILD_SA, after making a key pair where the offers have a group. prefix holds REKEY_SA.
func (s *SA) startCreate(t task, w *childRequest, prefix []wire.Payload) {
	w.ni = s.host.Random(nonceLen)
	send := func() {
		s.request(wire.CreateChildSA, append(slices.Clone(prefix), s.childPayloads(w)...)...)
	}
	group := w.group()
	if group == proposal.GroupNone {
		send()
		return
	}
	s.do(ike.Generate{Group: group}, func(r ike.Result) {
		g, ok := r.(ike.Generated)
		switch {
		case s.current != t:
		case !ok || g.Err != nil:
			s.trace("generate a key pair: %s", resultError(g.Err))
			s.later(t, 4, timeZero)
		case !stillWanted(s, t):
			s.done(t)
		default:
			w.private, w.hasKE = g.Private, true
			w.ke = wire.KE{Group: group, Data: g.Public}
			send()
		}
	})
}

// stillWanted reports whether the request that a job has prepared should still go out.
func stillWanted(s *SA, t task) bool {
	if s.state != StateEstablished || s.closing() {
		return false
	}
	r, ok := t.(*rekeyChild)
	return !ok || !r.old.gone && r.old.peerRekey == nil
}

func (t *newChild) finish(s *SA, m message) {
	s.completeChild(t.want, m.payloads, func(c *child, f *childFailure) {
		switch {
		case s.current != t:
			return
		case s.closing():
			s.done(t)
			return
		case f != nil && (f.notify == wire.NotifyTemporaryFailure || f.notify == wire.NotifyStateNotFound):
			t.attempt++
			s.later(t, t.attempt, timeZero)
			return
		case f != nil && f.notify == wire.NotifyInvalidKEPayload && !t.moved && moveGroup(t.want, f.data):
			t.moved = true
			s.startCreate(t, t.want, nil)
			return
		}
		s.done(t)
		s.troubled = timeZero
		if t.resource > 0 {
			s.adoptResource(t.want, c, f, t.flow)
			return
		}
		s.adoptNew(t.want, c, f, t.flow)
		if _, more := readResource(m.payloads); more && f == nil {
			s.moreResources(t.flow, &t.rule)
		}
	})
}

// moveGroup puts the offers with the group that the peer wants first; false when none has it.
func moveGroup(w *childRequest, data []byte) bool {
	if len(data) != 2 {
		return false
	}
	group := proposal.Group(uint16(data[0])<<8 | uint16(data[1]))
	i := slices.IndexFunc(w.offers, func(o proposal.ESP) bool { return o.Group == group })
	if i < 0 || group == w.group() {
		return false
	}
	slices.SortStableFunc(w.offers, func(a, b proposal.ESP) int {
		switch {
		case a.Group == group && b.Group != group:
			return -1
		case b.Group == group && a.Group != group:
			return 1
		}
		return 0
	})
	w.hasKE, w.private = false, nil
	return true
}

// serveCreate answers CREATE_CHILD_SA: a new Child SA, or the rekey of one or of the IKE SA (RFC 7296 1.3).
func (s *SA) serveCreate(v *serving, m message) {
	offered, _ := wire.Find[wire.SA](m.payloads, nil)
	nonce, _ := wire.Find[wire.Nonce](m.payloads, nil)
	if err := suite.CheckNonce(s.suite.PRF, nonce.Data); err != nil {
		s.respond(v, wire.Notify{Type: wire.NotifyInvalidSyntax})
		s.end(ike.ReasonSyntax, ike.FaultPeer, err.Error())
		return
	}
	if !s.creates.take(s.now) {
		s.refuseRequest(ike.ReasonRateLimit, fmt.Sprintf("more than %d requests for Child SAs at once or %d a second", createBurst, createRate))
		s.respond(v, wire.Notify{Type: wire.NotifyTemporaryFailure})
		return
	}
	if len(offered.Proposals) > 0 && offered.Proposals[0].Protocol == wire.ProtocolIKE {
		s.serveRekeyIKE(v, m, offered, nonce.Data)
		return
	}
	s.adoptedByPeer()
	var old *child
	in := createChildIn
	rekey, isRekey := wire.FindNotify(m.payloads, wire.NotifyRekeySA)
	if isRekey {
		in = rekeyChildIn
		if len(rekey.SPI) != 4 { // RFC 7296 3.10: no Child SA has such an SPI, and no answer may name it
			s.respond(v, wire.Notify{Type: wire.NotifyInvalidSyntax})
			s.end(ike.ReasonSyntax, ike.FaultPeer, fmt.Sprintf("the peer rekeys a Child SA with an SPI of %d octets", len(rekey.SPI)))
			return
		}
		if rekey.Protocol == wire.ProtocolESP { // RFC 7296 3.10: an SPI counts within its protocol
			old = s.childByOut(spiOf(rekey.SPI))
		}
	}
	if s.refused(v, in, old, rekey) || s.putsOff(v) {
		return
	}
	want, err := s.readChildRequest(m.payloads)
	if err != nil {
		s.respond(v, wire.Notify{Type: wire.NotifyInvalidSyntax})
		s.end(ike.ReasonSyntax, ike.FaultPeer, err.Error())
		return
	}
	want.withGroup, want.rekeys = true, old
	want.nr = s.host.Random(nonceLen)
	choice, refusal := s.chooseChild(want)
	switch {
	case refusal != nil:
		s.respond(v, *refusal)
		return
	case choice.suite.Group == proposal.GroupNone:
		s.answerCreate(v, want, choice, in, nil, sa.Secret{}, rekey)
		return
	case !want.hasKE || want.ke.Group != choice.suite.Group: // RFC 7296 1.3: tell the group that is wanted
		s.respond(v, wire.Notify{Type: wire.NotifyInvalidKEPayload, Data: groupData(choice.suite.Group)})
		return
	}
	s.exchange(v, want.ke, func(public []byte, shared sa.Secret) {
		if s.refused(v, in, old, rekey) { // things may have changed during the jobs
			return
		}
		if sel := choice.selection; sel.mode == sa.Transport && (!bound(sel.local, s.local.Addr()) || !bound(sel.remote, s.remote.Addr())) {
			s.respond(v, wire.Notify{Type: wire.NotifyTemporaryFailure}) // so may the addresses
			return
		}
		s.answerCreate(v, want, choice, in, &wire.KE{Group: want.ke.Group, Data: public}, shared, rekey)
	})
}

func (s *SA) answerCreate(v *serving, w *childRequest, choice childChoice, in incoming, ke *wire.KE, shared sa.Secret, rekey wire.Notify) {
	if methods := choice.suite.Additional.Methods(); len(methods) > 0 {
		s.answerUnfinished(v, w, choice, in, ke, shared, rekey, methods)
		return
	}
	payloads, c := s.buildChild(w, choice, ke, shared)
	shared.Wipe()
	s.answered(v, w, in, c, payloads...)
}

// answered sends the response with which a Child SA of the peer is complete.
func (s *SA) answered(v *serving, w *childRequest, in incoming, c *child, payloads ...wire.Payload) {
	if c != nil && in == rekeyChildIn {
		if impair.On(impair.OutboundFirst) {
			s.switchOut(c)
		}
		if impair.On(impair.ForgetPeerRekey) {
			s.respond(v, payloads...)
			return
		}
		w.rekeys.peerRekey = &peerRekey{child: c, ex: Exchange{Ni: w.ni, Nr: w.nr}}
		c.twin = w.rekeys.twin // still the one to go
	}
	s.respond(v, payloads...)
	if in == createChildIn {
		s.announce(c)
	}
}

// answerUnfinished answers CREATE_CHILD_SA where additional key exchanges are to follow.
func (s *SA) answerUnfinished(v *serving, w *childRequest, choice childChoice, in incoming, ke *wire.KE, shared sa.Secret, rekey wire.Notify, methods []proposal.Group) {
	u := &unfinished{
		in: in, old: w.rekeys, rekey: rekey, ex: Exchange{Ni: w.ni, Nr: w.nr}, left: methods, secrets: []sa.Secret{shared},
		finish: func(v *serving, last wire.KE, secrets []sa.Secret) {
			c, err := s.makeChild(w, choice, secrets[0], secrets[1:]...)
			if err != nil {
				s.refuseRequest(ike.ReasonInternal, "derive the keys of a Child SA: "+err.Error())
				s.respond(v, wire.Notify{Type: wire.NotifyNoProposalChosen})
				return
			}
			s.answered(v, w, in, c, last)
		},
	}
	link, ok := s.await(u)
	if !ok {
		s.refuseRequest(ike.ReasonRateLimit, "too many additional key exchanges are under way")
		s.respond(v, wire.Notify{Type: wire.NotifyTemporaryFailure})
		return
	}
	s.respond(v, append(s.answerChild(w, choice, ke), link)...)
}

// refused answers a request that the collision table does not let through.
func (s *SA) refused(v *serving, in incoming, old *child, rekey wire.Notify) bool {
	if s.win.serving != v {
		return true
	}
	if in == rekeyChildIn && old != nil && old.peerRekey != nil && !old.gone && !old.peerRekey.child.gone {
		s.respond(v, wire.Notify{Type: wire.NotifyTemporaryFailure}) // the peer has rekeyed it already
		return true
	}
	switch s.judge(in, old) {
	case temporary:
		s.respond(v, wire.Notify{Type: wire.NotifyTemporaryFailure})
		return true
	case notFound:
		s.respond(v, wire.Notify{Type: wire.NotifyChildSANotFound, Protocol: wire.ProtocolESP, SPI: rekey.SPI})
		return true
	default:
		return false
	}
}

// exchange makes a key pair and the shared secret for a peer's request, as responder.
func (s *SA) exchange(v *serving, ke wire.KE, then func(public []byte, shared sa.Secret)) {
	invalid := func(err error) { // RFC 7296 1.3, RFC 6989 2.5: an invalid public value
		s.trace("compute the shared secret: %s", resultError(err))
		s.respond(v, wire.Notify{Type: wire.NotifyInvalidSyntax})
		s.end(ike.ReasonInvalidKE, ike.FaultPeer, "the peer's public value is not valid")
	}
	if ke.Group.KEM() {
		s.do(ike.Encapsulate{Group: ke.Group, Peer: ke.Data}, func(r ike.Result) {
			e, ok := r.(ike.Encapsulated)
			switch {
			case s.win.serving != v:
			case !ok || e.Err != nil:
				invalid(e.Err)
			default:
				then(e.Public, e.Shared)
			}
		})
		return
	}
	s.do(ike.Generate{Group: ke.Group}, func(r ike.Result) {
		if s.win.serving != v {
			return
		}
		g, ok := r.(ike.Generated)
		if !ok || g.Err != nil {
			s.refuseRequest(ike.ReasonInternal, "generate a key pair: "+resultError(g.Err))
			s.respond(v, wire.Notify{Type: wire.NotifyTemporaryFailure})
			return
		}
		s.do(ike.Agree{Group: ke.Group, Private: g.Private, Peer: ke.Data}, func(r ike.Result) {
			if s.win.serving != v {
				return
			}
			a, ok := r.(ike.Agreed)
			if !ok || a.Err != nil {
				invalid(a.Err)
				return
			}
			then(g.Public, a.Shared)
		})
	})
}

func spiOf(b []byte) sa.SPI {
	return sa.SPI(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]))
}
