package suite

import (
	"crypto/hmac"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// keyPad is the 17 octets that a shared key is expanded with, without a terminating zero (RFC 7296 2.15).
const keyPad = "Key Pad for IKEv2"

// OctetsToSign is what AUTH of one side covers (RFC 7296 2.15): RealMessage | Nonce of the other side |
// prf(SK_p, body of its ID payload). message is the whole last IKE_SA_INIT message of that side, without non-ESP
// marker, in one part or in several. The error is ErrUnsupported.
func OctetsToSign(prf proposal.PRF, nonce []byte, skp sa.Secret, id wire.ID, message ...[]byte) ([]byte, error) {
	h, err := prfHash(prf)
	if err != nil {
		return nil, err
	}
	length := len(nonce) + maxPRFSize
	for _, part := range message {
		length += len(part)
	}
	octets := make([]byte, 0, length)
	for _, part := range message {
		octets = append(octets, part...)
	}
	octets = append(octets, nonce...)
	return appendMAC(octets, h, skp.Expose(), id.AppendBody(make([]byte, 0, 4+len(id.Data)))), nil
}

// IntermediateAuth is IntAuth of one side after its next IKE_INTERMEDIATE message: prf(SK_p, previous | A | P) (RFC 9242
// 3.3.2). skp and previous are its SK_p while that exchange is under way and IntAuth before it, nil at the beginning. A is
// the message as if it had not been fragmented, up to the header of the SK payload, and P the inner payloads, which begin
// with type first; both lengths in A are those without the octets that encryption adds. The error is ErrUnsupported, or
// ErrTooLong.
func IntermediateAuth(prf proposal.PRF, skp sa.Secret, previous []byte, header wire.Header, first wire.PayloadType, inner []byte) ([]byte, error) {
	h, err := prfHash(prf)
	if err != nil {
		return nil, err
	}
	length := genericHeaderLen + len(inner)
	if length > math.MaxUint16 {
		return nil, fmt.Errorf("authenticate %d octets of IKE_INTERMEDIATE: %w", len(inner), ErrTooLong)
	}
	header.NextPayload, header.Length = wire.TypeSK, uint32(wire.HeaderLen+length)
	a := append(header.Append(nil), byte(first), 0)
	a = binary.BigEndian.AppendUint16(a, uint16(length))
	return mac(h, skp.Expose(), previous, a, inner), nil
}

// PSKAuth is the AUTH data of method 2: prf(prf(PSK, "Key Pad for IKEv2"), octets) (RFC 7296 2.15). The MSK of an EAP
// method takes the place of psk. The error is ErrUnsupported or ErrEmptyKey.
func PSKAuth(prf proposal.PRF, psk sa.Secret, octets []byte) ([]byte, error) {
	h, err := prfHash(prf)
	if err != nil {
		return nil, err
	}
	if psk.Len() == 0 {
		return nil, ErrEmptyKey
	}
	key := mac(h, psk.Expose(), []byte(keyPad))
	defer clear(key)
	return mac(h, key, octets), nil
}

// VerifyPSK compares the AUTH data of method 2 in constant time. The error is ErrSignature, or as in PSKAuth.
func VerifyPSK(prf proposal.PRF, psk sa.Secret, octets, data []byte) error {
	want, err := PSKAuth(prf, psk, octets)
	if err != nil {
		return err
	}
	if !hmac.Equal(want, data) {
		return ErrSignature
	}
	return nil
}
