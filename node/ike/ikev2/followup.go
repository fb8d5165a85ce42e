package ikev2

import (
	"crypto/subtle"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// Additional key exchanges behind a CREATE_CHILD_SA: one IKE_FOLLOWUP_KE each (RFC 9370 2.2.4). The SA comes into being
// with the last of them. Until then the responder keeps what was agreed on under a link, which the initiator repeats.

const (
	// followupWait is how long a responder waits for the next IKE_FOLLOWUP_KE. Who comes later hears STATE_NOT_FOUND and
	// begins anew.
	followupWait = 30 * time.Second
	// limitUnfinished bounds what a responder keeps for one peer, whose window allows one.
	limitUnfinished = 4
	linkLen         = 16
)

// followup is the initiator's side.
type followup struct {
	task    task
	left    []proposal.Group // methods of the exchanges to come
	link    []byte
	private any
	secrets []sa.Secret // SK(1) and on
	then    func(secrets []sa.Secret, f *childFailure)
}

// follow makes the additional key exchanges of the running task, whose CREATE_CHILD_SA was answered with payloads.
func (s *SA) follow(methods []proposal.Group, payloads []wire.Payload, then func([]sa.Secret, *childFailure)) {
	f := &followup{task: s.current, left: methods, then: then}
	if !f.relink(payloads) {
		then(nil, &childFailure{reason: ike.ReasonSyntax, detail: "the peer's answer does not link to the additional key exchanges that it chose"})
		return
	}
	s.following = f
	f.next(s)
}

// relink takes the link of an answer after which another exchange is to come.
func (f *followup) relink(payloads []wire.Payload) bool {
	n, ok := wire.FindNotify(payloads, wire.NotifyAdditionalKeyExchange)
	f.link = slices.Clone(n.Data)
	return ok
}

func (f *followup) next(s *SA) {
	group := f.left[0]
	s.do(ike.Generate{Group: group}, func(r ike.Result) {
		if s.following != f || s.current != f.task {
			return
		}
		g, ok := r.(ike.Generated)
		switch {
		case s.closing() || s.state != StateEstablished:
			s.following = nil
			f.wipe()
			s.done(f.task)
		case !ok || g.Err != nil:
			f.end(s, &childFailure{notify: wire.NotifyTemporaryFailure, reason: ike.ReasonInternal, detail: "generate a key pair: " + resultError(g.Err)})
		default:
			f.private = g.Private
			s.request(wire.IKEFollowupKE,
				wire.KE{Group: group, Data: g.Public},
				wire.Notify{Type: wire.NotifyAdditionalKeyExchange, Data: f.link})
		}
	})
}

// end gives the secrets, or the failure, to who asked for them.
func (f *followup) end(s *SA, failure *childFailure) {
	s.following = nil
	f.then(f.secrets, failure)
	f.wipe()
}

func (f *followup) wipe() {
	for _, secret := range f.secrets {
		secret.Wipe()
	}
}

// finishFollowup handles the response to IKE_FOLLOWUP_KE.
func (s *SA) finishFollowup(m message) {
	f := s.following
	if f == nil || s.current != f.task {
		return
	}
	last := len(f.left) == 1 // then the peer has made the SA
	ke, ok := wire.Find[wire.KE](m.payloads, nil)
	if !ok {
		for _, p := range m.payloads {
			if n, ok := p.(wire.Notify); ok && n.Type.IsError() {
				f.end(s, &childFailure{
					notify: n.Type, data: n.Data, reason: reasonOf(n.Type),
					detail: "the peer refused the additional key exchange with " + n.Type.String(),
				})
				return
			}
		}
		f.end(s, &childFailure{reason: ike.ReasonSyntax, detail: "IKE_FOLLOWUP_KE response without KE payload"})
		return
	}
	if ke.Group != f.left[0] || !last && !f.relink(m.payloads) {
		f.end(s, &childFailure{reason: ike.ReasonInvalidKE, detail: "the peer's answer to IKE_FOLLOWUP_KE is not consistent", made: last})
		return
	}
	s.do(ike.Agree{Group: ke.Group, Private: f.private, Peer: ke.Data}, func(r ike.Result) {
		if s.following != f || s.current != f.task {
			return
		}
		f.private = nil
		a, ok := r.(ike.Agreed)
		if !ok || a.Err != nil {
			f.end(s, &childFailure{reason: ike.ReasonInvalidKE, detail: "compute an additional secret: " + resultError(a.Err), made: last})
			return
		}
		f.secrets = append(f.secrets, a.Shared)
		if f.left = f.left[1:]; len(f.left) > 0 {
			f.next(s)
			return
		}
		f.end(s, nil)
	})
}

// unfinished is the responder's side: a CREATE_CHILD_SA of the peer that was answered and has made nothing yet.
type unfinished struct {
	link    []byte
	in      incoming
	old     *child // that is rekeyed
	rekey   wire.Notify
	ex      Exchange
	left    []proposal.Group
	secrets []sa.Secret // SK(0) and on
	until   time.Time
	// finish makes the SA and responds to the last exchange with the own public value.
	finish func(v *serving, ke wire.KE, secrets []sa.Secret)
}

// await keeps what was agreed on until the peer goes on, and returns the link to it. Another one for the same SA takes the
// place of the one before, which the peer has given up. ok is false when the peer has left too many behind.
func (s *SA) await(u *unfinished) (link wire.Notify, ok bool) {
	if u.in != createChildIn {
		s.abandon(s.unfinishedRekey(u.in, u.old))
	}
	if len(s.unfinished) >= limitUnfinished {
		return wire.Notify{}, false
	}
	u.link, u.until = s.host.Random(linkLen), s.now.Add(followupWait)
	s.unfinished = append(s.unfinished, u)
	return wire.Notify{Type: wire.NotifyAdditionalKeyExchange, Data: u.link}, true
}

// unfinishedRekey is the peer's rekey of c, or of the IKE SA, that waits for additional key exchanges; nil without one.
func (s *SA) unfinishedRekey(in incoming, c *child) *unfinished {
	for _, u := range s.unfinished {
		if u.in == in && u.old == c {
			return u
		}
	}
	return nil
}

// abandon forgets u, which may be nil.
func (s *SA) abandon(u *unfinished) {
	if u == nil {
		return
	}
	for _, secret := range u.secrets {
		secret.Wipe()
	}
	s.unfinished = slices.DeleteFunc(s.unfinished, func(o *unfinished) bool { return o == u })
}

func (s *SA) abandonAll() {
	for len(s.unfinished) > 0 {
		s.abandon(s.unfinished[0])
	}
}

// expireUnfinished forgets what the peer has not gone on with.
func (s *SA) expireUnfinished() {
	for _, u := range slices.Clone(s.unfinished) {
		if !s.now.Before(u.until) {
			s.trace("the peer did not go on with its additional key exchanges")
			s.abandon(u)
		}
	}
}

// waits reports whether a task has to wait: until the peer has finished what it began, because anything else would only
// collide with it, or until the predecessor has handed its Child SAs over.
func (s *SA) waits(t task) bool {
	return len(s.unfinished) > 0 && t.rank() > rankDeleteChild || s.predecessor != nil && t.rank() > rankDeleteIKE ||
		makesChild(t) && s.spent() && s.rekeyingIKE()
}

// serveFollowup answers an additional key exchange, and makes the SA with the last one.
func (s *SA) serveFollowup(v *serving, m message) {
	ke, _ := wire.Find[wire.KE](m.payloads, nil)
	link, _ := wire.FindNotify(m.payloads, wire.NotifyAdditionalKeyExchange)
	i := slices.IndexFunc(s.unfinished, func(u *unfinished) bool { return subtle.ConstantTimeCompare(u.link, link.Data) == 1 })
	if i < 0 {
		s.respond(v, wire.Notify{Type: wire.NotifyStateNotFound})
		return
	}
	u := s.unfinished[i]
	if ke.Group != u.left[0] {
		s.respond(v, wire.Notify{Type: wire.NotifyInvalidSyntax})
		s.end(ike.ReasonInvalidKE, ike.FaultPeer, "the peer began another additional key exchange than was agreed on")
		return
	}
	stopped := func() bool { // things may have changed since the last exchange, and during the jobs
		var refused bool
		switch {
		case s.win.serving != v:
			return true
		case !slices.Contains(s.unfinished, u): // by a new configuration, or a collision that was won
			s.respond(v, wire.Notify{Type: wire.NotifyStateNotFound})
			return true
		case u.in == rekeyIKEIn:
			refused = s.ikeRefused(v)
		default:
			refused = s.refused(v, u.in, u.old, u.rekey)
		}
		if refused {
			s.abandon(u)
		}
		return refused
	}
	if stopped() {
		return
	}
	u.until = s.now.Add(followupWait)
	s.exchange(v, ke, func(public []byte, shared sa.Secret) {
		if stopped() {
			return
		}
		answer := wire.KE{Group: ke.Group, Data: public}
		u.secrets, u.left = append(u.secrets, shared), u.left[1:]
		if len(u.left) > 0 {
			u.until = s.now.Add(followupWait)
			s.respond(v, answer, wire.Notify{Type: wire.NotifyAdditionalKeyExchange, Data: u.link})
			return
		}
		u.finish(v, answer, u.secrets)
		s.abandon(u)
	})
}
