package aesgcm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

type implementation struct {
	name string
	make func(t testing.TB, key []byte) cipher.AEAD
}

// implementations returns the standard library's and, where the processor has what it needs, this package's.
func implementations(t testing.TB) []implementation {
	t.Helper()
	all := []implementation{{StandardLibrary.String(), standard}}
	if vectorAvailable() {
		all = append(all, implementation{Vector.String(), func(_ testing.TB, key []byte) cipher.AEAD { return newVector(key) }})
	}
	return all
}

func standard(t testing.TB, key []byte) cipher.AEAD {
	t.Helper()
	aead, err := newStandard(key)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

// eachWithKey runs f for every implementation and key length.
func eachWithKey(t *testing.T, f func(t *testing.T, aead cipher.AEAD)) {
	for _, i := range implementations(t) {
		for _, size := range []int{16, 32} {
			t.Run(i.name+"/"+map[int]string{16: "128", 32: "256"}[size], func(t *testing.T) {
				f(t, i.make(t, bytes.Repeat([]byte{0x5a}, size)))
			})
		}
	}
}

func TestTamperedMessagesAreRefusedAndLeaveNothing(t *testing.T) {
	eachWithKey(t, func(t *testing.T, aead cipher.AEAD) {
		for _, n := range []int{0, 1, 15, 16, 17, 63, 64, 65, 130, 250, 255, 256, 300, 700} {
			nonce := []byte("nonce of 12o")
			additional := []byte("SPI, number!")
			text := bytes.Repeat([]byte{0xa5}, n)
			sealed := aead.Seal(nil, nonce, text, additional)
			refused := func(what string, at int, nonce, sealed, additional []byte) {
				t.Helper()
				dst := bytes.Repeat([]byte{0xff}, n)
				got, err := aead.Open(dst[:0], nonce, sealed, additional)
				if err == nil || got != nil {
					t.Errorf("%d octets, %s changed at %d: got %x, %v, want an error", n, what, at, got, err)
				}
				if !bytes.Equal(dst, make([]byte, n)) {
					t.Errorf("%d octets, %s changed at %d: the destination holds %x", n, what, at, dst)
				}
			}
			for _, input := range []struct {
				what   string
				octets []byte
			}{{"message", sealed}, {"nonce", nonce}, {"additional data", additional}} {
				for at := range input.octets {
					for _, bit := range []byte{1, 0x80} {
						input.octets[at] ^= bit
						refused(input.what, at, nonce, sealed, additional)
						input.octets[at] ^= bit
					}
				}
			}
			refused("additional data", len(additional)-1, nonce, sealed, additional[:len(additional)-1])
			refused("additional data", len(additional), nonce, sealed, append(additional, 0))
			for at := range sealed { // cut off there
				if got, err := aead.Open(nil, nonce, sealed[:at], additional); err == nil {
					t.Errorf("%d octets, cut after %d: got %x, want an error", n, at, got)
				}
			}
			inPlace := slices.Clone(sealed)
			inPlace[0] ^= 1
			if _, err := aead.Open(inPlace[:0], nonce, inPlace, additional); err == nil {
				t.Errorf("%d octets in place: accepted", n)
			}
			if !bytes.Equal(inPlace[:n], make([]byte, n)) {
				t.Errorf("%d octets in place: the buffer holds %x", n, inPlace[:n])
			}
			if got, err := aead.Open(nil, nonce, sealed, additional); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%d octets, untouched: got %x, %v", n, got, err)
			}
		}
	})
}

func TestMisuseOfBuffersPanics(t *testing.T) {
	eachWithKey(t, func(t *testing.T, aead cipher.AEAD) {
		for _, n := range []int{2, 16, 64, 255, 600} {
			nonce := make([]byte, nonceSize)
			panics := func(what string, want bool, f func()) {
				t.Helper()
				defer func() {
					if got := recover() != nil; got != want {
						t.Errorf("%d octets, %s: panicked %v, want %v", n, what, got, want)
					}
				}()
				f()
			}
			buf := make([]byte, 3*n+64)
			panics("short nonce", true, func() { aead.Seal(nil, nonce[:11], buf[:n], nil) })
			panics("short nonce to open", true, func() { _, _ = aead.Open(nil, nonce[:11], buf[:n+tagSize], nil) })
			panics("exactly in place", false, func() { aead.Seal(buf[:0], nonce, buf[:n], nil) })
			panics("one octet ahead", true, func() { aead.Seal(buf[1:1], nonce, buf[:n], nil) })
			panics("one octet behind", true, func() { aead.Seal(buf[:0], nonce, buf[1:n+1], nil) })
			panics("tag over the text", true, func() { aead.Seal(buf[:0], nonce, buf[n+tagSize-1:2*n+tagSize-1], nil) })
			panics("text right behind the tag", false, func() { aead.Seal(buf[:0], nonce, buf[n+tagSize:2*n+tagSize], nil) })
			panics("text right before", false, func() { aead.Seal(buf[n:n], nonce, buf[:n], nil) })
			panics("additional data under the tag", true, func() { aead.Seal(buf[:0], nonce, nil, buf[tagSize-1:tagSize+8]) })
			panics("additional data behind the tag", false, func() { aead.Seal(buf[:0], nonce, nil, buf[tagSize:tagSize+8]) })
			panics("open one octet ahead", true, func() { _, _ = aead.Open(buf[1:1], nonce, buf[:n+tagSize], nil) })
			panics("open one octet behind", true, func() { _, _ = aead.Open(buf[:0], nonce, buf[1:n+1+tagSize], nil) })
			panics("open over additional data", true, func() {
				_, _ = aead.Open(buf[:0], nonce, buf[n:2*n+tagSize], buf[:1])
			})
		}
	})
}

