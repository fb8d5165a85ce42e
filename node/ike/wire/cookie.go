package wire

import "encoding/binary"

// CookieMessageLen is the length of the message that AppendCookieMessage makes around a cookie of n octets.
func CookieMessageLen(n int) int { return HeaderLen + genericHeaderLen + 4 + n }

// AppendCookieMessage appends the response to an IKE_SA_INIT request that asks for it once more, with a cookie (RFC 7296
// 2.6): a message with one COOKIE notify, whose data cookie appends to its argument. It allocates nothing of its own.
func AppendCookieMessage(dst []byte, request Header, n int, cookie func([]byte) []byte) []byte {
	h := Header{
		SPIi: request.SPIi, SPIr: request.SPIr, NextPayload: TypeNotify, Exchange: request.Exchange, Flags: FlagResponse,
		MessageID: request.MessageID, Length: uint32(CookieMessageLen(n)),
	}
	dst = h.Append(dst)
	dst = append(dst, byte(NoNextPayload), 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(genericHeaderLen+4+n))
	dst = append(dst, 0, 0) // RFC 7296 3.10: concerns no SA, and no SPI follows
	dst = binary.BigEndian.AppendUint16(dst, uint16(NotifyCookie))
	return cookie(dst)
}
