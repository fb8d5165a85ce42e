package wire

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Message is a header and the payloads behind it. In a protected message the last payload is Encrypted or Fragment.
type Message struct {
	Header   Header
	Payloads []Payload
}

// String is the form that traces and golden tests use: that of Summary.
func (m Message) String() string { return m.Summary().String() }

// ParseMessage reads a whole datagram of at most limit octets (LimitBeforeAuth or LimitAfterAuth). Payloads up to and
// including SK or SKF are parsed; what SK protects is opened by node/ike/suite and then read with ParsePayloads. When
// the error came after the header, the Message holds the header, so that an answer can be addressed.
func ParseMessage(datagram []byte, limit int) (Message, error) {
	if len(datagram) > limit {
		return Message{}, dropf(0, "%d octets exceed the limit of %d", len(datagram), limit)
	}
	h, err := ParseHeader(datagram)
	if err != nil {
		return Message{}, err
	}
	m := Message{Header: h}
	switch major := h.Version >> 4; {
	case major > 2: // RFC 7296 2.5: drop and SHOULD tell
		return m, &Error{Notify: NotifyInvalidMajorVersion, Detail: fmt.Sprintf("major version %d", major), Offset: 17}
	case major < 2:
		return m, dropf(17, "major version %d", major)
	}
	// uint64 because an int may have 32 bits.
	if uint64(h.Length) != uint64(len(datagram)) {
		return m, dropf(24, "length field %d in a datagram of %d octets", h.Length, len(datagram))
	}
	m.Payloads, err = parseChain(h.NextPayload, datagram, HeaderLen, true)
	return m, err
}

// ParsePayloads reads a chain of payloads that begins with one of type first: the inside of an SK payload, or of the
// reassembled fragments. NoNextPayload with no octets is an empty chain. Offsets in errors count from the start of b.
func ParsePayloads(first PayloadType, b []byte) ([]Payload, error) {
	if len(b) > LimitAfterAuth {
		return nil, syntaxf(0, "%d octets of payloads exceed the limit of %d", len(b), LimitAfterAuth)
	}
	return parseChain(first, b, 0, false)
}

// AppendMessage writes the message; next payload and length fields follow from the payloads.
func AppendMessage(dst []byte, m Message) []byte {
	dst = slices.Grow(dst, HeaderLen+room(m.Payloads))
	start := len(dst)
	h := m.Header
	h.NextPayload = First(m.Payloads)
	dst = h.Append(dst)
	dst = AppendPayloads(dst, m.Payloads)
	binary.BigEndian.PutUint32(dst[start+24:], uint32(len(dst)-start))
	return dst
}

// AppendPayloads writes the chain of payloads. The type of the first one, which belongs into the field before them, is
// First(payloads). A payload of more than 65535 octets has no representation; whoever builds one from data of any length
// (certificates) bounds the chain by LimitAfterAuth first.
func AppendPayloads(dst []byte, payloads []Payload) []byte {
	dst = slices.Grow(dst, room(payloads))
	for i, p := range payloads {
		start := len(dst)
		next := First(payloads[i+1:])
		switch p := p.(type) {
		case Encrypted: // RFC 7296 3.14: names the first payload inside
			next = p.Next
		case Fragment:
			next = p.Next
		}
		critical := byte(0)
		if u, ok := p.(Unknown); ok && u.Critical {
			critical = criticalBit
		}
		dst = append(dst, byte(next), critical, 0, 0)
		dst = p.AppendBody(dst)
		binary.BigEndian.PutUint16(dst[start+2:], uint16(len(dst)-start))
	}
	return dst
}

// room is about how many octets a chain of payloads takes, rather too many than too few: a message is written into one
// piece of memory.
func room(payloads []Payload) int {
	n := 0
	for _, p := range payloads {
		n += genericHeaderLen
		switch p := p.(type) {
		case SA:
			for _, prop := range p.Proposals {
				n += 8 + len(prop.SPI) + 12*len(prop.Transforms)
			}
		case KE:
			n += 4 + len(p.Data)
		case ID:
			n += 4 + len(p.Data)
		case Cert:
			n += 1 + len(p.Data)
		case CertReq:
			n += 1 + len(p.Data)
		case Auth:
			n += 4 + len(p.Data)
		case Nonce:
			n += len(p.Data)
		case Notify:
			n += 4 + len(p.SPI) + len(p.Data)
		case Delete:
			n += 4 + 4*len(p.SPIs)
		case TS:
			n += 4
			for _, s := range p.Selectors {
				n += 8 + 2*s.From.BitLen()/8
			}
		default: // of the peer only
			n += 16
		}
	}
	return n
}

// First is the type of the first payload, NoNextPayload of none.
func First(payloads []Payload) PayloadType {
	if len(payloads) == 0 {
		return NoNextPayload
	}
	return payloads[0].PayloadType()
}

// Find returns the first payload of type P that keep accepts; keep may be nil.
func Find[P Payload](payloads []Payload, keep func(P) bool) (P, bool) {
	for _, p := range payloads {
		if v, ok := p.(P); ok && (keep == nil || keep(v)) {
			return v, true
		}
	}
	var none P
	return none, false
}

// FindNotify returns the first notify of type t.
func FindNotify(payloads []Payload, t NotifyType) (Notify, bool) {
	return Find(payloads, func(n Notify) bool { return n.Type == t })
}
