package suite

import (
	"crypto/ecdh"
	"crypto/rand"
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// PrivateValue is the private half of one key exchange. It is used for one IKE or Child SA and never again (RFC 6989).
type PrivateValue struct {
	group    proposal.Group
	curve    *ecdh.PrivateKey // nil with MODP and KEMs
	exponent []byte
	kem      decapsulator // nil with groups
}

// Group is the group of the key exchange.
func (p *PrivateValue) Group() proposal.Group { return p.group }

// String hides the value.
func (p PrivateValue) String() string { return "[redacted]" }

// GoString hides the value.
func (p PrivateValue) GoString() string { return p.String() }

// Format hides the value from every verb.
func (p PrivateValue) Format(w fmt.State, _ rune) { fmt.Fprint(w, p.String()) }

// Wipe overwrites the exponent of a MODP group. Curve keys lie inside the standard library and are left to the garbage
// collector.
func (p *PrivateValue) Wipe() { clear(p.exponent) }

// curveOf returns nil for groups that are not elliptic curves.
func curveOf(group proposal.Group) ecdh.Curve {
	switch group {
	case proposal.GroupECP256:
		return ecdh.P256()
	case proposal.GroupECP384:
		return ecdh.P384()
	case proposal.GroupECP521:
		return ecdh.P521()
	case proposal.GroupX25519:
		return ecdh.X25519()
	default:
		return nil
	}
}

// NewKeyExchange makes a fresh private value and the public octets for the KE payload. It uses system randomness and
// takes milliseconds for MODP groups: call it in a job. The error is ErrUnsupported.
func NewKeyExchange(group proposal.Group) (*PrivateValue, []byte, error) {
	if curve := curveOf(group); curve != nil {
		key, err := curve.GenerateKey(rand.Reader)
		if err != nil {
			return nil, nil, fmt.Errorf("make a key of group %d: %w", uint16(group), err)
		}
		p := &PrivateValue{group: group, curve: key}
		return p, p.public(), nil
	}
	if group.KEM() {
		return newKEM(group)
	}
	m, err := modpOf(group)
	if err != nil {
		return nil, nil, err
	}
	exponent := make([]byte, m.exponentLen)
	if _, err := rand.Read(exponent); err != nil {
		return nil, nil, fmt.Errorf("make a key of group %d: %w", uint16(group), err)
	}
	return KeyExchangeFrom(group, sa.NewSecret(exponent))
}

// KeyExchangeFrom is NewKeyExchange with a given private value, for tests and simulations. It takes ownership of
// private: the scalar of a curve in its fixed length, an exponent of a MODP group in at most the length of the prime, or the
// 64 octets of a decapsulation key (the seed d | z of FIPS 203 7.1).
func KeyExchangeFrom(group proposal.Group, private sa.Secret) (*PrivateValue, []byte, error) {
	if curve := curveOf(group); curve != nil {
		key, err := curve.NewPrivateKey(private.Expose())
		if err != nil {
			return nil, nil, fmt.Errorf("use a private value of %d octets in group %d: %w", private.Len(), uint16(group), ErrPrivateValue)
		}
		p := &PrivateValue{group: group, curve: key}
		return p, p.public(), nil
	}
	if group.KEM() {
		return kemFrom(group, private)
	}
	m, err := modpOf(group)
	if err != nil {
		return nil, nil, err
	}
	if private.Len() == 0 || private.Len() > m.size() {
		return nil, nil, fmt.Errorf("use a private value of %d octets in group %d: %w", private.Len(), uint16(group), ErrPrivateValue)
	}
	if zero(private.Expose()) {
		return nil, nil, fmt.Errorf("use zero as private value in group %d: %w", uint16(group), ErrPrivateValue)
	}
	p := &PrivateValue{group: group, exponent: private.Expose()}
	return p, m.power([]byte{2}, p.exponent), nil
}

// public writes the KE data of a curve. ECP groups leave out the octet 04 of the uncompressed form (RFC 5903 7).
func (p *PrivateValue) public() []byte {
	b := p.curve.PublicKey().Bytes()
	if p.group != proposal.GroupX25519 {
		b = b[1:]
	}
	return b
}

// Agree computes the shared secret g^ir with the KE data of the peer, or opens the ciphertext with which the peer answered
// a KEM. The error is ErrPublicValue, or ErrPrivateValue after Wipe.
func Agree(private *PrivateValue, peer []byte) (sa.Secret, error) {
	refused := fmt.Errorf("agree on a key with %d octets in group %d: %w", len(peer), uint16(private.group), ErrPublicValue)
	if private.kem != nil {
		shared, err := private.kem.Decapsulate(peer)
		if err != nil { // the length; a changed ciphertext gives another secret (FIPS 203 7.3), and AUTH fails
			return sa.Secret{}, refused
		}
		return sa.NewSecret(shared), nil
	}
	if private.curve == nil {
		m, err := modpOf(private.group)
		if err != nil {
			return sa.Secret{}, err
		}
		if !m.valid(peer) {
			return sa.Secret{}, refused
		}
		if zero(private.exponent) { // wiped: the result would be 1, which everybody knows
			return sa.Secret{}, fmt.Errorf("agree on a key with a wiped value: %w", ErrPrivateValue)
		}
		// RFC 7296 2.14: g^ir is a string of the length of the modulus, padded with zeros on the left.
		return sa.NewSecret(m.power(peer, private.exponent)), nil
	}
	if private.group != proposal.GroupX25519 {
		peer = append([]byte{4}, peer...)
	}
	// NewPublicKey checks the length and that the point is on the curve (RFC 6989 2.3). ECDH gives the x coordinate
	// (RFC 5903 7) and refuses the all-zero result of X25519 (RFC 8031 3).
	public, err := private.curve.Curve().NewPublicKey(peer)
	if err != nil {
		return sa.Secret{}, refused
	}
	shared, err := private.curve.ECDH(public)
	if err != nil {
		return sa.Secret{}, refused
	}
	return sa.NewSecret(shared), nil
}

// zero tells in constant time whether all octets are zero.
func zero(b []byte) bool {
	var bits byte
	for _, v := range b {
		bits |= v
	}
	return bits == 0
}
