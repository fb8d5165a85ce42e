package ikev2

import "github.com/bailiwick-net/bailiwick/node/ike/wire"

// A policy may bound how many Child SAs take their keys from one key exchange of the IKE SA (ike.Config.ChildLimit): who
// learns SK_d learns the keys of no more than these. With 1 each has a key exchange of IKE of its own, the "master PFS" of
// Windows, whatever the groups in its own offers. Where the next one would be too many the IKE SA is rekeyed first, which
// makes another SK_d (RFC 7296 2.18), and its successor makes the Child SA. A peer that asks for one too many is told to
// wait (RFC 7296 2.25), and the IKE SA is rekeyed from this side.

// makesChild reports whether a task leads to another Child SA.
func makesChild(t task) bool {
	r := t.rank()
	return r == rankNewChild || r == rankRekeyChild
}

// spent reports whether no further Child SA may be begun: those that are being made count as well.
func (s *SA) spent() bool {
	if s.cfg.ChildLimit == 0 {
		return false
	}
	n := s.derived
	if s.current != nil && makesChild(s.current) {
		n++
	}
	for _, u := range s.unfinished {
		if u.in == createChildIn || u.in == rekeyChildIn {
			n++
		}
	}
	return n >= s.cfg.ChildLimit
}

// freshen asks for a rekey of the IKE SA where a Child SA waits that it must not make any more.
func (s *SA) freshen() {
	if !s.spent() || s.rekeyingIKE() || s.closing() {
		return
	}
	for _, q := range s.queue {
		if makesChild(q.task) && !s.now.Before(q.notBefore) {
			s.trace("%d Child SAs have keys of this IKE SA, which is rekeyed before the next one", s.derived)
			s.enqueue(&rekeyIKE{}, timeZero)
			return
		}
	}
}

// putsOff answers a request for one Child SA too many, and reports whether it did.
func (s *SA) putsOff(v *serving) bool {
	if !s.spent() {
		return false
	}
	s.trace("the peer asks for a Child SA beyond the limit of %d, the IKE SA is rekeyed first", s.cfg.ChildLimit)
	s.respond(v, wire.Notify{Type: wire.NotifyTemporaryFailure})
	if s.derived >= s.cfg.ChildLimit && !s.rekeyingIKE() && !s.closing() {
		s.enqueue(&rekeyIKE{}, timeZero)
	}
	return true
}
