package suite

import (
	"fmt"
	"hash"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// saltLen is what AES-GCM, GMAC and ChaCha20-Poly1305 take from the key material behind the key (RFC 5282 7.1, RFC 4543 5.4,
// RFC 7634 2).
const saltLen = 4

// encryptionKeyLen is the length in octets of key and salt.
func encryptionKeyLen(e proposal.Encryption, bits uint16) (int, error) {
	aes := bits == 128 || bits == 192 || bits == 256
	switch {
	case (e == proposal.EncrAESGCM16 || e == proposal.EncrNullAESGMAC) && aes:
		return int(bits)/8 + saltLen, nil
	case e == proposal.EncrAESCBC && aes:
		return int(bits) / 8, nil
	case e == proposal.EncrChaCha20Poly1305 && bits == 0:
		return 32 + saltLen, nil
	case e == proposal.EncrNULL && bits == 0:
		return 0, nil
	}
	return 0, fmt.Errorf("use encryption %d with a key of %d bits: %w", uint16(e), bits, ErrUnsupported)
}

// integrityKeyLen is the key length in octets, which is that of the hash (RFC 4868 2.1.1).
func integrityKeyLen(i proposal.Integrity) (int, error) {
	switch i {
	case proposal.IntegNone:
		return 0, nil
	case proposal.IntegHMACSHA256128:
		return 32, nil
	case proposal.IntegHMACSHA384192:
		return 48, nil
	case proposal.IntegHMACSHA512256:
		return 64, nil
	}
	return 0, fmt.Errorf("use integrity %d: %w", uint16(i), ErrUnsupported)
}

// keyLens returns the key lengths of a pair, refusing pairs without integrity or with a second one.
func keyLens(e proposal.Encryption, bits uint16, i proposal.Integrity) (encr, integ int, err error) {
	if encr, err = encryptionKeyLen(e, bits); err != nil {
		return 0, 0, err
	}
	if integ, err = integrityKeyLen(i); err != nil {
		return 0, 0, err
	}
	if e.AEAD() != (i == proposal.IntegNone) {
		return 0, 0, fmt.Errorf("use encryption %d with integrity %d: %w", uint16(e), uint16(i), ErrUnsupported)
	}
	return encr, integ, nil
}

// Keys are the seven keys of an IKE SA (RFC 7296 2.14). AI and AR are empty with an AEAD; EI and ER hold key and salt.
type Keys struct{ D, AI, AR, EI, ER, PI, PR sa.Secret }

// Wipe overwrites all keys.
func (k Keys) Wipe() {
	for _, s := range []sa.Secret{k.D, k.AI, k.AR, k.EI, k.ER, k.PI, k.PR} {
		s.Wipe()
	}
}

// DeriveIKE makes the keys of an IKE SA from its first exchange (RFC 7296 2.14). shared is g^ir. The error is
// ErrUnsupported or ErrNonce.
func DeriveIKE(chosen proposal.IKE, shared sa.Secret, ni, nr []byte, spii, spir wire.SPI) (Keys, error) {
	h, err := prfHash(chosen.PRF)
	if err != nil {
		return Keys{}, err
	}
	seed := skeyseed(h, shared.Expose(), ni, nr)
	defer clear(seed)
	return expandIKE(chosen, seed, ni, nr, spii, spir)
}

// RekeyIKE makes the keys of an IKE SA that replaces another (RFC 7296 2.18). oldPRF and oldD belong to the old SA,
// everything else to the new one; initiator means the initiator of the rekey. additional are the secrets of the
// IKE_FOLLOWUP_KE exchanges in their order. The error is ErrUnsupported or ErrNonce.
func RekeyIKE(chosen proposal.IKE, oldPRF proposal.PRF, oldD, shared sa.Secret, ni, nr []byte, spii, spir wire.SPI, additional ...sa.Secret) (Keys, error) {
	h, err := prfHash(oldPRF) // RFC 7296 2.18: the exchange belongs to the old SA, so its PRF makes SKEYSEED
	if err != nil {
		return Keys{}, err
	}
	if err := complete(chosen.Additional, additional); err != nil {
		return Keys{}, err
	}
	seed := rekeySkeyseed(h, oldD.Expose(), shared.Expose(), ni, nr, additional...)
	defer clear(seed)
	return expandIKE(chosen, seed, ni, nr, spii, spir)
}

// UpdateIKE makes the keys that follow an IKE_INTERMEDIATE exchange with a key exchange (RFC 9370 2.2.2): d is SK_d before
// it, shared the secret of the additional key exchange; the rest is as in DeriveIKE. The error is ErrUnsupported or
// ErrNonce.
func UpdateIKE(chosen proposal.IKE, d, shared sa.Secret, ni, nr []byte, spii, spir wire.SPI) (Keys, error) {
	h, err := prfHash(chosen.PRF)
	if err != nil {
		return Keys{}, err
	}
	seed := rekeySkeyseed(h, d.Expose(), shared.Expose(), ni, nr)
	defer clear(seed)
	return expandIKE(chosen, seed, ni, nr, spii, spir)
}

// complete reports, as ErrUnsupported, when there is not one secret for each additional key exchange.
func complete(chosen proposal.Additional, secrets []sa.Secret) error {
	if want := len(chosen.Methods()); want != len(secrets) {
		return fmt.Errorf("derive keys from %d additional secrets, %d were agreed on: %w", len(secrets), want, ErrUnsupported)
	}
	for _, s := range secrets {
		if s.Len() == 0 {
			return fmt.Errorf("derive keys from an empty additional secret: %w", ErrUnsupported)
		}
	}
	return nil
}

// skeyseed is prf(Ni | Nr, g^ir) (RFC 7296 2.14).
func skeyseed(h func() hash.Hash, shared, ni, nr []byte) []byte {
	return mac(h, slices.Concat(ni, nr), shared)
}

// rekeySkeyseed is prf(SK_d (old), g^ir (new) | Ni | Nr) (RFC 7296 2.18), followed by the secrets of additional key
// exchanges (RFC 9370 2.2.4).
func rekeySkeyseed(h func() hash.Hash, oldD, shared, ni, nr []byte, additional ...sa.Secret) []byte {
	return mac(h, oldD, append([][]byte{shared, ni, nr}, exposed(additional)...)...)
}

func exposed(secrets []sa.Secret) [][]byte {
	var list [][]byte
	for _, s := range secrets {
		list = append(list, s.Expose())
	}
	return list
}

// ikeMaterial is prf+(SKEYSEED, Ni | Nr | SPIi | SPIr) (RFC 7296 2.14).
func ikeMaterial(h func() hash.Hash, seed, ni, nr []byte, spii, spir wire.SPI, length int) ([]byte, error) {
	input := append(append(make([]byte, 0, len(ni)+len(nr)+2*8), ni...), nr...)
	return prfPlus(h, seed, spir.Append(spii.Append(input)), length)
}

// childMaterial is prf+(SK_d, [g^ir (new)] | Ni | Nr) (RFC 7296 2.17), the seed followed by the secrets of additional key
// exchanges (RFC 9370 2.2.4).
func childMaterial(h func() hash.Hash, d, shared, ni, nr []byte, length int, additional ...sa.Secret) ([]byte, error) {
	seed := slices.Concat(append([][]byte{shared, ni, nr}, exposed(additional)...)...)
	defer clear(seed)
	return prfPlus(h, d, seed, length)
}

// expandIKE cuts the key material in the order SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr.
func expandIKE(chosen proposal.IKE, seed, ni, nr []byte, spii, spir wire.SPI) (Keys, error) {
	h, err := prfHash(chosen.PRF)
	if err != nil {
		return Keys{}, err
	}
	for _, n := range [][]byte{ni, nr} {
		if err := CheckNonce(chosen.PRF, n); err != nil {
			return Keys{}, err
		}
	}
	encr, integ, err := keyLens(chosen.Encryption, chosen.KeyBits, chosen.Integrity)
	if err != nil {
		return Keys{}, err
	}
	if encr == 0 { // RFC 8247 2.1: NULL MUST NOT protect IKE
		return Keys{}, fmt.Errorf("protect IKE without encryption: %w", ErrUnsupported)
	}
	prfLen, err := prfSize(chosen.PRF)
	if err != nil {
		return Keys{}, err
	}
	material, err := ikeMaterial(h, seed, ni, nr, spii, spir, 3*prfLen+2*integ+2*encr)
	if err != nil {
		return Keys{}, err
	}
	take := taker(material)
	return Keys{
		D:  take(prfLen),
		AI: take(integ), AR: take(integ),
		EI: take(encr), ER: take(encr),
		PI: take(prfLen), PR: take(prfLen),
	}, nil
}

// DeriveChild makes the keys of a Child SA (RFC 7296 2.17) from SK_d. shared is the g^ir of a key exchange of its own
// and the zero Secret without one; ni and nr are the nonces of the exchange that makes the Child SA. The initiator's
// keys protect what the initiator of that exchange sends. additional are the secrets of the IKE_FOLLOWUP_KE exchanges in
// their order. The SPIs are left to the caller.
func DeriveChild(prf proposal.PRF, d, shared sa.Secret, ni, nr []byte, chosen proposal.ESP, additional ...sa.Secret) (initiator, responder sa.Keys, err error) {
	h, err := prfHash(prf)
	if err != nil {
		return sa.Keys{}, sa.Keys{}, err
	}
	for _, n := range [][]byte{ni, nr} {
		if err := CheckNonce(prf, n); err != nil {
			return sa.Keys{}, sa.Keys{}, err
		}
	}
	encr, integ, err := keyLens(chosen.Encryption, chosen.KeyBits, chosen.Integrity)
	if err != nil {
		return sa.Keys{}, sa.Keys{}, err
	}
	if (chosen.Group != proposal.GroupNone) != (shared.Len() > 0) {
		return sa.Keys{}, sa.Keys{}, fmt.Errorf("derive a Child SA of group %d from a shared secret of %d octets: %w",
			uint16(chosen.Group), shared.Len(), ErrUnsupported)
	}
	if err := complete(chosen.Additional, additional); err != nil {
		return sa.Keys{}, sa.Keys{}, err
	}
	material, err := childMaterial(h, d.Expose(), shared.Expose(), ni, nr, 2*(encr+integ), additional...)
	if err != nil {
		return sa.Keys{}, sa.Keys{}, err
	}
	// All keys from initiator to responder come first; within a direction encryption comes before integrity.
	take := taker(material)
	initiator = sa.Keys{Encryption: take(encr), Integrity: take(integ)}
	responder = sa.Keys{Encryption: take(encr), Integrity: take(integ)}
	return initiator, responder, nil
}

// taker cuts key material into keys, in order.
func taker(material []byte) func(int) sa.Secret {
	return func(n int) sa.Secret {
		key := material[:n:n]
		material = material[n:]
		return sa.NewSecret(key)
	}
}
