package ikev2

import (
	"crypto/sha256"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// Retransmission of requests (RFC 7296 2.1, 2.4): seven transmissions, the first wait is one second, each further one
// 1.8 times longer, with a tenth of jitter: 75 s in all.
const (
	retransmitFirst  = time.Second
	retransmitFactor = 1.8
	retransmitTries  = 7
)

// RetransmitTotal bounds the time from the first transmission of a request until it is given up.
const RetransmitTotal = 84 * time.Second

// request is the own request that waits for its response. The window is one, in both directions (RFC 7296 2.3).
type request struct {
	id       uint32
	exchange wire.ExchangeType
	sealed
	tries int
	first time.Time // transmission
	at    time.Time // next retransmission, or the end after the last
}

// answered is the last response, kept to answer a repeated request octet for octet (RFC 7296 2.1).
type answered struct {
	valid  bool
	id     uint32
	digest [sha256.Size]byte // of the request, or of its first fragment (RFC 7383 2.6.1)
	total  uint16            // fragments of the request; 0 when it came in one datagram
	asked  int               // how often the peer repeated the request
	in     *suite.Protection // that opened the request
	sealed
}

// serving is the peer's request that is being worked on.
type serving struct {
	id            uint32
	exchange      wire.ExchangeType
	digest        [sha256.Size]byte
	total         uint16 // fragments it came in; 0 for one datagram
	local, remote netip.AddrPort
}

// window keeps the message IDs of both directions.
type window struct {
	next    uint32 // ID of the next own request
	pending *request
	expect  uint32 // ID of the peer's next request
	serving *serving
	last    answered
	// silence is how long requests of the IKE SAs that this one comes from by rekeys have waited for a response, without
	// one in between. A peer may reach this side, and rekey, while nothing that this side begins reaches the peer.
	silence time.Duration
}

// givenUp reports whether a request has had all its transmissions, or so many as shows that the silence before it goes on.
func (w *window) givenUp(now time.Time) bool {
	p := w.pending
	return p.tries >= retransmitTries || p.tries >= rotateAfter && w.silence+now.Sub(p.first) >= RetransmitTotal
}

func (s *SA) interval(try int) time.Duration {
	d := float64(retransmitFirst)
	for range try {
		d *= retransmitFactor
	}
	return time.Duration(d * (0.95 + 0.1*s.fraction()))
}

// transmit sends a new request and starts its timer.
func (s *SA) transmit(exchange wire.ExchangeType, id uint32, m sealed) {
	s.win.pending = &request{id: id, exchange: exchange, sealed: m, first: s.now, at: s.now.Add(s.interval(0)), tries: 1}
	s.sendAll(s.local, s.remote, m.datagrams)
}

// retransmit repeats the request that is due, identical to the first transmission, or gives the peer up.
func (s *SA) retransmit() {
	p := s.win.pending
	if p == nil || s.now.Before(p.at) {
		return
	}
	if s.win.givenUp(s.now) {
		s.win.pending = nil
		s.silent(p)
		return
	}
	p.at = s.now.Add(s.interval(p.tries))
	if p.tries >= shrinkAfter {
		s.shrink(&p.sealed)
	}
	if p.tries >= rotateAfter {
		s.rotate()
	}
	p.tries++
	s.tell(&ike.Trace{Kind: ike.TraceRepeated, Text: ike.Sentence{Format: "%s request %d, try %d", Args: []any{p.exchange, p.id, p.tries}}})
	s.sendAll(s.local, s.remote, p.datagrams)
}

// silent ends the SA because the peer does not answer.
func (s *SA) silent(p *request) {
	switch {
	case s.state == StateDeleting || s.state == StateRekeyed:
		s.end(ike.ReasonDeleted, ike.FaultNetwork, "the peer did not answer the delete")
	case s.state.established():
		s.end(ike.ReasonLiveness, ike.FaultNetwork, "no response to "+p.exchange.String())
	case s.hs != nil && s.hs.refusal.reason != ike.ReasonNone:
		s.end(s.hs.refusal.reason, s.hs.refusal.reason.Fault(), s.hs.refusal.detail)
	default:
		s.end(ike.ReasonTimeout, ike.FaultNetwork, "no response to "+p.exchange.String())
	}
}

// request seals payloads as the next own request.
func (s *SA) request(exchange wire.ExchangeType, payloads ...wire.Payload) {
	id := s.win.next
	m, err := s.seal(exchange, id, false, payloads)
	if err != nil {
		s.end(ike.ReasonInternal, ike.FaultLocal, err.Error())
		return
	}
	if !impair.On(impair.MessageIDStuck) {
		s.win.next++
	}
	s.transmit(exchange, id, m)
}

// respond seals payloads as the response to v and keeps it for repetitions. It does nothing when v is no longer served.
func (s *SA) respond(v *serving, payloads ...wire.Payload) {
	if s.win.serving != v {
		return
	}
	s.win.serving = nil
	m, err := s.seal(v.exchange, v.id, true, payloads)
	if err != nil {
		s.end(ike.ReasonInternal, ike.FaultLocal, err.Error())
		return
	}
	s.win.expect = v.id + 1
	s.win.last = answered{valid: true, id: v.id, digest: v.digest, total: v.total, in: s.in, sealed: m}
	s.sendAll(v.local, v.remote, m.datagrams)
}

func (s *SA) sendAll(local, remote netip.AddrPort, datagrams [][]byte) {
	for _, d := range datagrams {
		s.host.Emit(ike.Send{Local: local, Remote: remote, Bytes: d})
	}
	s.lastSent = s.now
}
