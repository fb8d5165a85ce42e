//go:build amd64 && !purego

package aesgcm

import (
	"crypto/cipher"
	"errors"
	"slices"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// vectorKey is one key, expanded for the assembly, which knows the fields by the offsets that the compiler gives them.
// It does not change once it is made.
type vectorKey struct {
	// H^36 to H, each divided by x and with its octets reversed.
	powers [36][blockSize]byte //nolint:unused // by the assembly
	// The first three may be read as if they were powers, for lanes that hold zeros.
	roundKeys [15][blockSize]byte //nolint:unused // by the assembly
	rounds    int                 // 10 or 14
}

var _ cipher.AEAD = (*vectorKey)(nil)

// maxText is the longest text (NIST SP 800-38D, 5.2.1.1), beyond which the counter of 32 bits would wrap.
const maxText = (1<<32 - 2) * blockSize

var errOpen = errors.New("message authentication failed")

// vectorAvailable tells whether the processor has the instructions and the operating system keeps their registers.
func vectorAvailable() bool {
	x := &cpu.X86
	return x.HasAVX && x.HasAVX2 && x.HasAES && x.HasPCLMULQDQ && x.HasBMI2 &&
		x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512VAES && x.HasAVX512VPCLMULQDQ
}

// newVector takes a key of 16 or 32 octets.
func newVector(key []byte) *vectorKey {
	k := &vectorKey{rounds: len(key)/4 + 6}
	expand(k, unsafe.SliceData(key))
	return k
}

// NonceSize implements cipher.AEAD.
func (k *vectorKey) NonceSize() int { return nonceSize }

// Overhead implements cipher.AEAD.
func (k *vectorKey) Overhead() int { return tagSize }

// Seal implements cipher.AEAD.
func (k *vectorKey) Seal(dst, nonce, plaintext, additional []byte) []byte {
	if len(nonce) != nonceSize {
		panic("aesgcm: nonce is not 12 octets long")
	}
	if uint64(len(plaintext)) > maxText {
		panic("aesgcm: message too long")
	}
	at := len(dst)
	dst = slices.Grow(dst, len(plaintext)+tagSize)[:at+len(plaintext)+tagSize]
	out := dst[at:]
	if inexactOverlap(out, plaintext) || overlap(out, additional) {
		panic("aesgcm: output overlaps input")
	}
	seal(k, unsafe.SliceData(out), unsafe.SliceData(plaintext), len(plaintext),
		unsafe.SliceData(nonce), unsafe.SliceData(additional), len(additional))
	return dst
}

// Open implements cipher.AEAD. Text is decrypted while it is authenticated, and zeroed before Open returns if that
// fails.
func (k *vectorKey) Open(dst, nonce, ciphertext, additional []byte) ([]byte, error) {
	if len(nonce) != nonceSize {
		panic("aesgcm: nonce is not 12 octets long")
	}
	n := len(ciphertext) - tagSize
	if n < 0 || uint64(n) > maxText {
		return nil, errOpen
	}
	at := len(dst)
	dst = slices.Grow(dst, n)[:at+n]
	out := dst[at:]
	if inexactOverlap(out, ciphertext) || overlap(out, additional) {
		panic("aesgcm: output overlaps input")
	}
	if !open(k, unsafe.SliceData(out), unsafe.SliceData(ciphertext), n,
		unsafe.SliceData(nonce), unsafe.SliceData(additional), len(additional)) {
		clear(out)
		return nil, errOpen
	}
	return dst, nil
}

// overlap tells whether a and b share an octet.
func overlap(a, b []byte) bool {
	return len(a) > 0 && len(b) > 0 &&
		uintptr(unsafe.Pointer(&a[0])) <= uintptr(unsafe.Pointer(&b[len(b)-1])) &&
		uintptr(unsafe.Pointer(&b[0])) <= uintptr(unsafe.Pointer(&a[len(a)-1]))
}

// inexactOverlap tells whether a and b share octets without starting at the same one.
func inexactOverlap(a, b []byte) bool {
	return overlap(a, b) && &a[0] != &b[0]
}

// expand fills in powers and roundKeys from the key of 16 octets, if rounds is 10, or 32.
//
//go:noescape
func expand(k *vectorKey, key *byte)

// seal encrypts n octets and puts the tag behind them.
//
//go:noescape
func seal(k *vectorKey, dst, src *byte, n int, nonce, additional *byte, m int)

// open decrypts n octets and tells whether the tag behind them is right.
//
//go:noescape
func open(k *vectorKey, dst, src *byte, n int, nonce, additional *byte, m int) bool
