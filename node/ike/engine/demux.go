package engine

import (
	"errors"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// datagram routes a message by its SPIs.
func (e *Engine) datagram(d ike.Datagram) {
	h, err := wire.ParseHeader(d.Bytes)
	if err != nil || h.SPIi == 0 || uint64(h.Length) != uint64(len(d.Bytes)) {
		e.drop(d, ike.ReasonMalformed)
		return
	}
	switch major := h.Version >> 4; {
	case major < 2:
		e.drop(d, ike.ReasonVersion)
		return
	case major > 2:
		e.drop(d, ike.ReasonVersion)
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
		switch {
		case h.Exchange == wire.IKESAInit && !h.Response() && h.MessageID == 0:
			e.initRequest(d)
		case h.Exchange == wire.Informational && !h.Response():
			e.outsideSA(d)
		default:
			e.drop(d, ike.ReasonMalformed)
		}
		return
	}
	x, ok := e.table.bySPI[own]
	if !ok || x.sa.PeerSPI() != 0 && x.sa.PeerSPI() != other(h) {
		e.drop(d, ike.ReasonUnknownSPI)
		if !h.Response() {
			// RFC 7296 2.21.4: MAY tell, outside of any SA, seldom and never longer than what came.
			e.refuseSPI(d, h)
		}
		return
	}
	limit := wire.LimitBeforeAuth
	if x.sa.State() >= ikev2.StateEstablished {
		limit = wire.LimitAfterAuth
	}
	m, err := wire.ParseMessage(d.Bytes, limit)
	if err != nil { // nothing of it is authentic
		e.drop(d, ike.ReasonMalformed)
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

// malformed handles a first message that cannot be read. It is answered only where an error says so.
func (e *Engine) malformed(d ike.Datagram, h wire.Header, err error) {
	e.drop(d, ike.ReasonMalformed)
	var we *wire.Error
	if errors.As(err, &we) && we.Notify != 0 {
		e.refuse(d, h, we.Notify, we.Data)
	}
}

// answer sends one unprotected response that keeps nothing here.
func (e *Engine) answer(d ike.Datagram, h wire.Header, notifies ...wire.Notify) {
	m := wire.Message{
		Header: wire.Header{
			SPIi: h.SPIi, SPIr: h.SPIr, Exchange: h.Exchange, MessageID: h.MessageID, Flags: wire.FlagResponse,
		},
	}
	for _, n := range notifies {
		m.Payloads = append(m.Payloads, n)
	}
	if !h.FromInitiator() {
		m.Header.Flags |= wire.FlagInitiator
	}
	b := wire.AppendMessage(nil, m)
	e.Emit(ike.Send{Local: d.Local, Remote: d.Remote, Bytes: b})
	e.Emit(&ike.Trace{Remote: d.Remote, Kind: ike.TraceSent, Text: m.Summary()})
}

// refuse answers what is not part of an SA: at most once per source and second, never longer than what came. It reports
// whether it did.
func (e *Engine) refuse(d ike.Datagram, h wire.Header, t wire.NotifyType, data []byte) bool {
	if wire.HeaderLen+8+len(data) > len(d.Bytes) || !e.replies.allow(e.now, d.Remote.Addr()) {
		e.count("answers_withheld")
		return false
	}
	e.answer(d, h, wire.Notify{Type: t, Data: data})
	return true
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
