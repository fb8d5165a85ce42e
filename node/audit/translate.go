package audit

import (
	"fmt"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// translator turns the actions of the IKE engine into events. It remembers which IKE SAs are up.
type translator struct{ up map[ike.IKESPI]struct{} }

func newTranslator() *translator { return &translator{make(map[ike.IKESPI]struct{})} }

// event is what an action is in the audit; false when it is nothing.
func (t *translator) event(now time.Time, a ike.Action) (Event, bool) {
	switch a := a.(type) {
	case ike.Up:
		t.up[a.IKE] = struct{}{}
		return mainUp(now, a), true
	case ike.Down:
		_, wasUp := t.up[a.IKE]
		delete(t.up, a.IKE)
		return mainDown(now, a, wasUp), true
	case ike.InstallOut:
		return child(now, QuickEstablished, a.Child), true
	case ike.Remove:
		e := child(now, QuickEnded, a.Child)
		if a.Reason == ike.ReasonDeleted {
			e = child(now, Deleted, a.Child)
		}
		e.reason(a.Reason, a.Reason.Fault())
		return e, true
	case ike.Fallback:
		return flow(now, SoftAssociation, a.Flow), true
	case ike.Refuse:
		if a.Reason != ike.ReasonShutdown { // the failure behind it is an event of its own
			return Event{}, false
		}
		e := flow(now, NotRunning, a.Flow)
		e.reason(a.Reason, ike.FaultLocal)
		return e, true
	case *ike.Trace:
		return t.trace(now, a)
	}
	return Event{}, false
}

func (t *translator) trace(now time.Time, a *ike.Trace) (Event, bool) {
	_, up := t.up[a.IKE]
	var e Event
	switch {
	case a.Kind == ike.TraceGuard:
		e = newEvent(now, DoSProtection)
	case a.Kind == ike.TraceDropped && invalid(a.Reason) && up:
		e = newEvent(now, InvalidQuickPacket)
	case a.Kind == ike.TraceDropped && invalid(a.Reason):
		e = newEvent(now, InvalidMainPacket)
	case a.Kind == ike.TraceFailed && a.Child:
		e = newEvent(now, QuickFailed)
	case a.Kind == ike.TraceFailed && a.IKE == 0: // no SA was made, so no Down will tell
		e = newEvent(now, mainFailure(a.Reason))
	default:
		return Event{}, false
	}
	e.IKE, e.Peer, e.Rule = spi(a.IKE), a.Peer, a.Rule
	if a.Remote.Addr().IsValid() {
		e.Remote = a.Remote.Addr().String()
	}
	e.reason(a.Reason, a.Fault)
	if a.Fault == ike.FaultNone && a.Kind != ike.TraceFailed {
		e.reason(a.Reason, a.Reason.Fault())
	}
	if a.Text != nil {
		e.Detail = a.Text.String()
	}
	return e, true
}

// invalid tells which dropped messages are invalid packets: those that no peer that follows the protocol sends.
func invalid(r ike.Reason) bool {
	switch r {
	case ike.ReasonMalformed, ike.ReasonUnprotected, ike.ReasonIntegrity, ike.ReasonUnexpected, ike.ReasonReflected:
		return true
	default:
		return false
	}
}

// mainFailure tells the failures that lie in a certificate from the others.
func mainFailure(r ike.Reason) Kind {
	switch r {
	case ike.ReasonUnknownIssuer, ike.ReasonIssuerNotAllowed, ike.ReasonCertExpired, ike.ReasonCertNotYetValid,
		ike.ReasonCertRevoked, ike.ReasonCertInvalid, ike.ReasonStandingUnknown:
		return MainFailedByCert
	default:
		return MainFailed
	}
}

func mainUp(now time.Time, a ike.Up) Event {
	kind := MainEstablishedByCert
	if a.Auth == spd.AuthPSK {
		kind = MainEstablished
	}
	e := newEvent(now, kind)
	e.IKE, e.Replaces, e.Peer, e.Auth, e.Suite = spi(a.IKE), spi(a.Replaces), a.Peer, a.Auth.String(), a.Suite.String()
	e.Local, e.Remote = a.Local.String(), a.Remote.String()
	return e
}

func mainDown(now time.Time, a ike.Down, wasUp bool) Event {
	kind := mainFailure(a.Reason)
	switch {
	case wasUp && a.Reason == ike.ReasonDeleted:
		kind = Deleted
	case wasUp:
		kind = MainEnded
	}
	e := newEvent(now, kind)
	e.IKE, e.Remote, e.Detail = spi(a.IKE), a.Remote.String(), a.Detail
	if a.Peer != a.Remote.Addr().String() {
		e.Peer = a.Peer
	}
	e.reason(a.Reason, a.Fault)
	return e
}

func child(now time.Time, k Kind, c sa.Child) Event {
	e := newEvent(now, k)
	e.In, e.Out, e.Peer, e.Rule, e.Mode, e.Suite = c.In.SPI.String(), c.Out.SPI.String(), c.Peer, c.Rule, c.Mode.String(), c.Suite.String()
	e.Local, e.Remote = c.Local.String(), c.Remote.String()
	for _, s := range c.LocalTS {
		e.LocalTS = append(e.LocalTS, s.String())
	}
	for _, s := range c.RemoteTS {
		e.RemoteTS = append(e.RemoteTS, s.String())
	}
	return e
}

func flow(now time.Time, k Kind, f ike.Flow) Event {
	e := newEvent(now, k)
	e.Rule, e.Local, e.Remote = f.Rule, f.Local.String(), f.Remote.String()
	e.LocalTS, e.RemoteTS = []string{f.LocalTS.String()}, []string{f.RemoteTS.String()}
	return e
}

func (e *Event) reason(r ike.Reason, f ike.Fault) {
	e.Reason = string(r)
	if e.Fault = ""; f != ike.FaultNone {
		e.Fault = f.String()
	}
}

func spi(s ike.IKESPI) string {
	if s == 0 {
		return ""
	}
	return fmt.Sprintf("%016x", uint64(s))
}
