package ikev2

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

var errUnprotected = errors.New("message has no encrypted payload")

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

// seal encrypts payloads into one datagram, or into fragments when they do not fit and the peer supports those.
func (s *SA) seal(exchange wire.ExchangeType, id uint32, response bool, payloads []wire.Payload) ([][]byte, error) {
	h := s.header(exchange, id, response)
	s.trace("send %s", wire.Message{Header: h, Payloads: payloads})
	first, inner := wire.First(payloads), wire.AppendPayloads(nil, payloads)
	iv := func() []byte { return s.host.Random(s.out.RandomIVLen()) }
	room := s.out.FragmentRoom(messageSize)
	if !s.fragmentation || len(inner) <= room {
		d, err := s.out.Seal(nil, h, first, inner, iv())
		if err != nil {
			return nil, fmt.Errorf("seal %s message %d: %w", exchange, id, err)
		}
		return [][]byte{d}, nil
	}
	total := (len(inner) + room - 1) / room
	if total > limitFragments {
		return nil, fmt.Errorf("seal %s message %d: %d octets need more than %d fragments", exchange, id, len(inner), limitFragments)
	}
	var datagrams [][]byte
	for n := range total {
		part := inner[n*room : min((n+1)*room, len(inner))]
		next := wire.NoNextPayload
		if n == 0 {
			next = first
		}
		d, err := s.out.SealFragment(nil, h, next, uint16(n+1), uint16(total), part, iv())
		if err != nil {
			return nil, fmt.Errorf("seal fragment %d of %s message %d: %w", n+1, exchange, id, err)
		}
		datagrams = append(datagrams, d)
	}
	return datagrams, nil
}

// opened is a protected message after its integrity was proved.
type opened struct {
	payloads []wire.Payload
	digest   [sha256.Size]byte
	done     bool  // false: fragments are missing
	syntax   error // what is wrong inside the authenticated octets
}

// open checks and decrypts a datagram, or stores it when it is one of several fragments. The error says that it is to be
// dropped without an answer (RFC 7296 2.21).
func (s *SA) open(c *collector, datagram []byte, m wire.Message) (opened, error) {
	if len(m.Payloads) == 0 {
		return opened{}, errUnprotected
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
		part, err := s.in.OpenFragment(datagram, p)
		if err != nil {
			return opened{}, err
		}
		limit := wire.LimitAfterAuth
		if !s.state.established() {
			limit = wire.LimitBeforeAuth
		}
		if inner, o.done = c.add(s.now, m.Header.MessageID, p, part, datagram, limit); !o.done {
			return o, nil
		}
		first, o.digest = c.first, c.digest
	default:
		return opened{}, errUnprotected
	}
	o.payloads, o.syntax = wire.ParsePayloads(first, inner)
	return o, nil
}
