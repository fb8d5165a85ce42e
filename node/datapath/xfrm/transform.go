package xfrm

import (
	"bytes"
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// transform names what an SA does by the names of the kernel's crypto interface.
type transform struct {
	aead, cipher, hash string
	icv                uint32 // bits
	cipherLen, hashLen int    // octets of key material
}

// transformOf translates a suite.
func transformOf(suite proposal.ESP) (transform, error) {
	var t transform
	switch suite.Encryption {
	case proposal.EncrAESGCM16: // RFC 4106: the salt of 4 octets follows the key
		t.aead, t.icv, t.cipherLen = "rfc4106(gcm(aes))", 128, int(suite.KeyBits)/8+4
	case proposal.EncrNullAESGMAC: // RFC 4543
		t.aead, t.icv, t.cipherLen = "rfc4543(gcm(aes))", 128, int(suite.KeyBits)/8+4
	case proposal.EncrChaCha20Poly1305: // RFC 7634
		t.aead, t.icv, t.cipherLen = "rfc7539esp(chacha20,poly1305)", 128, 36
	case proposal.EncrAESCBC: // RFC 3602
		t.cipher, t.cipherLen = "cbc(aes)", int(suite.KeyBits)/8
	case proposal.EncrNULL: // RFC 2410
		t.cipher = "ecb(cipher_null)"
	default:
		return t, fmt.Errorf("suite %v: the kernel backend does not know encryption %v", suite, suite.Encryption)
	}
	switch suite.Integrity {
	case proposal.IntegHMACSHA256128: // RFC 4868
		t.hash, t.icv, t.hashLen = "hmac(sha256)", 128, 32
	case proposal.IntegHMACSHA384192:
		t.hash, t.icv, t.hashLen = "hmac(sha384)", 192, 48
	case proposal.IntegHMACSHA512256:
		t.hash, t.icv, t.hashLen = "hmac(sha512)", 256, 64
	case proposal.IntegNone:
	default:
		return t, fmt.Errorf("suite %v: the kernel backend does not know integrity %v", suite, suite.Integrity)
	}
	if (t.aead == "") == (t.hash == "") {
		return t, fmt.Errorf("suite %v protects integrity by none or by two algorithms", suite)
	}
	return t, nil
}

// check compares the lengths of keys.
func (t transform) check(k sa.Keys) error {
	if k.Encryption.Len() != t.cipherLen || k.Integrity.Len() != t.hashLen {
		return fmt.Errorf("keys have %d and %d octets, want %d and %d", k.Encryption.Len(), k.Integrity.Len(), t.cipherLen, t.hashLen)
	}
	return nil
}

const nameLen = 64

func algorithm(name string, key []byte, icv ...uint32) []byte {
	b := make([]byte, nameLen, nameLen+8+len(key))
	copy(b, name)
	b = native.AppendUint32(b, uint32(len(key)*8))
	for _, v := range icv {
		b = native.AppendUint32(b, v)
	}
	return append(b, key...)
}

func (t transform) add(a *attributes, k sa.Keys) error {
	if err := t.check(k); err != nil {
		return err
	}
	if t.aead != "" {
		a.add(attrAEAD, algorithm(t.aead, k.Encryption.Expose(), t.icv))
		return nil
	}
	a.add(attrAuthTrunc, algorithm(t.hash, k.Integrity.Expose(), t.icv))
	a.add(attrCrypt, algorithm(t.cipher, k.Encryption.Expose()))
	return nil
}

// parse takes over what the kernel says of an algorithm, without the key.
func (t *transform) parse(kind uint16, b []byte) {
	const header = nameLen + 4
	if len(b) < header {
		return
	}
	name, _, _ := bytes.Cut(b[:nameLen], []byte{0})
	octets := int(native.Uint32(b[nameLen:]) / 8)
	icv := uint32(0)
	if len(b) >= header+4 {
		icv = native.Uint32(b[header:])
	}
	switch kind {
	case attrAEAD:
		t.aead, t.cipherLen, t.icv = string(name), octets, icv
	case attrCrypt:
		t.cipher, t.cipherLen = string(name), octets
	case attrAuthTrunc:
		t.hash, t.hashLen, t.icv = string(name), octets, icv
	}
}
