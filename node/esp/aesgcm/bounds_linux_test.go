package aesgcm

import (
	"bytes"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// between returns n pages between two that nobody may touch: an access there ends the process.
func between(t *testing.T, n int) []byte {
	t.Helper()
	page := os.Getpagesize()
	b, err := unix.Mmap(-1, 0, (n+2)*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatalf("map %d pages: %v", n+2, err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(b); err != nil {
			t.Errorf("unmap %d pages: %v", n+2, err)
		}
	})
	for _, guard := range [][]byte{b[:page], b[(n+1)*page:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatalf("protect a page: %v", err)
		}
	}
	return b[page : (n+1)*page : (n+1)*page]
}

// Every input and output stands once right behind a forbidden page and once right before one.
func TestNothingIsTouchedOutside(t *testing.T) {
	differ(t, func(t *testing.T, r *rand.Rand, keySize int) {
		source, destination, nonces, headers := between(t, 1), between(t, 1), between(t, 1), between(t, 1)
		for n := range 1101 {
			key, m := fill(r, keySize), n*7%1000
			vector := other(t, key)
			text, nonce, additional := fill(r, n), fill(r, nonceSize), fill(r, m)
			want := standard(t, key).Seal(nil, nonce, text, additional)
			place := func(b []byte, end bool, octets []byte, n int) []byte {
				if end {
					b = b[len(b)-n:]
				}
				copy(b, octets)
				return b[:n:n]
			}
			for _, end := range []bool{false, true} {
				no, ad := place(nonces, end, nonce, nonceSize), place(headers, end, additional, m)
				dst := place(destination, end, nil, n+tagSize)
				got := vector.Seal(dst[:0], no, place(source, end, text, n), ad)
				if !bytes.Equal(got, want) {
					t.Fatalf("%d octets, at the end %v: sealed %x, want %x", n, end, got, want)
				}
				opened, err := vector.Open(place(destination, end, nil, n)[:0], no, place(source, end, want, n+tagSize), ad)
				if err != nil || !bytes.Equal(opened, text) {
					t.Fatalf("%d octets, at the end %v: opened %x, %v, want %x", n, end, opened, err, text)
				}
				inPlace := place(source, end, want, n+tagSize)
				if opened, err = vector.Open(inPlace[:0], no, inPlace, ad); err != nil || !bytes.Equal(opened, text) {
					t.Fatalf("%d octets in place, at the end %v: opened %x, %v, want %x", n, end, opened, err, text)
				}
			}
			keyPage := place(source, true, key, keySize)
			if got := other(t, keyPage).Seal(nil, nonce, text, additional); !bytes.Equal(got, want) {
				t.Fatalf("key at the end of a page: sealed %x, want %x", got, want)
			}
		}
	})
}
