package wire

import (
	"bytes"
	"encoding/binary"
)

// InitParts are the few octets of an IKE_SA_INIT request that a cookie is computed over, found without parsing the rest.
type InitParts struct {
	Cookie []byte // data of the COOKIE notify; nil unless it is the first payload (RFC 7296 2.6)
	Nonce  []byte
}

// PeekInit finds the cookie and the nonce of an IKE_SA_INIT request by walking its generic payload headers. It looks
// into no other payload: a responder under attack decides about a message before it spends anything on its SA payload.
// ok is false when the chain is broken, too long or has no nonce.
func PeekInit(datagram []byte) (p InitParts, ok bool) {
	h, err := ParseHeader(datagram)
	if err != nil || len(datagram) > LimitBeforeAuth || uint64(h.Length) != uint64(len(datagram)) {
		return InitParts{}, false
	}
	next, at := h.NextPayload, HeaderLen
	for n := 0; next != NoNextPayload; n++ {
		if n == LimitPayloads || len(datagram)-at < genericHeaderLen {
			return InitParts{}, false
		}
		length := int(binary.BigEndian.Uint16(datagram[at+2:]))
		if length < genericHeaderLen || length > len(datagram)-at {
			return InitParts{}, false
		}
		body := datagram[at+genericHeaderLen : at+length]
		switch {
		case next == TypeNonce && p.Nonce == nil:
			if len(body) < NonceMin || len(body) > NonceMax {
				return InitParts{}, false
			}
			p.Nonce = body
		case next == TypeNotify && n == 0:
			p.Cookie = cookieOf(body)
		}
		next, at = PayloadType(datagram[at]), at+length
	}
	return p, p.Nonce != nil && at == len(datagram)
}

func cookieOf(body []byte) []byte {
	if len(body) < 4 || NotifyType(binary.BigEndian.Uint16(body[2:])) != NotifyCookie {
		return nil
	}
	if skip := 4 + int(body[1]); len(body) > skip {
		return body[skip:]
	}
	return nil
}

// SameInit reports whether two IKE_SA_INIT requests differ by nothing but a cookie: then they are one request of one
// initiator, before and after it was asked for the cookie (RFC 7296 2.6).
func SameInit(a, b []byte) bool {
	firstA, restA, okA := withoutCookie(a)
	firstB, restB, okB := withoutCookie(b)
	// From the SPIs to the message ID; in between is the type of the first payload, behind them the length.
	return okA && okB && bytes.Equal(a[:16], b[:16]) && bytes.Equal(a[17:24], b[17:24]) && firstA == firstB && bytes.Equal(restA, restB)
}

// withoutCookie returns the payloads of a message behind its cookie, and the type of the first of them.
func withoutCookie(message []byte) (first PayloadType, rest []byte, ok bool) {
	h, err := ParseHeader(message)
	if err != nil {
		return 0, nil, false
	}
	first, rest = h.NextPayload, message[HeaderLen:]
	if first != TypeNotify || len(rest) < genericHeaderLen || cookieOf(rest[genericHeaderLen:]) == nil {
		return first, rest, true
	}
	length := int(binary.BigEndian.Uint16(rest[2:]))
	if length < genericHeaderLen || length > len(rest) {
		return 0, nil, false
	}
	return PayloadType(rest[0]), rest[length:], true
}
