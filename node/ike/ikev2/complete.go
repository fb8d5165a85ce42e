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

// childFailure is why an own negotiation of a Child SA brought none.
type childFailure struct {
	notify wire.NotifyType // what the peer answered; 0 when its answer was not acceptable
	data   []byte
	reason ike.Reason
	detail string
	// made tells that the peer made the Child SA, so that it must be deleted.
	made bool
	// lost tells that a collision decided against this rekey before it was complete.
	lost bool
}

// completeChild reads the response to an own request. then gets a Child SA that is not installed yet, or the failure.
func (s *SA) completeChild(w *childRequest, payloads []wire.Payload, then func(*child, *childFailure)) {
	answer, hasSA := wire.Find[wire.SA](payloads, nil)
	tsi, hasTSi := wire.Find(payloads, func(t wire.TS) bool { return !t.Responder })
	tsr, hasTSr := wire.Find(payloads, func(t wire.TS) bool { return t.Responder })
	if !hasSA || !hasTSi || !hasTSr {
		for _, p := range payloads {
			if n, ok := p.(wire.Notify); ok && n.Type.IsError() {
				then(nil, &childFailure{
					notify: n.Type, data: n.Data, reason: reasonOf(n.Type),
					detail: "the peer refused the Child SA with " + n.Type.String(),
				})
				return
			}
		}
		then(nil, &childFailure{reason: ike.ReasonSyntax, detail: "response without SA, TSi and TSr"})
		return
	}
	bad := func(reason ike.Reason, format string, args ...any) {
		then(nil, &childFailure{reason: reason, detail: fmt.Sprintf(format, args...), made: true})
	}
	if !s.admits(w.rule) {
		bad(ike.ReasonPeerNotInGroup, "%s", s.notAdmitted(w.rule))
		return
	}
	chosen, peer, err := wire.AcceptESP(w.offers, answer, w.withGroup)
	if err != nil {
		bad(ike.ReasonNotOffered, "the peer chose what was not offered: %v", err)
		return
	}
	if peer < 256 {
		bad(ike.ReasonSyntax, "the peer chose the reserved SPI %s", peer)
		return
	}
	_, transport := wire.FindNotify(payloads, wire.NotifyUseTransportMode)
	if transport != w.transport { // RFC 7296 1.3.1: what is not acceptable is deleted
		bad(ike.ReasonModeDeclined, "the peer declined %s mode", w.rule.Mode)
		return
	}
	local, remote := narrowed(w.local, tsi.Selectors), narrowed(w.remote, tsr.Selectors)
	if local == nil || remote == nil || len(tsi.Other) > 0 || len(tsr.Other) > 0 {
		bad(ike.ReasonNotOffered, "the peer answered with selectors that were not offered: %v to %v", tsi.Selectors, tsr.Selectors)
		return
	}
	nr := w.nr
	if w.withGroup {
		n, ok := wire.Find[wire.Nonce](payloads, nil)
		if !ok || suite.CheckNonce(s.suite.PRF, n.Data) != nil {
			bad(ike.ReasonSyntax, "response without a usable nonce")
			return
		}
		nr = n.Data
		w.nr = nr
	}
	build := func(shared sa.Secret, additional ...sa.Secret) {
		own, theirs, err := suite.DeriveChild(s.suite.PRF, s.keys.D, shared, w.ni, nr, chosen, additional...)
		if err != nil {
			bad(ike.ReasonInternal, "derive the keys of the Child SA: %v", err)
			return
		}
		mode := sa.Tunnel
		if transport {
			mode = sa.Transport
		}
		c := s.newChild(w.rule, w.isDefault, mode, chosen, true)
		c.LocalTS, c.RemoteTS = local, remote
		c.Out, c.In = own, theirs
		c.Out.SPI, c.In.SPI = peer, w.spi
		c.ex = Exchange{Ni: w.ni, Nr: nr}
		if w.rekeys != nil {
			c.ReplacesIn = w.rekeys.In.SPI
		}
		c.Bundle = s.bundleOf(w, c)
		then(c, nil)
	}
	if !w.withGroup || chosen.Group == proposal.GroupNone {
		build(sa.Secret{})
		return
	}
	ke, ok := wire.Find[wire.KE](payloads, nil)
	if !ok || ke.Group != chosen.Group || !w.hasKE || w.ke.Group != chosen.Group {
		bad(ike.ReasonInvalidKE, "the peer answered with another key exchange method than it chose")
		return
	}
	s.do(ike.Agree{Group: chosen.Group, Private: w.private, Peer: ke.Data}, func(r ike.Result) {
		a, ok := r.(ike.Agreed)
		if !ok || a.Err != nil {
			bad(ike.ReasonInvalidKE, "compute the shared secret: %s", resultError(a.Err))
			return
		}
		methods := chosen.Additional.Methods()
		if len(methods) == 0 {
			build(a.Shared)
			a.Shared.Wipe()
			return
		}
		if s.losesRekey(w) {
			then(nil, &childFailure{lost: true})
			return
		}
		s.follow(methods, payloads, func(secrets []sa.Secret, f *childFailure) {
			if f != nil {
				then(nil, f)
			} else {
				build(a.Shared, secrets...)
			}
			a.Shared.Wipe()
		})
	})
}

