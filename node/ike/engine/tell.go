package engine

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
)

// dropCounters are the names of the counters of dropped messages. Reasons that are not listed share one.
var dropCounters = map[ike.Reason]string{
	ike.ReasonMalformed:     "dropped_malformed",
	ike.ReasonVersion:       "dropped_version",
	ike.ReasonUnknownSPI:    "dropped_unknown_spi",
	ike.ReasonHalfOpenLimit: "dropped_half_open_limit",
	ike.ReasonReflected:     "dropped_reflected",
	ike.ReasonUnprotected:   "dropped_unprotected",
	ike.ReasonIntegrity:     "dropped_integrity",
	ike.ReasonMessageID:     "dropped_message_id",
	ike.ReasonUnexpected:    "dropped_unexpected",
	ike.ReasonBusy:          "dropped_busy",
	ike.ReasonBufferLimit:   "dropped_buffer_limit",
	ike.ReasonShutdown:      "dropped_shutdown",
}

// countDrop counts a message that had no effect.
func (e *Engine) countDrop(reason ike.Reason) {
	name, ok := dropCounters[reason]
	if !ok {
		name = "dropped_other"
	}
	e.count(name)
}

// drop tells of a datagram that reached no SA.
func (e *Engine) drop(d ike.Datagram, reason ike.Reason) {
	e.countDrop(reason)
	e.Emit(&ike.Trace{Remote: d.Remote, Kind: ike.TraceDropped, Reason: reason, Text: octets(len(d.Bytes))})
}

// octets is the text of a datagram that cannot be read, or is not worth reading.
type octets int

// String tells the length.
func (o octets) String() string {
	return ike.Sentence{Format: "%d octets", Args: []any{int(o)}}.String()
}

// tellState tells of a new state of an SA.
func (e *Engine) tellState(x *entry) {
	state := x.sa.State()
	if state == x.told {
		return
	}
	if e.cfg.Untraced {
		x.told = state
		return
	}
	was := x.told
	x.told = state
	e.Emit(x.trace(ike.TraceState, change{was, state}))
}

// change is the text of a new state.
type change struct{ from, to ikev2.State } // from is 0 for the first one

// String names the states.
func (c change) String() string {
	if c.from == 0 {
		return c.to.String()
	}
	return c.from.String() + " -> " + c.to.String()
}

// trace begins a line about an SA.
func (x *entry) trace(kind ike.TraceKind, text fmt.Stringer) *ike.Trace {
	_, remote := x.sa.Addresses()
	return &ike.Trace{
		IKE: ike.IKESPI(x.sa.SPI()), Peer: x.sa.Peer(), Remote: remote, Known: x.sa.Initiator() || x.sa.Peer() != "",
		Kind: kind, Text: text,
	}
}

// remember keeps a failure for status.
func (e *Engine) remember(f Failure) {
	f.Time = e.now
	e.count("negotiation_failed")
	if len(e.failures) >= LimitFailures {
		e.failures = append(e.failures[:0], e.failures[1:]...)
	}
	e.failures = append(e.failures, f)
}

// failed remembers a failure and tells of it. x is the SA that is concerned, nil when there is none.
func (e *Engine) failed(x *entry, f Failure) {
	e.remember(f)
	if f.Child {
		e.count("child_failed")
	}
	text := ike.Sentence{Format: "%s", Args: []any{f.Detail}}
	if f.Rule != "" {
		text = ike.Sentence{Format: "%s (rule %q)", Args: []any{f.Detail, f.Rule}}
	}
	t := &ike.Trace{Remote: netip.AddrPortFrom(f.Remote, 0), Peer: f.Peer, Known: f.Rule != "", Text: text}
	if x != nil {
		t = x.trace(ike.TraceFailed, text)
	}
	t.Kind, t.Reason, t.Fault, t.Rule, t.Child = ike.TraceFailed, f.Reason, f.Fault, f.Rule, f.Child
	e.Emit(t)
}

// countMainFailure counts an IKE SA that did not come up.
func (e *Engine) countMainFailure(reason ike.Reason) {
	e.count("ike_failed")
	if aboutAuthentication(reason) {
		e.count("authentication_failed")
	}
}

// guardCalm is how long no cookies must have been wanted before that is told: around the limit it changes all the time.
const guardCalm = 10 * time.Second

// tellGuard tells when strangers are asked for cookies from now on, and when no longer.
func (e *Engine) tellGuard(demand bool) {
	if demand {
		e.guarded = e.now
	}
	if demand == e.toldGuard || !demand && e.now.Sub(e.guarded) < guardCalm {
		return
	}
	e.toldGuard = demand
	t := &ike.Trace{Kind: ike.TraceGuard, Text: ike.Sentence{Format: "first messages need no cookie any more"}}
	if demand {
		t.Reason = ike.ReasonHalfOpenLimit
		t.Text = ike.Sentence{Format: "first messages need a cookie: %d negotiations are not finished, %d computations are under way", Args: []any{e.table.halfOpen, len(e.jobs)}}
	}
	e.Emit(t)
}
