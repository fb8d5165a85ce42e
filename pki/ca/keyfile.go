package ca

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strconv"

	"github.com/bailiwick-net/bailiwick/pki"
)

// A private key on disk is one PEM block. Its headers hold what is needed to decrypt it, and its body is the PKCS #8
// key sealed with AES-256-GCM:
//
//	-----BEGIN BAILIWICK ENCRYPTED PRIVATE KEY-----
//	Cipher: aes-256-gcm
//	Format: 1
//	KDF: argon2id                  or hkdf-sha256
//	KDF-Memory: 65536              KiB; the three costs are absent for hkdf-sha256
//	KDF-Passes: 3
//	KDF-Threads: 4
//	Key-ID: <64 hex digits>        SHA-256 of the public key's SubjectPublicKeyInfo
//	Nonce: <24 hex digits>
//	Salt: <32 hex digits>
//
//	<base64>
//	-----END BAILIWICK ENCRYPTED PRIVATE KEY-----
//
// All headers are authenticated with the key, as the additional data of the seal: changing one makes it fail.
const (
	pemEncryptedKey = "BAILIWICK ENCRYPTED PRIVATE KEY"
	keyFormat       = "1"
	keyCipher       = "aes-256-gcm"
	saltSize        = 16
	nonceSize       = 12
	maxSealedKey    = 16 << 10 // octets of the whole file
)

// keyHeaders are the headers of the block, in the form that is authenticated.
type keyHeaders struct {
	derivation derivation
	cost       argon2Cost // zero for hkdf-sha256
	keyID      pki.KeyID
	nonce      [nonceSize]byte
	salt       [saltSize]byte
}

func (h keyHeaders) asMap() map[string]string {
	m := map[string]string{
		"Cipher": keyCipher, "Format": keyFormat, "KDF": h.derivation.String(), "Key-ID": h.keyID.String(),
		"Nonce": hex.EncodeToString(h.nonce[:]), "Salt": hex.EncodeToString(h.salt[:]),
	}
	if h.derivation == derivationArgon2id {
		m["KDF-Memory"] = strconv.FormatUint(uint64(h.cost.memoryKiB), 10)
		m["KDF-Passes"] = strconv.FormatUint(uint64(h.cost.passes), 10)
		m["KDF-Threads"] = strconv.FormatUint(uint64(h.cost.threads), 10)
	}
	return m
}

// additionalData is the block's header section as PEM writes it.
func (h keyHeaders) additionalData() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemEncryptedKey, Headers: h.asMap()})
}

// parseKeyHeaders reads the headers of a block, and refuses missing, unknown and out-of-range ones.
func parseKeyHeaders(headers map[string]string) (keyHeaders, error) {
	var h keyHeaders
	if headers["Format"] != keyFormat || headers["Cipher"] != keyCipher {
		return h, fmt.Errorf("format %q with the cipher %q, this version reads %q with %q: %w", headers["Format"], headers["Cipher"], keyFormat, keyCipher, ErrKeyFile)
	}
	switch headers["KDF"] {
	case derivationArgon2id.String():
		h.derivation = derivationArgon2id
		for _, p := range []struct {
			name string
			bits int
			set  func(uint64)
		}{
			{"KDF-Memory", 32, func(n uint64) { h.cost.memoryKiB = uint32(n) }},
			{"KDF-Passes", 32, func(n uint64) { h.cost.passes = uint32(n) }},
			{"KDF-Threads", 8, func(n uint64) { h.cost.threads = uint8(n) }},
		} {
			n, err := strconv.ParseUint(headers[p.name], 10, p.bits)
			if err != nil {
				return h, fmt.Errorf("header %s: %q is not a number of %d bits: %w", p.name, headers[p.name], p.bits, ErrKeyFile)
			}
			p.set(n)
		}
		if err := h.cost.check(); err != nil {
			return h, err
		}
	case derivationHKDF.String():
		h.derivation = derivationHKDF
	default:
		return h, fmt.Errorf("header KDF: %q is not known: %w", headers["KDF"], ErrKeyFile)
	}
	for _, p := range []struct {
		name string
		into []byte
	}{{"Key-ID", h.keyID[:]}, {"Nonce", h.nonce[:]}, {"Salt", h.salt[:]}} {
		text := headers[p.name]
		if len(text) != hex.EncodedLen(len(p.into)) {
			return h, fmt.Errorf("header %s has %d characters, wanted %d: %w", p.name, len(text), hex.EncodedLen(len(p.into)), ErrKeyFile)
		}
		if _, err := hex.Decode(p.into, []byte(text)); err != nil {
			return h, fmt.Errorf("header %s: %w: %w", p.name, ErrKeyFile, err)
		}
	}
	if known := h.asMap(); len(known) != len(headers) {
		return h, fmt.Errorf("%d headers, wanted %d: %w", len(headers), len(known), ErrKeyFile)
	}
	return h, nil
}