// narrowed returns the answered selectors when each lies inside an offered one (RFC 7296 2.9), else nil.
func narrowed(offered, answered []sa.Selector) []sa.Selector {
	for _, a := range answered {
		inside := false
		for _, o := range offered {
			inside = inside || o.Contains(a)
		}
		if !inside {
			return nil
		}
	}
	return answered
}

// finishChild completes the Child SA of IKE_AUTH, or a new one of CREATE_CHILD_SA, for a flow.
func (s *SA) finishChild(w *childRequest, payloads []wire.Payload, flow ike.Flow) {
	s.completeChild(w, payloads, func(c *child, f *childFailure) {
		s.adoptNew(w, c, f, flow)
		if _, more := readResource(payloads); more && f == nil {
			s.moreResources(flow, w.rule)
		}
	})
}

// adoptNew installs a new Child SA and uses it at once, or reports the failure.
func (s *SA) adoptNew(w *childRequest, c *child, f *childFailure, flow ike.Flow) {
	if f == nil && s.forgotten(c.Out.SPI) {
		f = &childFailure{reason: ike.ReasonDeletedByPeer, detail: "the peer deleted the Child SA before it was up"}
	}
	if f != nil {
		if f.made {
			s.deleteUnwanted(w.spi)
		}
		s.note(FlowFailed{Flow: flow, Reason: f.reason, Fault: f.reason.Fault(), Detail: f.detail})
		return
	}
	if s.displaced(c) { // an address has changed since it was asked for
		s.deleteUnwanted(w.spi)
		s.note(FlowFailed{Flow: flow, Reason: ike.ReasonAddressChanged, Fault: ike.FaultNetwork})
		return
	}
	switch {
	case CoversFlow(c.Child, flow) || !flow.Packet.Source.IsValid() || coversPacket(c.Child, flow.Packet):
		// Where the peer has moved meanwhile, the flow is not found by the addresses of the Child SA.
		s.note(FlowServed{Flow: flow})
	default: // what the peer grants may serve other packets, unless it is there already
		s.note(FlowFailed{
			Flow: flow, Reason: ike.ReasonTSUnacceptable, Fault: ike.FaultPeer,
			Detail: fmt.Sprintf("the peer narrowed the selectors to %v to %v", c.LocalTS, c.RemoteTS),
		})
		if s.same(c) != nil {
			s.deleteUnwanted(w.spi)
			return
		}
	}
	s.install(c)
	s.switchOut(c)
	s.announce(c)
}

// forgotten reports whether the peer deleted its half of a Child SA before the response that made it came.
func (s *SA) forgotten(out sa.SPI) bool {
	for i, spi := range s.deleted {
		if spi == out && !impair.On(impair.LateResponse) {
			s.deleted = append(s.deleted[:i:i], s.deleted[i+1:]...)
			return true
		}
	}
	return false
}
