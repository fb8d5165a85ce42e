package suite

import (
	"crypto"
	"errors"
	"io"
	"net/netip"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

var errPending = errors.New("pending")

// Keys are the seven keys of an IKE SA (RFC 7296 2.14). AI and AR are empty with an AEAD; EI and ER hold key and salt.
type Keys struct{ D, AI, AR, EI, ER, PI, PR sa.Secret }

// Wipe overwrites all keys.
func (k Keys) Wipe() {}

// DeriveIKE makes the keys of an IKE SA from its first exchange (RFC 7296 2.14).
func DeriveIKE(chosen proposal.IKE, shared sa.Secret, ni, nr []byte, spii, spir wire.SPI) (Keys, error) {
	return Keys{}, errPending
}

// RekeyIKE makes the keys of an IKE SA that replaces another (RFC 7296 2.18); oldPRF and oldD belong to the old one.
func RekeyIKE(chosen proposal.IKE, oldPRF proposal.PRF, oldD, shared sa.Secret, ni, nr []byte, spii, spir wire.SPI) (Keys, error) {
	return Keys{}, errPending
}

// DeriveChild makes the keys of a Child SA (RFC 7296 2.17). shared is empty without a key exchange of its own. The
// initiator's keys protect what the initiator of this exchange sends. The SPIs are left to the caller.
func DeriveChild(prf proposal.PRF, d, shared sa.Secret, ni, nr []byte, chosen proposal.ESP) (initiator, responder sa.Keys, err error) {
	return sa.Keys{}, sa.Keys{}, errPending
}

// CheckNonce tells whether a nonce is long enough for the PRF: at least half of its key (RFC 7296 2.10), 16..256 octets.
func CheckNonce(prf proposal.PRF, nonce []byte) error { return errPending }

// Protection protects the messages of one direction of an IKE SA.
type Protection struct{}

// NewProtection takes SK_e and SK_a of one direction.
func NewProtection(chosen proposal.IKE, encryption, integrity sa.Secret) (*Protection, error) {
	return nil, errPending
}

// RandomIVLen is the number of random octets that Seal needs as iv: 16 with CBC; 0 with an AEAD, which counts its own.
func (p *Protection) RandomIVLen() int { return 0 }

// Seal appends a whole message: header h (Length and NextPayload are set), SK payload with the inner payloads.
func (p *Protection) Seal(dst []byte, h wire.Header, first wire.PayloadType, inner, iv []byte) ([]byte, error) {
	return nil, errPending
}

// SealFragment appends a whole message with one SKF payload (RFC 7383 2.5).
func (p *Protection) SealFragment(dst []byte, h wire.Header, first wire.PayloadType, number, total uint16, part, iv []byte) ([]byte, error) {
	return nil, errPending
}

// FragmentRoom is the number of inner octets that fit into an SKF message of at most size octets.
func (p *Protection) FragmentRoom(size int) int { return 0 }

// Open checks and decrypts the SK payload of a message; datagram is the whole message. The result is a new slice.
func (p *Protection) Open(datagram []byte, sk wire.Encrypted) ([]byte, error) { return nil, errPending }

// OpenFragment checks and decrypts the SKF payload of a message.
func (p *Protection) OpenFragment(datagram []byte, skf wire.Fragment) ([]byte, error) {
	return nil, errPending
}

// OctetsToSign is what AUTH of one side covers (RFC 7296 2.15): its first message, the nonce of the other side, and
// prf(SK_p, body of its ID payload).
func OctetsToSign(prf proposal.PRF, message, nonce []byte, skp sa.Secret, id wire.ID) ([]byte, error) {
	return nil, errPending
}

// PSKAuth is the AUTH data of method 2 (RFC 7296 2.15).
func PSKAuth(prf proposal.PRF, psk sa.Secret, octets []byte) ([]byte, error) { return nil, errPending }

// VerifyPSK compares in constant time.
func VerifyPSK(prf proposal.PRF, psk sa.Secret, octets, data []byte) error { return errPending }

// SupportedHashes is what SIGNATURE_HASH_ALGORITHMS announces.
func SupportedHashes() []wire.HashAlgorithm { return nil }

// Sign makes AUTH data with the private key of a certificate. peer is what the peer announced in
// SIGNATURE_HASH_ALGORITHMS; empty when it announced nothing.
func Sign(rand io.Reader, signer crypto.Signer, peer []wire.HashAlgorithm, octets []byte) (wire.AuthMethod, []byte, error) {
	return 0, nil, errPending
}

// Verify checks the AUTH data of the peer against the public key of its certificate. announced is what this side sent
// in SIGNATURE_HASH_ALGORITHMS.
func Verify(pub crypto.PublicKey, method wire.AuthMethod, data, octets []byte, announced []wire.HashAlgorithm) error {
	return errPending
}

// PrivateValue is the private half of one key exchange; it is used once.
type PrivateValue struct{}

// Group is the group of the key exchange.
func (p *PrivateValue) Group() proposal.Group { return 0 }

// NewKeyExchange makes a fresh private value and the public octets for the KE payload. It uses system randomness.
func NewKeyExchange(group proposal.Group) (*PrivateValue, []byte, error) { return nil, nil, errPending }

// KeyExchangeFrom is NewKeyExchange with a given private value, for tests and simulations.
func KeyExchangeFrom(group proposal.Group, private sa.Secret) (*PrivateValue, []byte, error) {
	return nil, nil, errPending
}

// Agree computes the shared secret g^ir with the KE data of the peer.
func Agree(private *PrivateValue, peer []byte) (sa.Secret, error) { return sa.Secret{}, errPending }

// NATHash is the data of a NAT_DETECTION notify (RFC 7296 2.23). spir is 0 in the first request.
func NATHash(spii, spir wire.SPI, at netip.AddrPort) []byte { return nil }

// Cookie is the keyed hash in a COOKIE notify (RFC 7296 2.6); version tells which secret made it and is its first octet.
func Cookie(secret sa.Secret, version byte, spii wire.SPI, ni []byte, from netip.AddrPort) []byte {
	return nil
}
