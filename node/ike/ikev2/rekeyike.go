package ikev2

import (
	"fmt"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// succession is what a rekey of the IKE SA leaves at the old and at the new one.
type succession struct {
	successor   *SA           // holds the Child SAs
	predecessor *SA           // that has not decided yet between this SA and its own rekey
	peerRekey   *ikeCollision // the peer's rekey, answered while the own one was outstanding
	redundant   bool          // lost a collision: never used, deleted by its creator
}

// ikeCollision is the peer's rekey of the IKE SA that collides with the own one.
type ikeCollision struct {
	sa *SA
	ex Exchange
}

// rekeyIKE replaces the IKE SA by a new one with new keys (RFC 7296 1.3.2, 2.18).
type rekeyIKE struct {
	attempt int
	sent    bool
	own     wire.SPI
	group   proposal.Group
	tried   int
	private any
	ni      []byte
}

func (*rekeyIKE) rank() int { return rankRekeyIKE }

func (t *rekeyIKE) begin(s *SA) bool {
	if s.state != StateEstablished || s.peerRekey != nil || s.redundant {
		return false
	}
	t.sent, t.own = false, 0
	t.group = s.cfg.Offers[0].Group
	t.generate(s)
	return true
}

func (t *rekeyIKE) generate(s *SA) {
	s.do(ike.Generate{Group: t.group}, func(r ike.Result) {
		g, ok := r.(ike.Generated)
		switch {
		case s.current != t:
		case s.state != StateEstablished || s.closing():
			s.done(t)
		case !ok || g.Err != nil:
			s.trace("generate a key pair: %s", resultError(g.Err))
			s.later(t, 4, s.hard)
		default:
			t.private = g.Private
			t.ni = s.host.Random(nonceLen)
			if t.own == 0 {
				t.own = s.randomSPI()
			}
			t.sent = true
			s.request(wire.CreateChildSA,
				wire.SAFromIKE(s.cfg.Offers, t.own), wire.Nonce{Data: t.ni}, wire.KE{Group: t.group, Data: g.Public})
		}
	})
}

func (t *rekeyIKE) finish(s *SA, m message) {
	t.sent = true
	answer, hasSA := wire.Find[wire.SA](m.payloads, nil)
	ke, hasKE := wire.Find[wire.KE](m.payloads, nil)
	nonce, hasNonce := wire.Find[wire.Nonce](m.payloads, nil)
	if !hasSA || !hasKE || !hasNonce {
		if s.closing() {
			s.done(t)
			return
		}
		t.refused(s, m)
		return
	}
	chosen, peer, err := wire.AcceptIKE(s.cfg.Offers, answer, true)
	switch {
	case err != nil:
		t.failed(s, "the peer chose what was not offered: "+err.Error())
		return
	case peer == 0 || ke.Group != chosen.Group || ke.Group != t.group || suite.CheckNonce(chosen.PRF, nonce.Data) != nil:
		t.failed(s, "the peer's answer to the rekey of the IKE SA is not consistent")
		return
	}
	ex := Exchange{Ni: t.ni, Nr: nonce.Data}
	s.do(ike.Agree{Group: t.group, Private: t.private, Peer: ke.Data}, func(r ike.Result) {
		if s.current != t {
			return
		}
		a, ok := r.(ike.Agreed)
		if !ok || a.Err != nil {
			t.failed(s, "compute the shared secret: "+resultError(a.Err))
			return
		}
		complete := func(additional ...sa.Secret) {
			next, err := s.succeed(true, t.own, peer, chosen, ex, a.Shared, additional...)
			a.Shared.Wipe()
			if err != nil {
				t.failed(s, err.Error())
				return
			}
			s.done(t)
			s.troubled = timeZero
			t.decide(s, next)
		}
		methods := chosen.Additional.Methods()
		if len(methods) == 0 {
			complete()
			return
		}
		if t.loses(s, ex) {
			return
		}
		s.follow(methods, m.payloads, func(secrets []sa.Secret, f *childFailure) {
			if f == nil {
				complete(secrets...)
				return
			}
			a.Shared.Wipe()
			if f.notify == 0 {
				t.failed(s, f.detail)
				return
			}
			t.refusedWith(s, f.notify, f.data)
		})
	})
}

// loses ends a rekey that is not complete where a collision has decided against it, and hands the Child SAs over if the
// peer's is (RFC 7296 2.25.2).
func (t *rekeyIKE) loses(s *SA, ex Exchange) bool {
	switch {
	case s.peerRekeyStands() && ex.lowest(s.peerRekey.ex):
		s.trace("rekey collision lost before the additional key exchanges")
		s.done(t)
		s.handOver(s.peerRekey.sa)
		return true
	case s.losesTo(ex, rekeyIKEIn, nil):
		s.trace("rekey collision lost before the additional key exchanges, the peer's IKE SA is to come")
		s.done(t)
		return true
	}
	s.beatPeerRekey()
	return false
}

// beatPeerRekey leaves the SA of the peer's rekey to the peer, who deletes it.
func (s *SA) beatPeerRekey() {
	p := s.peerRekey
	if p == nil {
		return
	}
	p.sa.redundant = true
	p.sa.predecessor = nil
	p.sa.giveUp = s.now.Add(rekeyedWait)
	s.touch(p.sa)
	s.peerRekey = nil
}

// decide hands the Child SAs over to the new IKE SA, or to the peer's when the nonces say so (RFC 7296 2.25.2).
func (t *rekeyIKE) decide(s *SA, next *SA) {
	s.note(Successor{next})
	p := s.peerRekey
	if s.peerRekeyStands() && next.initial.lowest(p.ex) {
		s.trace("rekey collision lost: IKE SA %s is redundant", next.own)
		next.redundant = true
		next.closeIKE(ike.ReasonRedundant)
		next.advance()
		if s.state == StateEstablished {
			s.handOver(p.sa)
		}
		return
	}
	if s.losesTo(next.initial, rekeyIKEIn, nil) {
		s.trace("rekey collision lost: IKE SA %s is redundant, the peer's is to come", next.own)
		next.redundant = true
		next.closeIKE(ike.ReasonRedundant)
		next.advance()
		return
	}
	if p != nil {
		s.trace("rekey collision won with IKE SA %s", next.own)
		s.beatPeerRekey()
	}
	if s.state != StateEstablished || s.closing() {
		// The peer has deleted this SA while the secret was computed, or this side is about to. The peer takes that for
		// the end of the rekey and goes on with the new SA: it has to be told that this one ends as well.
		next.redundant = true
		next.closeIKE(ike.ReasonRedundant)
		next.advance()
		return
	}
	s.handOver(next)
	s.giveUp = timeZero
	s.enqueue(&deleteIKE{ike.ReasonRekeyed}, timeZero)
}

// refused handles an error answer.
func (t *rekeyIKE) refused(s *SA, m message) {
	for _, p := range m.payloads {
		if n, ok := p.(wire.Notify); ok && n.Type.IsError() {
			t.refusedWith(s, n.Type, n.Data)
			return
		}
	}
	t.failed(s, "the peer's answer to the rekey of the IKE SA is incomplete")
}

func (t *rekeyIKE) refusedWith(s *SA, n wire.NotifyType, data []byte) {
	switch {
	case s.peerRekeyStands():
		// The peer had finished its own rekey before it saw this one: its SA stands.
		s.done(t)
		s.handOver(s.peerRekey.sa)
	case s.unfinishedRekey(rekeyIKEIn, nil) != nil: // the same, and its SA is to come
		s.done(t)
	case n == wire.NotifyInvalidKEPayload && len(data) == 2 && t.tried < 3:
		t.tried++
		group := proposal.Group(uint16(data[0])<<8 | uint16(data[1]))
		for _, o := range s.cfg.Offers {
			if o.Group == group {
				t.group, t.sent, t.own = group, false, 0
				t.generate(s)
				return
			}
		}
		t.failed(s, "the peer wants a key exchange method that was not offered")
	case n == wire.NotifyTemporaryFailure, n == wire.NotifyStateNotFound:
		t.attempt++
		t.sent = false
		s.later(t, t.attempt, s.hard)
	default:
		t.failed(s, "the peer refused the rekey of the IKE SA with "+n.String())
	}
}

// failed gives this rekey up: the IKE SA is closed at its hard limit, and made anew when there is traffic.
func (t *rekeyIKE) failed(s *SA, detail string) {
	s.done(t)
	s.soft = timeZero
	s.note(ChildRefused{Reason: ike.ReasonPeerRefused, Detail: detail})
	s.trace("rekey of the IKE SA failed: %s", detail)
	if s.peerRekeyStands() && s.state == StateEstablished {
		s.handOver(s.peerRekey.sa)
	}
}

// peerRekeyStands reports whether the peer's rekey made an SA that is still there.
func (s *SA) peerRekeyStands() bool {
	if s.peerRekey != nil && s.peerRekey.sa.state != StateEstablished {
		s.peerRekey = nil
	}
	return s.peerRekey != nil
}

// succeed makes the IKE SA that replaces this one.
func (s *SA) succeed(initiator bool, own, peer wire.SPI, chosen proposal.IKE, ex Exchange, shared sa.Secret, additional ...sa.Secret) (*SA, error) {
	n := newSA(s.host, s.now, s.cfg, initiator, s.local, s.remote)
	if own != 0 {
		n.own = own
	}
	n.peer = peer
	n.suite = chosen
	n.initial, n.origin = ex, s.origin
	n.fragmentation, n.smallPath, n.creates = s.fragmentation, s.smallPath, s.creates
	n.natTraversal, n.mobility = s.natTraversal, s.mobility
	n.mapping, n.astray = nil, false // the hash covers the SPIs
	n.natLocal, n.natRemote, n.encap = s.natLocal, s.natRemote, s.encap
	n.auth, n.peerID, n.peerName = s.auth, s.peerID, s.peerName
	n.inheritStanding(s)
	keys, err := suite.RekeyIKE(chosen, s.suite.PRF, s.keys.D, shared, ex.Ni, ex.Nr, n.spii(), n.spir(), additional...)
	if err != nil {
		return nil, err
	}
	if err := n.protect(keys); err != nil {
		return nil, err
	}
	n.state, n.established = StateEstablished, s.now
	n.startLife()
	if n.doubt {
		n.rejudge()
	}
	return n, nil
}

// handOver gives everything that lives to the successor (RFC 7296 2.8: it inherits all Child SAs).
func (s *SA) handOver(next *SA) {
	next.predecessor = nil
	s.successor, s.peerRekey = next, nil
	next.now = s.now
	if !impair.On(impair.SurvivorEmpty) {
		next.children = append(next.children, s.children...)
	}
	s.children = nil
	s.abandonAll()
	next.win.silence = s.win.silence
	if p := s.win.pending; p != nil {
		next.win.silence += s.now.Sub(p.first)
	}
	s.handOverPath(next)
	var rest []queued
	for _, q := range s.queue {
		switch q.task.(type) {
		case *newChild, *rekeyChild, *deleteChild:
			next.queue = append(next.queue, q)
		case *deleteIKE:
			rest = append(rest, q)
		}
	}
	s.queue = rest
	s.state = StateRekeyed
	s.giveUp = s.now.Add(rekeyedWait)
	s.trace("rekeyed by IKE SA %s", next.own)
	s.host.Emit(ike.Up{
		IKE: ike.IKESPI(next.own), Peer: next.peerName, Local: next.local, Remote: next.remote, Suite: next.suite,
		Auth: next.auth.Method, Replaces: ike.IKESPI(s.own),
	})
	next.up = true
	if len(s.token) > 0 && len(next.token) == 0 {
		next.enqueue(&giveToken{}, timeZero)
	}
	if reason := s.closingFor(); reason != ike.ReasonNone && reason != ike.ReasonRekeyed {
		next.closeIKE(reason) // what was to end ends under whatever keys
	}
	next.advance()
	s.touch(next)
}

// adoptedByPeer is called when the peer uses this SA: if its predecessor has not decided yet, the peer has.
func (s *SA) adoptedByPeer() {
	if p := s.predecessor; p != nil && p.state == StateEstablished && !impair.On(impair.ForgetAdoption) {
		p.now = s.now
		p.handOver(s)
		s.touch(p)
	}
	s.predecessor = nil
}

// dropSuccessors ends what a rekey left undecided when the old SA is gone.
func (s *SA) dropSuccessors(reason ike.Reason) {
	if p := s.peerRekey; p != nil && s.successor == nil {
		p.sa.now = s.now
		p.sa.predecessor = nil
		p.sa.end(reason, ike.FaultNone, "")
		s.touch(p.sa)
	}
	s.peerRekey = nil
}

// serveRekeyIKE answers the peer's rekey of the IKE SA.
func (s *SA) serveRekeyIKE(v *serving, m message, offered wire.SA, ni []byte) {
	s.adoptedByPeer() // who rekeys this SA has decided that it replaces the one before
	if s.ikeRefused(v) {
		return
	}
	chosen, number, ok := wire.ChooseIKE(s.cfg.Offers, offered)
	ke, hasKE := wire.Find[wire.KE](m.payloads, nil)
	var peer wire.SPI
	if ok {
		peer, ok = offered.OfferedIKESPI(number)
	}
	switch {
	case !ok || peer == 0:
		s.note(ChildRefused{Reason: ike.ReasonNoProposal, Detail: fmt.Sprintf("none of the proposals for the new IKE SA is allowed by the policy: offered is %s; allowed is %v", offered, s.cfg.Offers)})
		s.respond(v, wire.Notify{Type: wire.NotifyNoProposalChosen})
		return
	case !hasKE || ke.Group != chosen.Group:
		s.respond(v, wire.Notify{Type: wire.NotifyInvalidKEPayload, Data: groupData(chosen.Group)})
		return
	}
	s.exchange(v, ke, func(public []byte, shared sa.Secret) {
		if s.ikeRefused(v) {
			return
		}
		ex := Exchange{Ni: ni, Nr: s.host.Random(nonceLen)}
		own := s.randomSPI()
		answer := []wire.Payload{
			wire.AnswerIKE(chosen, number, offered, own),
			wire.Nonce{Data: ex.Nr},
			wire.KE{Group: ke.Group, Data: public},
		}
		finish := func(v *serving, secrets []sa.Secret, answer ...wire.Payload) {
			next, err := s.succeed(false, own, peer, chosen, ex, secrets[0], secrets[1:]...)
			if err != nil {
				s.refuseRequest(ike.ReasonInternal, "rekey of the IKE SA: "+err.Error())
				s.respond(v, wire.Notify{Type: wire.NotifyTemporaryFailure})
				return
			}
			s.succeededByPeer(v, next, answer...)
		}
		methods := chosen.Additional.Methods()
		if len(methods) == 0 {
			finish(v, []sa.Secret{shared}, answer...)
			shared.Wipe()
			return
		}
		link, ok := s.await(&unfinished{
			in: rekeyIKEIn, ex: ex, left: methods, secrets: []sa.Secret{shared},
			finish: func(v *serving, last wire.KE, secrets []sa.Secret) { finish(v, secrets, last) },
		})
		if !ok {
			s.refuseRequest(ike.ReasonRateLimit, "too many additional key exchanges are under way")
			s.respond(v, wire.Notify{Type: wire.NotifyTemporaryFailure})
			return
		}
		s.respond(v, append(answer, link)...)
	})
}

// succeededByPeer puts the SA of the peer's rekey in the place of this one, or keeps it until the own rekey is decided.
func (s *SA) succeededByPeer(v *serving, next *SA, answer ...wire.Payload) {
	s.note(Successor{next})
	collision := s.judge(rekeyIKEIn, nil) == collide
	s.respond(v, answer...)
	if collision {
		s.peerRekey = &ikeCollision{sa: next, ex: next.initial}
		next.predecessor = s
		return
	}
	s.handOver(next)
}

func (s *SA) randomSPI() (spi wire.SPI) {
	for spi == 0 { // RFC 7296 3.1: an SPI MUST NOT be zero
		for _, b := range s.host.Random(8) {
			spi = spi<<8 | wire.SPI(b)
		}
	}
	return spi
}

// ikeRefused answers a rekey of the IKE SA that cannot be served now.
func (s *SA) ikeRefused(v *serving) bool {
	if s.win.serving != v {
		return true
	}
	if s.judge(rekeyIKEIn, nil) == temporary || s.peerRekey != nil || s.redundant {
		s.respond(v, wire.Notify{Type: wire.NotifyTemporaryFailure})
		return true
	}
	return false
}
