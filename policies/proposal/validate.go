package proposal

import (
	"fmt"
	"slices"
)

// Validate reports whether the offer is complete and made of algorithms that can be negotiated. Its error wraps
// ErrOffer.
func (o IKE) Validate() error {
	if !o.Encryption.Conceals() {
		return fmt.Errorf("%w: an IKE SA without encryption", ErrOffer)
	}
	if err := validateCipher(o.Encryption, o.KeyBits, o.Integrity); err != nil {
		return err
	}
	if _, ok := prfNames[o.PRF]; !ok {
		return fmt.Errorf("%w: unknown pseudo-random function %d", ErrOffer, o.PRF)
	}
	if _, ok := groupNames[o.Group]; !ok {
		return fmt.Errorf("%w: unknown or missing key exchange method %d", ErrOffer, o.Group)
	}
	return o.KeyExchange().validate()
}

// Validate reports whether the offer is complete and made of algorithms that can be negotiated. Its error wraps
// ErrOffer.
func (o ESP) Validate() error {
	if err := validateCipher(o.Encryption, o.KeyBits, o.Integrity); err != nil {
		return err
	}
	if o.Group == GroupNone {
		if o.Additional != (Additional{}) {
			return fmt.Errorf("%w: an additional key exchange without a first one", ErrOffer)
		}
		return nil
	}
	if _, ok := groupNames[o.Group]; !ok {
		return fmt.Errorf("%w: unknown key exchange method %d", ErrOffer, o.Group)
	}
	return o.KeyExchange().validate()
}

// validate checks the additional methods: known, without gaps, and none of them twice (RFC 9370 2.2.1).
func (k KeyExchange) validate() error {
	methods := k.Additional.Methods()
	if AdditionalOf(methods...) != k.Additional {
		return fmt.Errorf("%w: a gap between additional key exchanges", ErrOffer)
	}
	for i, g := range methods {
		if _, ok := groupNames[g]; !ok {
			return fmt.Errorf("%w: unknown key exchange method %d", ErrOffer, g)
		}
		if g == k.Group || slices.Contains(methods[:i], g) {
			return fmt.Errorf("%w: key exchange method %s twice", ErrOffer, g)
		}
	}
	return nil
}

// validateCipher checks what both kinds of offer share: a known cipher with a possible key length, and integrity from
// exactly one source (RFC 7296 3.3.3, RFC 5282 8).
func validateCipher(e Encryption, bits uint16, i Integrity) error {
	switch e {
	case EncrAESCBC, EncrAESGCM16, EncrNullAESGMAC:
		if bits != 128 && bits != 192 && bits != 256 {
			return fmt.Errorf("%w: AES with a key of %d bits", ErrOffer, bits)
		}
	case EncrChaCha20Poly1305, EncrNULL:
		if bits != 0 {
			return fmt.Errorf("%w: a key length of %d bits for an algorithm with a fixed one", ErrOffer, bits)
		}
	default:
		return fmt.Errorf("%w: unknown encryption algorithm %d", ErrOffer, e)
	}
	if e.AEAD() {
		if i != IntegNone {
			return fmt.Errorf("%w: integrity algorithm %s beside %s, which has its own", ErrOffer, i, e)
		}
		return nil
	}
	if i == IntegNone {
		return fmt.Errorf("%w: %s without integrity", ErrOffer, e)
	}
	if _, ok := integrityNames[i]; !ok {
		return fmt.Errorf("%w: unknown integrity algorithm %d", ErrOffer, i)
	}
	return nil
}
