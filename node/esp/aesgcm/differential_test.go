package aesgcm

import (
	"bytes"
	"crypto/cipher"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// fill returns n octets of r.
func fill(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// message is what one call gets.
type message struct{ key, nonce, text, additional []byte }

// agree seals and opens m with the vector implementation and the standard library, the former out of place at the given
// distances from a multiple of 64 octets, and in place.
func agree(t *testing.T, vector, standard cipher.AEAD, m message, from, to int) {
	t.Helper()
	want := standard.Seal(nil, m.nonce, m.text, m.additional)
	n := len(m.text)

	const margin = 64
	src, dst := aligned(n+tagSize+2*margin, from), aligned(n+tagSize+2*margin, to)
	source := src[margin : margin+n]
	copy(source, m.text)
	got := vector.Seal(dst[margin:margin], m.nonce, source, m.additional)
	if !bytes.Equal(got, want) {
		t.Fatalf("%d octets with %d from %d to %d: sealed %x, want %x", n, len(m.additional), from, to, got, want)
	}
	if !bytes.Equal(source, m.text) || !untouched(src, n) || !untouched(dst, n+tagSize) {
		t.Fatalf("%d octets with %d from %d to %d: sealing wrote elsewhere", n, len(m.additional), from, to)
	}

	opened := aligned(n+2*margin, to)
	plain, err := vector.Open(opened[margin:margin], m.nonce, got, m.additional)
	if err != nil || !bytes.Equal(plain, m.text) {
		t.Fatalf("%d octets with %d from %d to %d: opened %x, %v, want %x", n, len(m.additional), from, to, plain, err, m.text)
	}
	if !bytes.Equal(got, want) || !untouched(dst, n+tagSize) || !untouched(opened, n) {
		t.Fatalf("%d octets with %d from %d to %d: opening wrote elsewhere", n, len(m.additional), from, to)
	}

	if got = vector.Seal(src[margin:margin], m.nonce, source, m.additional); !bytes.Equal(got, want) || !untouched(src, n+tagSize) {
		t.Fatalf("%d octets with %d in place at %d: sealed %x, want %x", n, len(m.additional), from, got, want)
	}
	plain, err = vector.Open(got[:0], m.nonce, got, m.additional)
	if err != nil || !bytes.Equal(plain, m.text) || !bytes.Equal(got[n:], want[n:]) || !untouched(src, n+tagSize) {
		t.Fatalf("%d octets with %d in place at %d: opened %x, %v, want %x", n, len(m.additional), from, plain, err, m.text)
	}
}

const canary = 0xc5

// aligned returns n octets, each a canary, that start offset octets after a multiple of 64.
func aligned(n, offset int) []byte {
	b := bytes.Repeat([]byte{canary}, n+128)
	start := (64-address(b)%64)%64 + offset%64
	return b[start : start+n : start+n]
}

// untouched tells whether the 64 octets before n octets in b are canaries, and all after them.
func untouched(b []byte, n int) bool {
	for _, o := range b[:64] {
		if o != canary {
			return false
		}
	}
	for _, o := range b[64+n:] {
		if o != canary {
			return false
		}
	}
	return true
}

func differ(t *testing.T, f func(t *testing.T, r *rand.Rand, keySize int)) {
	if !vectorAvailable() {
		t.Log("this processor has no VAES, VPCLMULQDQ and AVX-512: the standard library is compared with itself")
	}
	for name, size := range map[string]int{"128": 16, "256": 32} {
		t.Run(name, func(t *testing.T) { f(t, rand.New(rand.NewPCG(4106, uint64(size))), size) })
	}
}

// other returns the implementation to compare with the standard library.
func other(t testing.TB, key []byte) cipher.AEAD {
	all := implementations(t)
	return all[len(all)-1].make(t, key)
}

func TestEveryLengthAgrees(t *testing.T) {
	differ(t, func(t *testing.T, r *rand.Rand, keySize int) {
		for n := range 1101 {
			key := fill(r, keySize)
			vector, standard := other(t, key), standard(t, key)
			for _, m := range []int{0, 8, 12, r.IntN(65)} {
				agree(t, vector, standard, message{key, fill(r, nonceSize), fill(r, n), fill(r, m)}, r.IntN(64), r.IntN(64))
			}
		}
	})
}

func TestEveryLengthOfAdditionalDataAgrees(t *testing.T) {
	differ(t, func(t *testing.T, r *rand.Rand, keySize int) {
		key := fill(r, keySize)
		vector, standard := other(t, key), standard(t, key)
		for m := range 1101 {
			agree(t, vector, standard, message{key, fill(r, nonceSize), fill(r, r.IntN(m%600+1)), fill(r, m)}, r.IntN(64), r.IntN(64))
		}
	})
}

func TestEveryAlignmentAgrees(t *testing.T) {
	differ(t, func(t *testing.T, r *rand.Rand, keySize int) {
		key := fill(r, keySize)
		vector, standard := other(t, key), standard(t, key)
		for from := range 64 {
			for to := range 64 {
				agree(t, vector, standard, message{key, fill(r, nonceSize), fill(r, r.IntN(800)), fill(r, 8)}, from, to)
			}
		}
	})
}

func TestLongMessagesAgree(t *testing.T) {
	differ(t, func(t *testing.T, r *rand.Rand, keySize int) {
		for range 150 {
			key := fill(r, keySize)
			vector, standard := other(t, key), standard(t, key)
			agree(t, vector, standard, message{key, fill(r, nonceSize), fill(r, r.IntN(70001)), fill(r, r.IntN(65))}, r.IntN(64), r.IntN(64))
		}
	})
}

// Keys whose H has its first or last bit set or not take both ways through the division by x: a random key does half
// of the time, so of many keys the powers are held against the standard library.
func TestManyKeysAgree(t *testing.T) {
	differ(t, func(t *testing.T, r *rand.Rand, keySize int) {
		for range 3000 {
			key := fill(r, keySize)
			agree(t, other(t, key), standard(t, key), message{key, fill(r, nonceSize), fill(r, 400), fill(r, 12)}, 0, 0)
		}
	})
}

// Counters and sums are the same whatever their octets are: nonces and texts of extreme values.
func TestExtremeValuesAgree(t *testing.T) {
	differ(t, func(t *testing.T, _ *rand.Rand, keySize int) {
		for _, k := range []byte{0, 0xff} {
			key := bytes.Repeat([]byte{k}, keySize)
			vector, standard := other(t, key), standard(t, key)
			for _, o := range []byte{0, 1, 0x7f, 0x80, 0xff} {
				for _, n := range []int{0, 16, 64, 240, 256, 512, 5000, 1 << 20} { // the counter passes 2^8 and 2^16
					agree(t, vector, standard, message{key, bytes.Repeat([]byte{o}, nonceSize), bytes.Repeat([]byte{o}, n), bytes.Repeat([]byte{o}, 12)}, 3, 5)
				}
			}
		}
	})
}

func FuzzAgrees(f *testing.F) {
	f.Add([]byte("sixteen octets!!"), []byte("nonce of 12o"), []byte("text"), []byte("SPI, seq"), uint8(1), uint8(2))
	f.Add(make([]byte, 32), make([]byte, 12), make([]byte, 1440), make([]byte, 12), uint8(0), uint8(63))
	f.Fuzz(func(t *testing.T, key, nonce, text, additional []byte, from, to uint8) {
		key = append(key, make([]byte, 32)...)
		key = key[:16+int(from)/128*16]
		nonce = append(nonce, make([]byte, nonceSize)...)[:nonceSize]
		agree(t, other(t, key), standard(t, key), message{key, nonce, text, additional}, int(from), int(to))
	})
}

func address(b []byte) int { return int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
