package ikev2

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

var (
	errUnprotected    = errors.New("message has no encrypted payload")
	errFragmentExtras = errors.New("fragment other than the first with further payloads")
	errNoRoom         = errors.New("too many fragments of peers that are not authenticated")
	errUnannounced    = errors.New("message is a fragment, which the peer did not announce")
)

// protect puts the keys of a finished key exchange into use.
func (s *SA) protect(keys suite.Keys) error {
	toResponder, err := suite.NewProtection(s.suite, keys.EI, keys.AI)
	if err != nil {
		return fmt.Errorf("protect messages of the initiator: %w", err)
	}
	toInitiator, err := suite.NewProtection(s.suite, keys.ER, keys.AR)
	if err != nil {
		return fmt.Errorf("protect messages of the responder: %w", err)
	}
	s.keys = keys
	s.out, s.in = toResponder, toInitiator
	if !s.initiator {
		s.out, s.in = toInitiator, toResponder
	}
	s.logIKEKeys()
	return nil
}

// dropReason tells why open refused a message.
func dropReason(err error) ike.Reason {
	if errors.Is(err, errUnprotected) {
		return ike.ReasonUnprotected
	}
	if errors.Is(err, errNoRoom) {
		return ike.ReasonBufferLimit
	}
	return ike.ReasonIntegrity
}

// header is that of an own message.
func (s *SA) header(exchange wire.ExchangeType, id uint32, response bool) wire.Header {
	h := wire.Header{SPIi: s.spii(), SPIr: s.spir(), Exchange: exchange, MessageID: id}
	if s.initiator {
		h.Flags |= wire.FlagInitiator
	}
	if response {
		h.Flags |= wire.FlagResponse
	}
	return h
}

// sealed is a protected message of this side. Its plaintext is kept where smaller fragments may be wanted later.
type sealed struct {
	by        *suite.Protection // that of then: IKE_INTERMEDIATE changes the keys behind its response
	header    wire.Header
	first     wire.PayloadType
	inner     []byte // nil when it fits into the smallest fragments, or the peer does not know fragments
	datagrams [][]byte
	small     bool // cut for the smallest path
}

// seal encrypts payloads into one datagram, or into fragments when they do not fit and the peer supports those.
func (s *SA) seal(exchange wire.ExchangeType, id uint32, response bool, payloads []wire.Payload) (sealed, error) {
	h := s.header(exchange, id, response)
	payloads = impaired(payloads)
	s.traceMessage(ike.TraceSent, wire.Message{Header: h, Payloads: payloads})
	m := sealed{by: s.out, header: h, first: wire.First(payloads), inner: wire.AppendPayloads(nil, payloads), small: s.smallPath}
	var err error
	if m.datagrams, err = s.cut(m); err != nil {
		return sealed{}, err
	}
	if !s.fragmentation || m.small || len(m.inner) <= s.out.FragmentRoom(smallMessageSize) {
		m.inner = nil
	}
	return m, nil
}

// cut encrypts the plaintext of a message, as fragments of the size that m asks for.
func (s *SA) cut(m sealed) ([][]byte, error) {
	h, inner := m.header, m.inner
	iv := func() []byte { return s.host.Random(m.by.RandomIVLen()) }
	size := messageSize
	if m.small {
		size = smallMessageSize
	}
	room := m.by.FragmentRoom(size)
	if !s.fragmentation || len(inner) <= room {
		d, err := m.by.Seal(nil, h, m.first, inner, iv())
		if err != nil {
			return nil, fmt.Errorf("seal %s message %d: %w", h.Exchange, h.MessageID, err)
		}
		return [][]byte{d}, nil
	}
	total := (len(inner) + room - 1) / room
	if total > limitFragments {
		return nil, fmt.Errorf("seal %s message %d: %d octets need more than %d fragments", h.Exchange, h.MessageID, len(inner), limitFragments)
	}
	var datagrams [][]byte
	for n := range total {
		part := inner[n*room : min((n+1)*room, len(inner))]
		next := wire.NoNextPayload
		if n == 0 {
			next = m.first
		}
		d, err := m.by.SealFragment(nil, h, next, uint16(n+1), uint16(total), part, iv())
		if err != nil {
			return nil, fmt.Errorf("seal fragment %d of %s message %d: %w", n+1, h.Exchange, h.MessageID, err)
		}
		datagrams = append(datagrams, d)
	}
	return datagrams, nil
}

// shrink cuts a message that does not seem to get through into fragments that every IPv4 path carries (RFC 7383 2.5.1).
// An IPv6 path carries what was sent already.
func (s *SA) shrink(m *sealed) {
	if m.inner == nil || m.small || !s.remote.Addr().Is4() {
		return
	}
	smaller := *m
	smaller.small = true
	datagrams, err := s.cut(smaller)
	if err != nil {
		s.trace("smaller fragments: %s", err)
		return
	}
	s.trace("cut %s message %d into %d smaller fragments", m.header.Exchange, m.header.MessageID, len(datagrams))
	m.datagrams, m.small = datagrams, true
}

// opened is a protected message after its integrity was proved.
type opened struct {
	payloads []wire.Payload
	plaintext
	digest [sha256.Size]byte
	total  uint16 // fragments
	done   bool   // false: fragments are missing
	syntax error  // what is wrong inside the authenticated octets
}

// open checks and decrypts a datagram, or keeps it when it is one of several fragments, until all of them are there. The
// error says that it is to be dropped without an answer (RFC 7296 2.21).
func (s *SA) open(kept **collector, datagram []byte, m wire.Message) (opened, error) {
	if len(m.Payloads) == 0 {
		return opened{}, errUnprotected
	}
	if m.Header.Exchange == wire.IKEIntermediate && len(m.Payloads) > 1 {
		return opened{}, errIntermediateExtras
	}
	o := opened{done: true}
	var first wire.PayloadType
	var inner []byte
	var err error
	switch p := m.Payloads[len(m.Payloads)-1].(type) {
	case wire.Encrypted:
		first, o.digest = p.Next, sha256.Sum256(datagram)
		if inner, err = s.in.Open(datagram, p); err != nil {
			return opened{}, err
		}
	case wire.Fragment:
		if !s.fragmentation { // RFC 7383 2.3: only between peers that both announced it
			return opened{}, errUnannounced
		}
		part, err := s.in.OpenFragment(datagram, p)
		if err != nil {
			return opened{}, err
		}
		if p.Number > 1 && len(m.Payloads) > 1 { // RFC 7383 2.5.3: what is not encrypted comes with the first
			return opened{}, errFragmentExtras
		}
		limit := wire.LimitAfterAuth
		if !s.state.established() {
			limit = wire.LimitBeforeAuth
			if !s.host.Room(len(part)) {
				return opened{}, errNoRoom
			}
		}
		if *kept == nil {
			*kept = &collector{}
		}
		c := *kept
		if inner, o.done = c.add(s.now, m.Header.MessageID, p, part, datagram, limit); !o.done {
			return o, nil
		}
		*kept, first, o.digest, o.total = nil, c.first, c.digest, p.Total
	default:
		return opened{}, errUnprotected
	}
	o.plaintext = plaintext{first, inner}
	o.payloads, o.syntax = wire.ParsePayloads(first, inner)
	return o, nil
}
