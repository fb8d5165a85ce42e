package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/sa"
)

var benchSuites = []string{"aes-gcm-128", "aes-gcm-256", "chacha20-poly1305", "aes-cbc-128-sha256"}

func BenchmarkSeal(b *testing.B) {
	for _, name := range benchSuites {
		for _, n := range []int{64, 1400} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				out, _ := newPair(b, testChild(b, suites[name], sa.Tunnel, false))
				pkt := udp(n, false)
				pkt = append(pkt, make([]byte, MaxTrailer)...)[:len(pkt)]
				dst := make([]byte, 0, 2048)
				b.SetBytes(int64(len(pkt)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := out.Seal(dst, pkt); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkOpen includes the copy that restores the packet, and a window that moves by one each time.
func BenchmarkOpen(b *testing.B) {
	for _, name := range benchSuites {
		for _, n := range []int{64, 1400} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				out, in := newPair(b, testChild(b, suites[name], sa.Tunnel, false))
				good := sealed(b, out, udp(n, false))
				buf := slices.Clone(good)
				b.SetBytes(int64(n + 28))
				b.ReportAllocs()
				for b.Loop() {
					copy(buf, good)
					in.window.highest, in.window.bits[0] = 0, 0 // as if it were new
					if _, err := open(in, buf); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkFloor is AES-128-GCM alone on as many octets as BenchmarkSeal encrypts.
func BenchmarkFloor(b *testing.B) {
	for _, n := range []int{64, 1400} {
		b.Run(fmt.Sprintf("aes-gcm-128/%d", n), func(b *testing.B) {
			block, err := aes.NewCipher(make([]byte, 16))
			if err != nil {
				b.Fatal(err)
			}
			aead, err := cipher.NewGCM(block)
			if err != nil {
				b.Fatal(err)
			}
			plain, nonce, aad := make([]byte, (n+28+2+3)/4*4), make([]byte, 12), make([]byte, 8)
			dst := make([]byte, 0, 2048)
			b.SetBytes(int64(n + 28))
			for b.Loop() {
				aead.Seal(dst, nonce, plain, aad)
			}
		})
	}
}
