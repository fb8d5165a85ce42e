package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
)

// The sizes of RSA modulus that the fleet accepts, in bits. The upper limit keeps a peer from making us verify
// signatures of its own choice of cost.
const (
	MinRSABits = 2048
	MaxRSABits = 8192
)

// CheckKey refuses public keys that are too weak, too costly or of a kind that the fleet does not use. It accepts RSA
// of 2048 to 8192 bits with an odd exponent of at least 3, ECDSA on P-256, P-384 and P-521, and Ed25519. It does no
// arithmetic on the key. Errors wrap ErrKey.
func CheckKey(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if k == nil || k.N == nil || k.N.Sign() <= 0 {
			return fmt.Errorf("RSA key without a modulus: %w", ErrKey)
		}
		if bits := k.N.BitLen(); bits < MinRSABits || bits > MaxRSABits {
			return fmt.Errorf("RSA key of %d bits, wanted %d to %d: %w", bits, MinRSABits, MaxRSABits, ErrKey)
		}
		if k.N.Bit(0) == 0 {
			return fmt.Errorf("RSA key with an even modulus: %w", ErrKey)
		}
		if k.E < 3 || k.E%2 == 0 {
			return fmt.Errorf("RSA key with the exponent %d, wanted an odd one of at least 3: %w", k.E, ErrKey)
		}
		return nil
	case *ecdsa.PublicKey:
		if k == nil || k.Curve == nil {
			return fmt.Errorf("ECDSA key without a curve: %w", ErrKey)
		}
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fmt.Errorf("ECDSA key on the curve %s, wanted P-256, P-384 or P-521: %w", k.Curve.Params().Name, ErrKey)
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return fmt.Errorf("Ed25519 key of %d octets, wanted %d: %w", len(k), ed25519.PublicKeySize, ErrKey)
		}
		return nil
	}
	return fmt.Errorf("key of the type %T, wanted RSA, ECDSA or Ed25519: %w", public, ErrKey)
}

// KeyID names a public key: the SHA-256 of its SubjectPublicKeyInfo. Pins, revocations and journals name keys by it,
// never by a hash over a certificate or a signature, whose encodings are malleable.
type KeyID [sha256.Size]byte

// KeyIDOf names a public key. The info is encoded anew, so that one key has one name however it was encoded.
func KeyIDOf(public crypto.PublicKey) (KeyID, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return KeyID{}, fmt.Errorf("naming a public key: %w", err)
	}
	return sha256.Sum256(der), nil
}

// ParseKeyID reads the form of String, in lower case.
func ParseKeyID(s string) (KeyID, error) {
	var id KeyID
	if len(s) != 2*len(id) {
		return KeyID{}, fmt.Errorf("key id %q is not %d hexadecimal digits: %w", clip(s), 2*len(id), ErrName)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return KeyID{}, fmt.Errorf("key id %q is not %d hexadecimal digits in lower case: %w", clip(s), 2*len(id), ErrName)
	}
	return id, nil
}

// String returns 64 hexadecimal digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id names no key.
func (id KeyID) IsZero() bool { return id == KeyID{} }

// MarshalText implements encoding.TextMarshaler with the form of String.
func (id KeyID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with ParseKeyID.
func (id *KeyID) UnmarshalText(text []byte) error {
	parsed, err := ParseKeyID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
