// Package aesgcm is AES-GCM (NIST SP 800-38D) with nonces of 12 and tags of 16 octets, as RFC 4106 uses it.
//
// It owns an implementation for processors with VAES, VPCLMULQDQ and AVX-512, and the choice between it and the one of
// the standard library, which works everywhere else, for keys of 192 bits and in FIPS mode. Its invariant: both give
// the same octets, take the same time for every key, text and tag of one length, refuse the same overlaps, and no
// octet of a message that is not authentic is left in the destination. It leaves the uniqueness of nonces to its
// caller.
//
// The build tag purego leaves the assembly out; GODEBUG=cpu.avx512f=off leaves it unused.
package aesgcm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"fmt"
)

// Implementation says whose code New chooses.
type Implementation uint8

// The implementations.
const (
	StandardLibrary Implementation = iota
	Vector                         // this package's, on vectors of 512 bits
)

// String returns a name for people.
func (i Implementation) String() string {
	switch i {
	case StandardLibrary:
		return "standard library"
	case Vector:
		return "VAES/AVX-512"
	}
	return fmt.Sprintf("AES-GCM implementation %d", uint8(i))
}

// Sizes in octets.
const (
	nonceSize = 12
	tagSize   = 16
	blockSize = 16
)

// Chosen returns which implementation New takes on this machine for keys of 128 and 256 bits. FIPS mode is the standard
// library's: this package's code is not part of the validated module.
func Chosen() Implementation {
	if vectorAvailable() && !fips140.Enabled() {
		return Vector
	}
	return StandardLibrary
}

// New returns AES-GCM for a key of 16, 24 or 32 octets, which may be wiped afterwards. Any number of goroutines may use
// the result.
func New(key []byte) (cipher.AEAD, error) {
	if Chosen() == Vector && (len(key) == 16 || len(key) == 32) {
		return newVector(key), nil
	}
	return newStandard(key)
}

func newStandard(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make AES: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make AES-GCM: %w", err)
	}
	return aead, nil
}
