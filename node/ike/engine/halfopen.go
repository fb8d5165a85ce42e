package engine

import (
	"net/netip"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// The limits on SAs whose peer is not authenticated.
const (
	// Cookies are asked for above these numbers of half-open SAs, in all and from one prefix, and while as many jobs are
	// under way: whatever keeps the machine busy, who cannot receive at its address does not add to it.
	cookieAbove       = 64
	cookieAbovePrefix = 4
	cookieAboveJobs   = 32
	// limitPrefix bounds the half-open SAs from one prefix, limitKnown those from one that holds an established SA.
	limitPrefix = 8
	limitKnown  = 32
	// limitHalfOpen bounds them all.
	limitHalfOpen = 4096
	// limitBuffered bounds what all of them together may keep of messages that are not complete or cannot be read yet, in
	// octets. Each has its own bound, but thousands of peers that finished only the key exchange can fill theirs.
	limitBuffered = 8 << 20
)

// prefixOf is what half-open SAs are counted by: an IPv4 address, or an IPv6 /64, which one machine can fill.
func prefixOf(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if bits == 128 && !a.Is4In6() {
		bits = 64
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil { // the zero address
		return netip.Prefix{}
	}
	return p
}

// Room reports whether n octets more of unauthenticated peers may be kept (ikev2.Host).
func (e *Engine) Room(n int) bool { return e.table.buffered+n <= limitBuffered }

// initRequest handles a first message. Until a cookie comes back nothing is kept for it, and nothing of it is looked at
// but the nonce.
func (e *Engine) initRequest(d ike.Datagram) {
	e.count("init_received")
	if e.stopping {
		e.drop(d, ike.ReasonShutdown)
		return
	}
	if len(e.cfg.Offers) == 0 {
		// To a refusal a peer does not fall back, to silence it may: a machine whose policy negotiates nothing is to its
		// peers what one without IPsec is.
		e.drop(d, ike.ReasonNoOffers)
		return
	}
	h, err := wire.ParseHeader(d.Bytes)
	if err != nil {
		e.drop(d, ike.ReasonMalformed)
		return
	}
	if x := e.table.repeated(d.Remote, h.SPIi, d.Bytes); x != nil {
		// Under load a request can be asked for a cookie although an earlier copy of it is accepted, or the other way round.
		var latest []byte
		if parts, ok := wire.PeekInit(d.Bytes); ok && e.cookieValid(parts.Cookie, h.SPIi, parts.Nonce, d.Remote) {
			latest = d.Bytes
		}
		e.run(x, func(s *ikev2.SA) { s.RepeatInit(e.now, latest) })
		return
	}
	total, here := e.table.halfOpen, e.table.prefixes[prefixOf(d.Remote.Addr())]
	cookied := false
	if impair.On(impair.HalfOpenUnlimited) {
		total, here = 0, population{}
	} else if e.wantsCookies() || here.halfOpen >= cookieAbovePrefix {
		parts, ok := wire.PeekInit(d.Bytes)
		switch {
		case !ok:
			e.drop(d, ike.ReasonMalformed)
			return
		case !e.cookieValid(parts.Cookie, h.SPIi, parts.Nonce, d.Remote):
			e.sendCookie(d, h, parts.Nonce)
			return
		}
		cookied = true
	}
	limit := limitPrefix
	if here.established > 0 {
		limit = limitKnown
	}
	oldest := e.table.oldestUncookied()
	if here.halfOpen >= limit || total >= limitHalfOpen && (!cookied || oldest == nil) {
		e.drop(d, ike.ReasonHalfOpenLimit)
		return
	}
	m, err := wire.ParseMessage(d.Bytes, wire.LimitBeforeAuth)
	if err != nil {
		e.malformed(d, h, err)
		return
	}
	if total >= limitHalfOpen {
		e.run(oldest, func(s *ikev2.SA) { s.Drop(e.now, ike.ReasonHalfOpenLimit, "too many half-open SAs") })
	}
	s, refusal := ikev2.Respond(e, e.now, e.cfg, d.Local, d.Remote, d.Bytes, m)
	if refusal != nil {
		// Who has returned a cookie is where it says, and garbage from others does not use up its answer.
		if cookied || e.refusals.allow(e.now, d.Remote.Addr()) {
			e.answer(d, h, wire.Notify{Type: refusal.Notify, Data: refusal.Data})
			if refusal.Notify == wire.NotifyInvalidKEPayload { // no failure: the peer comes again, with the method that is wanted
				e.Emit(&ike.Trace{Remote: d.Remote, Kind: ike.TraceDecided, Text: ike.Sentence{Format: "ask for another key exchange: %s", Args: []any{refusal.Detail}}})
				return
			}
			e.countMainFailure(refusal.Reason)
			e.failed(nil, Failure{Remote: d.Remote.Addr(), Reason: refusal.Reason, Fault: ike.FaultPeer, Detail: refusal.Detail})
		}
		return
	}
	e.count("ike_responder_started")
	e.after(e.table.add(s, cookied))
}
