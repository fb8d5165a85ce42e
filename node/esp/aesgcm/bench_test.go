package aesgcm

import (
	"crypto/cipher"
	"fmt"
	"testing"
)

var benchSizes = []int{64, 96, 128, 256, 576, 1400, 1440, 9000, 4096, 16384}

// each runs f for every implementation that this machine has, key length and length of text.
func each(b *testing.B, f func(b *testing.B, aead cipher.AEAD, size int)) {
	for _, bits := range []int{128, 256} {
		for _, size := range benchSizes {
			for _, i := range implementations(b) {
				b.Run(fmt.Sprintf("%d/%d/%s", bits, size, i.name), func(b *testing.B) {
					b.SetBytes(int64(size))
					f(b, i.make(b, make([]byte, bits/8)), size)
				})
			}
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	each(b, func(b *testing.B, aead cipher.AEAD, size int) {
		nonce, additional, text := make([]byte, nonceSize), make([]byte, 12), make([]byte, size)
		dst := make([]byte, 0, size+tagSize)
		for b.Loop() {
			aead.Seal(dst, nonce, text, additional)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	each(b, func(b *testing.B, aead cipher.AEAD, size int) {
		nonce, additional := make([]byte, nonceSize), make([]byte, 12)
		sealed := aead.Seal(nil, nonce, make([]byte, size), additional)
		dst := make([]byte, 0, size)
		for b.Loop() {
			if _, err := aead.Open(dst, nonce, sealed, additional); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkAuthenticate is GMAC: all is additional data.
func BenchmarkAuthenticate(b *testing.B) {
	each(b, func(b *testing.B, aead cipher.AEAD, size int) {
		nonce, additional, dst := make([]byte, nonceSize), make([]byte, size), make([]byte, 0, tagSize)
		for b.Loop() {
			aead.Seal(dst, nonce, nil, additional)
		}
	})
}

// BenchmarkKey is what a new SA costs.
func BenchmarkKey(b *testing.B) {
	for _, bits := range []int{128, 256} {
		for _, i := range implementations(b) {
			b.Run(fmt.Sprintf("%d/%s", bits, i.name), func(b *testing.B) {
				key := make([]byte, bits/8)
				b.ReportAllocs()
				for b.Loop() {
					i.make(b, key)
				}
			})
		}
	}
}
