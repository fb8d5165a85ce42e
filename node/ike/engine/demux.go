package engine

import (
	"errors"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// The limits on SAs whose peer is not authenticated.
const (
	// Cookies are asked for above these numbers of half-open SAs, in all and from one prefix.
	cookieAbove       = 64
	cookieAbovePrefix = 4
	// limitPrefix bounds the half-open SAs from one prefix, limitKnown those from one that holds an established SA.
	limitPrefix = 8
	limitKnown  = 32
	// limitHalfOpen bounds them all.
	limitHalfOpen = 4096
)

// datagram routes a message by its SPIs.
func (e *Engine) datagram(d ike.Datagram) {
	h, err := wire.ParseHeader(d.Bytes)
	if err != nil || h.SPIi == 0 {
		e.count("dropped_malformed")
		return
	}
	switch major := h.Version >> 4; {
	case major < 2:
		e.count("dropped_version")
		return
	case major > 2:
		e.count("dropped_version")
		if !h.Response() {
			e.refuse(d, h, wire.NotifyInvalidMajorVersion, nil)
		}
		return
	}
	own := h.SPIi
	if h.FromInitiator() {
		own = h.SPIr
	}
	if own == 0 {
		if h.Exchange == wire.IKESAInit && !h.Response() && h.MessageID == 0 {
			e.initRequest(d)
		} else {
			e.count("dropped_malformed")
		}
		return
	}
	x, ok := e.table.bySPI[own]
	if !ok || x.sa.PeerSPI() != 0 && x.sa.PeerSPI() != other(h) {
		e.count("dropped_unknown_spi")
		if !h.Response() {
			// RFC 7296 2.21.4: MAY tell, outside of any SA, seldom and never longer than what came.
			e.refuse(d, h, wire.NotifyInvalidIKESPI, nil)
		}
		return
	}
	limit := wire.LimitBeforeAuth
	if x.sa.State() >= ikev2.StateEstablished {
		limit = wire.LimitAfterAuth
	}
	m, err := wire.ParseMessage(d.Bytes, limit)
	if err != nil { // nothing of it is authentic
		e.count("dropped_malformed")
		return
	}
	e.run(x, func(s *ikev2.SA) { s.Receive(e.now, d.Local, d.Remote, d.Bytes, m) })
}

func other(h wire.Header) wire.SPI {
	if h.FromInitiator() {
		return h.SPIi
	}
	return h.SPIr
}

// initRequest handles a first message. Until a cookie comes back nothing is kept for it.
func (e *Engine) initRequest(d ike.Datagram) {
	e.count("init_received")
	if e.stopping {
		return
	}
	m, err := wire.ParseMessage(d.Bytes, wire.LimitBeforeAuth)
	if err != nil {
		e.count("dropped_malformed")
		var we *wire.Error
		if errors.As(err, &we) && we.Notify != 0 {
			e.refuse(d, m.Header, we.Notify, we.Data)
		}
		return
	}
	if x := e.table.repeated(d.Remote, m.Header.SPIi, d.Bytes); x != nil {
		e.run(x, func(s *ikev2.SA) { s.RepeatInit(e.now) })
		return
	}
	total, from, oldest := e.table.halfOpen, e.table.prefixes[prefixOf(d.Remote.Addr())], e.table.oldestUncookied()
	cookied := false
	if total >= cookieAbove || from.halfOpen >= cookieAbovePrefix {
		nonce, ok := wire.Find[wire.Nonce](m.Payloads, nil)
		if !ok {
			e.count("dropped_malformed")
			return
		}
		if !e.cookieValid(m, nonce.Data, d.Remote) {
			e.count("cookies_sent")
			e.sendCookie(d, m, nonce.Data)
			return
		}
		cookied = true
	}
	limit := limitPrefix
	if from.established > 0 {
		limit = limitKnown
	}
	if from.halfOpen >= limit || total >= limitHalfOpen && (!cookied || oldest == nil) {
		e.count("dropped_half_open_limit")
		return
	}
	if total >= limitHalfOpen {
		e.run(oldest, func(s *ikev2.SA) { s.Drop(e.now, ike.ReasonLimit, "too many half-open SAs") })
	}
	s, refusal := ikev2.Respond(e, e.now, e.cfg, d.Local, d.Remote, d.Bytes, m)
	if refusal != nil {
		e.failed(Failure{Remote: d.Remote.Addr(), Reason: refusal.Reason, Fault: ike.FaultPeer, Detail: refusal.Detail})
		e.answer(d, m.Header, wire.Notify{Type: refusal.Notify, Data: refusal.Data})
		return
	}
	e.after(e.table.add(s, cookied))
}

// prefixOf is what half-open SAs are counted by: an IPv4 address, or an IPv6 /64, which one machine can fill.
func prefixOf(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if bits == 128 && !a.Is4In6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil { // the address has a zone
		return netip.PrefixFrom(a, a.BitLen())
	}
	return p
}

// answer sends one unprotected response that keeps nothing here.
func (e *Engine) answer(d ike.Datagram, h wire.Header, n wire.Notify) {
	m := wire.Message{
		Header: wire.Header{
			SPIi: h.SPIi, SPIr: h.SPIr, Exchange: h.Exchange, MessageID: h.MessageID, Flags: wire.FlagResponse,
		},
		Payloads: []wire.Payload{n},
	}
	if !h.FromInitiator() {
		m.Header.Flags |= wire.FlagInitiator
	}
	b := wire.AppendMessage(nil, m)
	e.Emit(ike.Send{Local: d.Local, Remote: d.Remote, Bytes: b})
	e.Emit(ike.Trace{Text: "send " + m.String() + " to " + d.Remote.String()})
}

// refuse answers what is not part of an SA: at most once per source and second, never longer than what came.
func (e *Engine) refuse(d ike.Datagram, h wire.Header, t wire.NotifyType, data []byte) {
	if wire.HeaderLen+8+len(data) > len(d.Bytes) || !e.replies.allow(e.now, d.Remote.Addr()) {
		return
	}
	e.answer(d, h, wire.Notify{Type: t, Data: data})
}

// replies limits unprotected answers per source address.
type replies struct {
	second time.Time
	sent   map[netip.Addr]struct{}
}

// limitReplies bounds the sources that get an answer in one second.
const limitReplies = 256

func (r *replies) allow(now time.Time, to netip.Addr) bool {
	if r.sent == nil || now.Sub(r.second) >= time.Second {
		r.second, r.sent = now, make(map[netip.Addr]struct{})
	}
	if _, done := r.sent[to]; done || len(r.sent) >= limitReplies {
		return false
	}
	r.sent[to] = struct{}{}
	return true
}
