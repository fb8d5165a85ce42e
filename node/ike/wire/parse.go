package wire

import (
	"encoding/binary"
	"net/netip"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

const (
	genericHeaderLen = 4
	criticalBit      = 0x80
	// usualPayloads is room for those of any message of a handshake between peers that know most extensions.
	usualPayloads = 12
)

// parseChain reads payloads from b[at:] to its end. outer tells that SK and SKF may come, as the last payload.
func parseChain(next PayloadType, b []byte, at int, outer bool) ([]Payload, error) {
	var payloads []Payload
	notifies := 0
	for next != NoNextPayload {
		if len(payloads) == LimitPayloads {
			return nil, syntaxf(at, "more than %d payloads", LimitPayloads)
		}
		if len(b)-at < genericHeaderLen {
			return nil, syntaxf(at, "%s payload: %d octets left for the generic header", next, len(b)-at)
		}
		// A payload of less than its own header would let the chain stand still.
		length := int(binary.BigEndian.Uint16(b[at+2:]))
		if length < genericHeaderLen || length > len(b)-at {
			return nil, syntaxf(at+2, "%s payload: length %d with %d octets left", next, length, len(b)-at)
		}
		following, critical := PayloadType(b[at]), b[at+1]&criticalBit != 0
		body, offset := b[at+genericHeaderLen:at+length], at+genericHeaderLen
		at += length

		if next == TypeSK || next == TypeSKF {
			if !outer {
				return nil, syntaxf(offset-genericHeaderLen, "%s payload inside an encrypted payload", next)
			}
			if at != len(b) { // RFC 7296 3.14: SK MUST be the last payload
				return nil, syntaxf(at, "%d octets behind the %s payload", len(b)-at, next)
			}
			p, err := parseProtected(next, following, body, offset)
			if err != nil {
				return nil, err
			}
			return append(payloads, p), nil
		}

		p, err := parseBody(next, critical, body, offset)
		if err != nil {
			return nil, err
		}
		if next == TypeNotify {
			if notifies++; notifies > LimitNotifies {
				return nil, syntaxf(offset, "more than %d Notify payloads", LimitNotifies)
			}
		}
		if payloads == nil {
			payloads = make([]Payload, 0, usualPayloads)
		}
		payloads = append(payloads, p)
		next = following
	}
	if at != len(b) {
		return nil, syntaxf(at, "%d octets behind the last payload", len(b)-at)
	}
	return payloads, nil
}

func parseProtected(kind, next PayloadType, body []byte, at int) (Payload, error) {
	if kind == TypeSK {
		return Encrypted{Next: next, Body: body, Offset: at}, nil
	}
	if len(body) < 4 {
		return nil, syntaxf(at, "SKF payload: %d octets left for the fragment numbers", len(body))
	}
	p := Fragment{
		Next:   next,
		Number: binary.BigEndian.Uint16(body),
		Total:  binary.BigEndian.Uint16(body[2:]),
		Body:   body[4:],
		Offset: at + 4,
	}
	if p.Number == 0 || p.Number > p.Total { // RFC 7383 2.5
		return nil, dropf(at, "SKF payload: fragment %d of %d", p.Number, p.Total)
	}
	if p.Number > 1 && p.Next != NoNextPayload { // RFC 7383 2.5: MUST be zero in the others
		return nil, dropf(at-genericHeaderLen, "SKF payload: fragment %d names next payload %s", p.Number, p.Next)
	}
	return p, nil
}

// parseBody reads the body of one payload that starts at offset at of the parsed bytes.
func parseBody(kind PayloadType, critical bool, b []byte, at int) (Payload, error) {
	short := func(least int) *Error {
		return syntaxf(at, "%s payload: %d octets, at least %d needed", kind, len(b), least)
	}
	switch kind {
	case TypeSA:
		return parseSA(b, at)
	case TypeKE:
		if len(b) < 5 {
			return nil, short(5)
		}
		return KE{Group: proposal.Group(binary.BigEndian.Uint16(b)), Data: b[4:]}, nil
	case TypeIDi, TypeIDr:
		return parseID(kind, b, at)
	case TypeCert:
		if len(b) < 2 {
			return nil, short(2)
		}
		return Cert{Encoding: CertEncoding(b[0]), Data: b[1:]}, nil
	case TypeCertReq:
		if len(b) < 1 {
			return nil, short(1)
		}
		return CertReq{Encoding: CertEncoding(b[0]), Data: b[1:]}, nil
	case TypeAuth:
		if len(b) < 5 {
			return nil, short(5)
		}
		return Auth{Method: AuthMethod(b[0]), Data: b[4:]}, nil
	case TypeNonce:
		if len(b) < NonceMin || len(b) > NonceMax {
			return nil, syntaxf(at, "nonce of %d octets, %d to %d allowed", len(b), NonceMin, NonceMax)
		}
		return Nonce{Data: b}, nil
	case TypeNotify:
		if len(b) < 4 {
			return nil, short(4)
		}
		size := int(b[1])
		if len(b) < 4+size {
			return nil, short(4 + size)
		}
		return Notify{
			Protocol: Protocol(b[0]),
			SPI:      b[4 : 4+size],
			Type:     NotifyType(binary.BigEndian.Uint16(b[2:])),
			Data:     b[4+size:],
		}, nil
	case TypeDelete:
		return parseDelete(b, at)
	case TypeVendorID:
		return VendorID{Data: b}, nil
	case TypeTSi, TypeTSr:
		return parseTS(kind, b, at)
	case TypeConfig:
		return parseConfig(b, at)
	case TypeEAP:
		if len(b) < 4 {
			return nil, short(4)
		}
		return EAP{Message: b}, nil
	}
	if critical { // RFC 7296 2.5; the bit means nothing on payloads that are known
		return nil, &Error{
			Notify: NotifyUnsupportedCriticalPayload,
			Data:   []byte{byte(kind)},
			Detail: kind.String() + " has the critical bit",
			Offset: at - genericHeaderLen,
		}
	}
	return Unknown{Type: kind, Body: b}, nil
}

// limitID bounds identification data: a distinguished name is the longest that is legitimate, and what comes after this
// payload is read, printed and compared before anybody is authenticated.
const limitID = 2048

func parseID(kind PayloadType, b []byte, at int) (Payload, error) {
	if len(b) < 4 {
		return nil, syntaxf(at, "%s payload: %d octets, at least 4 needed", kind, len(b))
	}
	p := ID{Responder: kind == TypeIDr, Type: IDType(b[0]), Reserved: [3]byte(b[1:4]), Data: b[4:]}
	// RFC 7296 3.5: the address types have exactly the length of an address.
	if p.Type == IDIPv4Addr && len(p.Data) != 4 || p.Type == IDIPv6Addr && len(p.Data) != 16 {
		return nil, syntaxf(at, "%s payload: %s with %d octets", kind, p.Type, len(p.Data))
	}
	if len(p.Data) > limitID {
		return nil, syntaxf(at, "%s payload: identification data of %d octets, more than %d", kind, len(p.Data), limitID)
	}
	if p.Type != IDNull && len(p.Data) == 0 {
		return nil, syntaxf(at, "%s payload: empty %s", kind, p.Type)
	}
	return p, nil
}

func parseDelete(b []byte, at int) (Payload, error) {
	if len(b) < 4 {
		return nil, syntaxf(at, "D payload: %d octets, at least 4 needed", len(b))
	}
	p := Delete{Protocol: Protocol(b[0])}
	size, count := int(b[1]), int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case p.Protocol == ProtocolIKE && size == 0 && count == 0:
	case (p.Protocol == ProtocolESP || p.Protocol == ProtocolAH) && size == 4:
	default:
		return nil, syntaxf(at, "D payload: %s with %d SPIs of %d octets", p.Protocol, count, size)
	}
	if len(b) != 4+size*count {
		return nil, syntaxf(at, "D payload: %d octets for %d SPIs of %d octets", len(b)-4, count, size)
	}
	for i := range count {
		p.SPIs = append(p.SPIs, sa.SPI(binary.BigEndian.Uint32(b[4+4*i:])))
	}
	return p, nil
}

