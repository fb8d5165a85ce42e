package ikev2

import (
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// rekeyChild replaces a Child SA by a new one (RFC 7296 1.3.3, 2.8).
type rekeyChild struct {
	old     *child
	attempt int
	want    *childRequest
	moved   bool
}

func (*rekeyChild) rank() int { return rankRekeyChild }

// RekeyChild rekeys the Child SA with this inbound SPI now.
func (s *SA) RekeyChild(now time.Time, in sa.SPI) {
	s.now = now
	if c := s.childByIn(in); c != nil {
		s.rekeyChild(c)
	}
	s.advance()
}

func (s *SA) rekeyChild(c *child) {
	if c.gone || c.deleting || c.replaced || c.peerRekey != nil || c.twin != nil || s.closing() {
		return
	}
	for _, t := range s.tasks() {
		switch t := t.(type) {
		case *rekeyChild:
			if t.old == c {
				return
			}
		case *deleteChild:
			if t.child == c {
				return
			}
		}
	}
	s.enqueue(&rekeyChild{old: c}, timeZero)
}

func (t *rekeyChild) begin(s *SA) bool {
	c := t.old
	if c.gone || c.deleting || c.replaced || c.peerRekey != nil || c.twin != nil {
		return false
	}
	if !c.switched { // the peer may not know it yet, and would answer CHILD_SA_NOT_FOUND
		c.rekeyDue = true
		return false
	}
	t.want = &childRequest{
		rule: c.rule, isDefault: c.DefaultResponse, offers: s.groupsOf(c.rule),
		transport: c.Mode == sa.Transport, local: c.LocalTS, remote: c.RemoteTS, withGroup: true, rekeys: c,
	}
	t.want.spi = s.host.ChildSPI(s.laneOf(t.want, c.rule))
	s.startCreate(t, t.want, t.prefix())
	return true
}

func (t *rekeyChild) prefix() []wire.Payload {
	spi := t.old.In.SPI
	return []wire.Payload{wire.Notify{
		Type: wire.NotifyRekeySA, Protocol: wire.ProtocolESP,
		SPI: []byte{byte(spi >> 24), byte(spi >> 16), byte(spi >> 8), byte(spi)},
	}}
}

func (t *rekeyChild) finish(s *SA, m message) {
	s.completeChild(t.want, m.payloads, func(c *child, f *childFailure) {
		switch {
		case s.current != t:
			return
		case s.closing():
			s.done(t)
		case f != nil:
			t.failed(s, f)
		default:
			s.done(t)
			s.troubled = timeZero
			t.decide(s, c)
		}
	})
}

// failed handles a refusal. Where the peer rekeyed or deleted the old Child SA meanwhile, the collision explains it.
func (t *rekeyChild) failed(s *SA, f *childFailure) {
	old := t.old
	explained := old.gone || old.peerRekey != nil || s.unfinishedRekey(rekeyChildIn, old) != nil
	switch {
	case f.lost:
		s.trace("rekey collision lost before the additional key exchanges")
		s.yieldRekey(t)
	case f.made:
		s.done(t)
		s.deleteUnwanted(t.want.spi)
	case explained:
		s.trace("rekey collision: the peer replaces or deletes Child SA in %s itself", old.In.SPI)
		s.yieldRekey(t)
	case f.notify == wire.NotifyTemporaryFailure, f.notify == wire.NotifyStateNotFound, f.notify == wire.NotifyNoAdditionalSAs:
		t.attempt++
		s.later(t, t.attempt, old.installed.Add(old.Hard.Time))
	case f.notify == wire.NotifyInvalidKEPayload && !t.moved && moveGroup(t.want, f.data):
		t.moved = true
		s.startCreate(t, t.want, t.prefix())
	case f.notify == wire.NotifyChildSANotFound:
		// RFC 7296 2.25.1: the peer has lost it. It is made anew.
		s.done(t)
		flow := ike.Flow{
			Rule: old.Rule, Local: s.local.Addr(), Remote: s.remote.Addr(),
			LocalTS: old.LocalTS[0], RemoteTS: old.RemoteTS[0],
		}
		s.uninstall(old, ike.ReasonDeletedByPeer)
		if !old.DefaultResponse {
			s.enqueue(&newChild{flow: flow, rule: *old.rule}, timeZero)
		}
	default:
		// The old one lives until its hard limit; traffic then asks again and gets the reason.
		s.done(t)
		s.note(ChildRefused{Reason: f.reason, Detail: "rekey: " + f.detail})
	}
}

// losesRekey reports whether a collision has decided against an own rekey that is not complete yet.
func (s *SA) losesRekey(w *childRequest) bool {
	if w.rekeys == nil {
		return false
	}
	own := Exchange{Ni: w.ni, Nr: w.nr}
	pr := w.rekeys.peerRekey
	return pr != nil && !pr.child.gone && own.lowest(pr.ex) || s.losesTo(own, rekeyChildIn, w.rekeys)
}

// yieldRekey ends an own rekey in favour of the peer's. Where that one is not complete, the own one is tried again after
// the peer has had its time.
func (s *SA) yieldRekey(t *rekeyChild) {
	s.done(t)
	if s.unfinishedRekey(rekeyChildIn, t.old) != nil {
		s.enqueue(t, s.now.Add(followupWait))
	}
}

// decide uses the new Child SA, or gives it up when the nonces of a collision say so.
func (t *rekeyChild) decide(s *SA, c *child) {
	old, own := t.old, Exchange{Ni: t.want.ni, Nr: t.want.nr}
	if s.forgotten(c.Out.SPI) {
		s.trace("the peer deleted Child SA in %s before its response came", c.In.SPI)
		return
	}
	if pr := old.peerRekey; pr != nil && own.lowest(pr.ex) {
		s.trace("rekey collision lost: Child SA in %s is redundant", c.In.SPI)
		s.deleteUnwanted(c.In.SPI)
		return
	}
	if s.losesTo(own, rekeyChildIn, old) {
		s.trace("rekey collision lost: Child SA in %s is redundant, the peer's is to come", c.In.SPI)
		s.deleteUnwanted(c.In.SPI)
		s.yieldRekey(t)
		return
	}
	if s.displaced(c) {
		s.deleteUnwanted(c.In.SPI)
		s.closeChild(old, ike.ReasonAddressChanged)
		return
	}
	if old.peerRekey != nil {
		s.trace("rekey collision won with Child SA in %s", c.In.SPI)
		old.peerRekey = nil // the peer deletes that one; it is never used
	}
	s.install(c)
	s.switchOut(c)
	if c.twin = old.twin; c.twin != nil && c.twin.switched { // found while the rekey was under way: still the one to go
		s.closeChild(c, ike.ReasonRedundant)
	}
	if !old.gone {
		old.replaced = true
		s.enqueue(&deleteChild{child: old, reason: ike.ReasonRekeyed}, timeZero)
	}
}

// deleteChild deletes a Child SA (RFC 7296 1.4.1).
type deleteChild struct {
	child  *child // nil for one that was never installed here
	spi    sa.SPI
	reason ike.Reason
}

func (t *deleteChild) rank() int {
	if t.child == nil && !impair.On(impair.DeleteOldFirst) {
		return rankDeleteUnwanted
	}
	return rankDeleteChild
}

// deleteUnwanted deletes a Child SA that the peer made and this side does not use.
func (s *SA) deleteUnwanted(in sa.SPI) {
	s.enqueue(&deleteChild{spi: in, reason: ike.ReasonRedundant}, timeZero)
}

// CloseChild deletes the Child SA with this inbound SPI.
func (s *SA) CloseChild(now time.Time, in sa.SPI, reason ike.Reason) {
	s.now = now
	if c := s.childByIn(in); c != nil {
		s.closeChild(c, reason)
	}
	s.advance()
}

func (s *SA) closeChild(c *child, reason ike.Reason) {
	if c.gone || s.closing() {
		return
	}
	for _, t := range s.tasks() {
		if d, ok := t.(*deleteChild); ok && d.child == c {
			return
		}
	}
	s.enqueue(&deleteChild{child: c, reason: reason}, timeZero)
}

// deleteWaits reports whether an own delete of a Child SA is next. A rekey of it by the peer would leave a successor
// behind that nobody deletes (RFC 7296 2.25.1: TEMPORARY_FAILURE while this side tries to close it).
func (s *SA) deleteWaits(c *child) bool {
	return slices.ContainsFunc(s.queue, func(q queued) bool {
		d, ok := q.task.(*deleteChild)
		return ok && d.child == c
	})
}

func (t *deleteChild) begin(s *SA) bool {
	if t.child != nil {
		if t.child.gone {
			return false
		}
		t.child.deleting = !impair.On(impair.ForgetDeleting)
		t.spi = t.child.In.SPI
	}
	s.request(wire.Informational, wire.Delete{Protocol: wire.ProtocolESP, SPIs: []sa.SPI{t.spi}})
	return true
}

func (t *deleteChild) finish(s *SA, _ message) {
	s.done(t)
	if t.child != nil {
		s.uninstall(t.child, t.reason)
	}
}