// SealKey encrypts a private key, in the form of the files of a CA.
func SealKey(key crypto.Signer, unlock Unlock) ([]byte, error) {
	if unlock.derivation == 0 {
		return nil, fmt.Errorf("a key is kept encrypted only, and no passphrase and no key file was given: %w", ErrUnlock)
	}
	return sealKey(key, unlock, recommendedCost)
}

// OpenKey decrypts what SealKey made. A wrong passphrase and a changed text cannot be told apart: ErrUnlock. What is no
// sealed key wraps ErrKeyFile.
func OpenKey(sealed []byte, unlock Unlock) (crypto.Signer, error) {
	if len(sealed) > maxSealedKey {
		return nil, fmt.Errorf("sealed key of %d octets, more than %d: %w", len(sealed), maxSealedKey, ErrKeyFile)
	}
	return openKey(sealed, unlock)
}

// sealKey encrypts a private key.
func sealKey(key crypto.Signer, unlock Unlock, cost argon2Cost) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a private key: %w", err)
	}
	defer clear(der)
	h := keyHeaders{derivation: unlock.derivation}
	if h.derivation == derivationArgon2id {
		h.cost = cost
	}
	if h.keyID, err = pki.KeyIDOf(key.Public()); err != nil {
		return nil, err
	}
	// The wrapping key depends on the salt, so each key is sealed with its own, and with one nonce.
	if _, err := rand.Read(h.salt[:]); err != nil {
		return nil, fmt.Errorf("drawing a salt: %w", err)
	}
	if _, err := rand.Read(h.nonce[:]); err != nil {
		return nil, fmt.Errorf("drawing a nonce: %w", err)
	}
	aead, err := wrapper(unlock, h)
	if err != nil {
		return nil, err
	}
	sealed := aead.Seal(nil, h.nonce[:], der, h.additionalData())
	return pem.EncodeToMemory(&pem.Block{Type: pemEncryptedKey, Headers: h.asMap(), Bytes: sealed}), nil
}

// openKey decrypts a private key. A wrong passphrase and a changed file cannot be told apart: ErrUnlock.
func openKey(text []byte, unlock Unlock) (crypto.Signer, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemEncryptedKey || len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("not one PEM block %q: %w", pemEncryptedKey, ErrKeyFile)
	}
	h, err := parseKeyHeaders(block.Headers)
	if err != nil {
		return nil, err
	}
	if unlock.derivation == 0 {
		return nil, fmt.Errorf("it is encrypted, and no passphrase and no key file was given: %w", ErrUnlock)
	}
	if unlock.derivation != h.derivation {
		return nil, fmt.Errorf("it is encrypted with a %s, and a %s was given: %w", h.derivation.needs(), unlock.derivation.needs(), ErrUnlock)
	}
	aead, err := wrapper(unlock, h)
	if err != nil {
		return nil, err
	}
	der, err := aead.Open(nil, h.nonce[:], block.Bytes, h.additionalData())
	if err != nil {
		return nil, fmt.Errorf("decrypting the key %s: %w", h.keyID, ErrUnlock)
	}
	defer clear(der)
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("the decrypted key %s: %w: %w", h.keyID, ErrKeyFile, err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("the decrypted key %s is of the type %T, which does not sign: %w", h.keyID, parsed, ErrKeyFile)
	}
	if err := pki.CheckKey(key.Public()); err != nil {
		return nil, fmt.Errorf("the decrypted key %s: %w: %w", h.keyID, ErrKeyFile, err)
	}
	if id, err := pki.KeyIDOf(key.Public()); err != nil || id != h.keyID {
		return nil, fmt.Errorf("the decrypted key is not the key %s that its header names: %w", h.keyID, ErrKeyFile)
	}
	return key, nil
}

// needs says in words what a derivation derives from.
func (d derivation) needs() string {
	if d == derivationArgon2id {
		return "passphrase"
	}
	return "key file"
}

func wrapper(unlock Unlock, h keyHeaders) (cipher.AEAD, error) {
	key, err := unlock.key(h.salt[:], h.cost)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("preparing %s: %w", keyCipher, err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("preparing %s: %w", keyCipher, err)
	}
	return aead, nil
}