func parseConfig(b []byte, at int) (Payload, error) {
	if len(b) < 4 {
		return nil, syntaxf(at, "CP payload: %d octets, at least 4 needed", len(b))
	}
	p := Config{Type: ConfigType(b[0])}
	for i := 4; i < len(b); {
		if len(b)-i < 4 {
			return nil, syntaxf(at+i, "CP attribute: %d octets left", len(b)-i)
		}
		kind, size := binary.BigEndian.Uint16(b[i:]), int(binary.BigEndian.Uint16(b[i+2:]))
		if size > len(b)-i-4 {
			return nil, syntaxf(at+i, "CP attribute %d: length %d with %d octets left", kind&0x7fff, size, len(b)-i-4)
		}
		p.Attributes = append(p.Attributes, ConfigAttribute{Type: kind & 0x7fff, Value: b[i+4 : i+4+size]})
		i += 4 + size
	}
	return p, nil
}

func parseTS(kind PayloadType, b []byte, at int) (Payload, error) {
	if len(b) < 4 {
		return nil, syntaxf(at, "%s payload: %d octets, at least 4 needed", kind, len(b))
	}
	p := TS{Responder: kind == TypeTSr}
	count := int(b[0])
	if count == 0 || count > LimitSelectors { // RFC 7296 3.13: at least one
		return nil, syntaxf(at, "%s payload: %d selectors, 1 to %d allowed", kind, count, LimitSelectors)
	}
	i := 4
	for range count {
		if len(b)-i < 4 {
			return nil, syntaxf(at+i, "%s payload: %d octets left for a selector", kind, len(b)-i)
		}
		length := int(binary.BigEndian.Uint16(b[i+2:]))
		if length < 4 || length > len(b)-i {
			return nil, syntaxf(at+i, "%s payload: selector of %d octets with %d left", kind, length, len(b)-i)
		}
		if t := b[i]; t == tsIPv4Range || t == tsIPv6Range {
			s, err := parseSelector(b[i:i+length], at+i)
			if err != nil {
				return nil, err
			}
			if p.Selectors == nil {
				p.Selectors = make([]sa.Selector, 0, min(count, len(b)/16))
			}
			p.Selectors = append(p.Selectors, s)
		} else {
			p.Other = append(p.Other, OtherSelector{Type: t, Protocol: b[i+1], Body: b[i+4 : i+length]})
		}
		i += length
	}
	if i != len(b) {
		return nil, syntaxf(at+i, "%s payload: %d octets behind the last selector", kind, len(b)-i)
	}
	return p, nil
}