func TestAppendsToDestination(t *testing.T) {
	eachWithKey(t, func(t *testing.T, aead cipher.AEAD) {
		nonce := make([]byte, nonceSize)
		for _, room := range []int{0, 10, 1000} {
			prefix := append(make([]byte, 0, 6+room), "before"...)
			sealed := aead.Seal(prefix, nonce, []byte("text"), nil)
			if string(sealed[:6]) != "before" || len(sealed) != 6+4+tagSize {
				t.Errorf("room for %d: sealed %q", room, sealed)
			}
			opened, err := aead.Open(prefix, nonce, slices.Clone(sealed[6:]), nil)
			if err != nil || string(opened) != "beforetext" {
				t.Errorf("room for %d: opened %q, %v", room, opened, err)
			}
		}
	})
}

func TestNothingIsAllocated(t *testing.T) {
	eachWithKey(t, func(t *testing.T, aead cipher.AEAD) {
		nonce, additional, buf := make([]byte, nonceSize), make([]byte, 8), make([]byte, 1500)
		if n := testing.AllocsPerRun(100, func() {
			sealed := aead.Seal(buf[:0], nonce, buf[:1400], additional)
			if _, err := aead.Open(sealed[:0], nonce, sealed, additional); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("got %v allocations for each message, want none", n)
		}
	})
}

// The assembly shares nothing but the key, which it only reads, and its vectors survive a change of goroutines.
func TestGoroutinesShareAKey(t *testing.T) {
	eachWithKey(t, func(t *testing.T, aead cipher.AEAD) {
		want := aead.Seal(nil, make([]byte, nonceSize), make([]byte, 5000), nil)
		var wait sync.WaitGroup
		for range 8 {
			wait.Go(func() {
				dst := make([]byte, 0, 6000)
				for i := range 300 {
					got := aead.Seal(dst, make([]byte, nonceSize), make([]byte, 5000), nil)
					if !bytes.Equal(got, want) {
						t.Errorf("turn %d: another result", i)
						return
					}
					if i%10 == 0 {
						runtime.Gosched()
					}
				}
			})
		}
		wait.Wait()
	})
}

func TestChoice(t *testing.T) {
	for _, size := range []int{16, 24, 32} {
		aead, err := New(make([]byte, size))
		if err != nil {
			t.Fatal(err)
		}
		if aead.NonceSize() != nonceSize || aead.Overhead() != tagSize {
			t.Errorf("key of %d octets: nonce of %d, tag of %d octets", size, aead.NonceSize(), aead.Overhead())
		}
	}
	var wrong aes.KeySizeError
	for _, size := range []int{0, 15, 17, 31, 33, 64} {
		if _, err := New(make([]byte, size)); !errors.As(err, &wrong) {
			t.Errorf("key of %d octets: got %v, want an error about its size", size, err)
		}
	}
	if Vector.String() == StandardLibrary.String() {
		t.Error("both implementations have one name")
	}
}

// What Chosen says, and what New makes, for settings that a process reads when it starts.
func TestChoiceOfAProcess(t *testing.T) {
	if os.Getenv("AESGCM_TELL") != "" {
		made := "vector"
		if aead, err := New(make([]byte, 16)); err != nil {
			made = "nothing"
		} else if reflect.TypeOf(aead) == reflect.TypeOf(standard(t, make([]byte, 16))) {
			made = "standard"
		}
		fmt.Fprintln(os.Stdout, "chosen="+Chosen().String()+" made="+made)
		return
	}
	if !vectorAvailable() {
		if Chosen() != StandardLibrary {
			t.Errorf("got %s on a processor that has not what it needs", Chosen())
		}
		return
	}
	for godebug, want := range map[string]string{
		"":                   "chosen=VAES/AVX-512 made=vector",
		"cpu.avx512vaes=off": "chosen=standard library made=standard",
		"cpu.avx512f=off":    "chosen=standard library made=standard",
		"fips140=on":         "chosen=standard library made=standard",
		"fips140=only":       "chosen=standard library made=nothing", // it wants to make the nonces itself
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChoiceOfAProcess$")
		cmd.Env = append(os.Environ(), "AESGCM_TELL=1", "GODEBUG="+godebug)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want+"\n") {
			t.Errorf("GODEBUG=%s: got %q, %v, want %q", godebug, out, err, want)
		}
	}
}