// parseSelector reads one address range; b is exactly the selector.
func parseSelector(b []byte, at int) (sa.Selector, error) {
	size := 4
	if b[0] == tsIPv6Range {
		size = 16
	}
	if len(b) != 8+2*size {
		return sa.Selector{}, syntaxf(at, "traffic selector of type %d with %d octets", b[0], len(b))
	}
	from, _ := netip.AddrFromSlice(b[8 : 8+size])
	to, _ := netip.AddrFromSlice(b[8+size:])
	s := sa.Selector{
		Protocol: b[1],
		From:     from,
		To:       to,
		PortFrom: binary.BigEndian.Uint16(b[4:]),
		PortTo:   binary.BigEndian.Uint16(b[6:]),
	}
	if to.Less(from) {
		return sa.Selector{}, syntaxf(at, "traffic selector from %s to %s", from, to)
	}
	// RFC 7296 3.13.1: 65535..0 is OPAQUE, the only descending pair that means something.
	if s.PortFrom > s.PortTo && (s.PortFrom != 65535 || s.PortTo != 0) {
		return sa.Selector{}, syntaxf(at, "traffic selector with ports %d to %d", s.PortFrom, s.PortTo)
	}
	return s, nil
}

// parseSA reads the proposals of an SA payload.
func parseSA(b []byte, at int) (Payload, error) {
	var p SA
	for i, more := 0, true; more; {
		if len(p.Proposals) == LimitProposals {
			return nil, syntaxf(at+i, "more than %d proposals", LimitProposals)
		}
		if len(b)-i < 8 {
			return nil, syntaxf(at+i, "proposal: %d octets left", len(b)-i)
		}
		length := int(binary.BigEndian.Uint16(b[i+2:]))
		if length < 8 || length > len(b)-i {
			return nil, syntaxf(at+i, "proposal of %d octets with %d left", length, len(b)-i)
		}
		more = b[i] == moreProposals
		if !more && b[i] != 0 {
			return nil, syntaxf(at+i, "proposal: last substructure octet %d", b[i])
		}
		if more != (i+length < len(b)) {
			return nil, syntaxf(at+i, "proposal: last substructure octet %d with %d octets behind", b[i], len(b)-i-length)
		}
		prop, err := parseProposal(b[i:i+length], at+i)
		if err != nil {
			return nil, err
		}
		// RFC 7296 3.3.1 numbers proposals from 1 upwards; increasing numbers are what makes a choice unambiguous.
		if n := len(p.Proposals); prop.Number == 0 || n > 0 && prop.Number <= p.Proposals[n-1].Number {
			return nil, syntaxf(at+i+4, "proposal number %d is not above the one before", prop.Number)
		}
		p.Proposals = append(p.Proposals, prop)
		i += length
	}
	return p, nil
}

func parseProposal(b []byte, at int) (Proposal, error) {
	size, count := int(b[6]), int(b[7])
	if len(b) < 8+size {
		return Proposal{}, syntaxf(at, "proposal %d: SPI of %d octets with %d left", b[4], size, len(b)-8)
	}
	if count > LimitTransforms {
		return Proposal{}, syntaxf(at, "proposal %d: more than %d transforms", b[4], LimitTransforms)
	}
	p := Proposal{Number: b[4], Protocol: Protocol(b[5]), SPI: b[8 : 8+size]}
	i := 8 + size
	if count > 0 {
		p.Transforms = make([]Transform, 0, min(count, (len(b)-i)/8)) // as many as there are octets for at the most
	}
	for n := range count {
		if len(b)-i < 8 {
			return Proposal{}, syntaxf(at+i, "proposal %d: %d octets left for transform %d of %d", p.Number, len(b)-i, n+1, count)
		}
		length := int(binary.BigEndian.Uint16(b[i+2:]))
		if length < 8 || length > len(b)-i {
			return Proposal{}, syntaxf(at+i, "proposal %d: transform of %d octets with %d left", p.Number, length, len(b)-i)
		}
		want := byte(moreTransforms)
		if n == count-1 {
			want = 0
		}
		if b[i] != want {
			return Proposal{}, syntaxf(at+i, "proposal %d: last substructure octet %d in transform %d of %d", p.Number, b[i], n+1, count)
		}
		t, err := parseTransform(b[i:i+length], at+i)
		if err != nil {
			return Proposal{}, err
		}
		p.Transforms = append(p.Transforms, t)
		i += length
	}
	if i != len(b) {
		return Proposal{}, syntaxf(at+i, "proposal %d: %d octets behind the last transform", p.Number, len(b)-i)
	}
	return p, nil
}

func parseTransform(b []byte, at int) (Transform, error) {
	t := Transform{Type: TransformType(b[4]), ID: binary.BigEndian.Uint16(b[6:])}
	for i := 8; i < len(b); {
		if len(b)-i < 4 {
			return Transform{}, syntaxf(at+i, "%s transform: %d octets left for an attribute", t.Type, len(b)-i)
		}
		kind, value := binary.BigEndian.Uint16(b[i:]), binary.BigEndian.Uint16(b[i+2:])
		if kind&attributeFormatTV != 0 {
			kind &^= attributeFormatTV
			if kind == attributeKeyLength && t.KeyBits == 0 && value != 0 {
				t.KeyBits = value
			} else { // a second or a zero key length is as good as an unknown attribute
				t.Other = append(t.Other, Attribute{Type: kind, Fixed: true, Value: b[i+2 : i+4]})
			}
			i += 4
			continue
		}
		size := int(value)
		if size > len(b)-i-4 {
			return Transform{}, syntaxf(at+i, "%s transform: attribute %d of %d octets with %d left", t.Type, kind, size, len(b)-i-4)
		}
		t.Other = append(t.Other, Attribute{Type: kind, Value: b[i+4 : i+4+size]})
		i += 4 + size
	}
	return t, nil
}
