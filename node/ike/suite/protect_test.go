package suite

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// TestRFC7634Example is the message of RFC 7634 appendix B.
func TestRFC7634Example(t *testing.T) {
	const (
		key     = "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3"
		message = "" +
			"c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e2025000000000900000045290000291011121314151617610394701f8d017f" +
			"7c129248896b71bfe25236efd7cdc67066906315b2"
		plain = "0000000c000040010000000a"
	)
	o := proposal.IKE{Encryption: proposal.EncrChaCha20Poly1305, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519}
	p := mustProtect(t, o, sa.NewSecret(unhex(t, key)), sa.Secret{})
	datagram := unhex(t, message)
	m, err := wire.ParseMessage(datagram, wire.LimitAfterAuth)
	if err != nil {
		t.Fatal(err)
	}
	sk := m.Payloads[0].(wire.Encrypted)
	got, err := p.Open(datagram, sk)
	if err != nil || !bytes.Equal(got, unhex(t, plain)) {
		t.Errorf("opened %x with error %v, want %s", got, err, plain)
	}
	// The IV of the example is a counter far beyond what a key may protect here, so the AEAD is called as Seal calls it.
	sealed := p.aead.Seal(nil, p.nonce(sk.Body[:aeadIVLen]), append(unhex(t, plain), 0), datagram[:sk.Offset])
	if !bytes.Equal(sealed, sk.Body[aeadIVLen:]) {
		t.Errorf("sealed %x, want %x", sealed, sk.Body[aeadIVLen:])
	}
}

// protections returns one Protection of each kind with its offer, the same key every time.
func protections(t testing.TB) map[string]*Protection {
	t.Helper()
	list := map[string]*Protection{}
	for name, o := range map[string]proposal.IKE{
		"aes128gcm16":      {Encryption: proposal.EncrAESGCM16, KeyBits: 128},
		"aes256gcm16":      {Encryption: proposal.EncrAESGCM16, KeyBits: 256},
		"chacha20poly1305": {Encryption: proposal.EncrChaCha20Poly1305},
		"aes256-sha256":    {Encryption: proposal.EncrAESCBC, KeyBits: 256, Integrity: proposal.IntegHMACSHA256128},
		"aes192-sha384":    {Encryption: proposal.EncrAESCBC, KeyBits: 192, Integrity: proposal.IntegHMACSHA384192},
		"aes128-sha512":    {Encryption: proposal.EncrAESCBC, KeyBits: 128, Integrity: proposal.IntegHMACSHA512256},
	} {
		encr, integ, err := keyLens(o.Encryption, o.KeyBits, o.Integrity)
		if err != nil {
			t.Fatal(err)
		}
		list[name] = mustProtect(t, o, sa.NewSecret(bytes.Repeat([]byte{0x42}, encr)), sa.NewSecret(bytes.Repeat([]byte{0x24}, integ)))
	}
	return list
}

func iv(p *Protection) []byte { return bytes.Repeat([]byte{0x99}, p.RandomIVLen()) }

var header = wire.Header{SPIi: 0x1122334455667788, SPIr: 0x99aabbccddeeff00, Exchange: wire.Informational, Flags: wire.FlagInitiator, MessageID: 7}

// openOnly parses a message and opens its protected payload.
func openOnly(p *Protection, datagram []byte) ([]byte, error) {
	m, err := wire.ParseMessage(datagram, math.MaxInt)
	if err != nil {
		return nil, err
	}
	switch sk := m.Payloads[len(m.Payloads)-1].(type) {
	case wire.Encrypted:
		return p.Open(datagram, sk)
	case wire.Fragment:
		return p.OpenFragment(datagram, sk)
	}
	return nil, errors.New("no protected payload")
}

func TestSealOpenRoundTrip(t *testing.T) {
	for name, p := range protections(t) {
		for size := range 70 {
			inner := bytes.Repeat([]byte{byte(size)}, size)
			prefix := []byte("prefix")
			out, err := p.Seal(bytes.Clone(prefix), header, wire.TypeNotify, inner, iv(p))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !bytes.HasPrefix(out, prefix) || len(out) != len(prefix)+p.MessageLen(size) {
				t.Fatalf("%s: Seal does not append a message of MessageLen", name)
			}
			got, err := openOnly(p, out[len(prefix):])
			if err != nil || !bytes.Equal(got, inner) {
				t.Errorf("%s: %d octets open to %x with error %v", name, size, got, err)
			}
			if _, err := openOnly(p, out[len(prefix):len(out)-1]); err == nil {
				t.Errorf("%s: a truncated message opens", name)
			}
		}
	}
}

// TestIVsAreNeverRepeated seals the same message again and again.
func TestIVsAreNeverRepeated(t *testing.T) {
	for name, p := range protections(t) {
		if p.RandomIVLen() != 0 {
			continue
		}
		seen := map[string]bool{}
		for n := range 300 {
			out, err := p.Seal(nil, header, wire.NoNextPayload, nil, nil)
			if n%2 == 1 {
				out, err = p.SealFragment(nil, header, wire.TypeIDi, 1, 2, nil, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			at := wire.HeaderLen + genericHeaderLen
			if n%2 == 1 {
				at += fragmentLen
			}
			used := string(out[at : at+aeadIVLen])
			if seen[used] {
				t.Fatalf("%s: IV %x is used twice", name, used)
			}
			seen[used] = true
		}
		p.sealed = messagesPerKey
		if _, err := p.Seal(nil, header, wire.NoNextPayload, nil, nil); !errors.Is(err, ErrExhausted) {
			t.Errorf("%s: an exhausted key gives %v", name, err)
		}
	}
}

func TestFragments(t *testing.T) {
	for name, p := range protections(t) {
		for _, size := range []int{576, 577, 580, 591, 592, 1280} {
			room := p.FragmentRoom(size)
			out, err := p.SealFragment(nil, header, wire.TypeIDi, 2, 3, make([]byte, room), iv(p))
			if err != nil {
				t.Fatal(err)
			}
			if len(out) > size {
				t.Errorf("%s: a fragment with %d octets inside has %d, at most %d wanted", name, room, len(out), size)
			}
			more, err := p.SealFragment(nil, header, wire.TypeIDi, 2, 3, make([]byte, room+1), iv(p))
			if err != nil || len(more) <= size {
				t.Errorf("%s: %d octets would fit into %d too, error %v", name, room+1, size, err)
			}
			m, err := wire.ParseMessage(out, wire.LimitBeforeAuth)
			if err != nil {
				t.Fatal(err)
			}
			skf := m.Payloads[0].(wire.Fragment)
			if skf.Number != 2 || skf.Total != 3 || skf.Next != wire.NoNextPayload {
				t.Errorf("%s: fragment %d of %d names %s", name, skf.Number, skf.Total, skf.Next)
			}
			if got, err := p.OpenFragment(out, skf); err != nil || len(got) != room {
				t.Errorf("%s: fragment opens to %d octets with error %v", name, len(got), err)
			}
			// RFC 7383 2.5: the fragment numbers are authentic.
			for _, at := range []int{wire.HeaderLen + 5, wire.HeaderLen + 7} {
				changed := bytes.Clone(out)
				changed[at] ^= 1
				if _, err := openOnly(p, changed); err == nil {
					t.Errorf("%s: a fragment with another number opens", name)
				}
			}
		}
		if got := p.FragmentRoom(40); got != 0 {
			t.Errorf("%s: %d octets fit into nothing", name, got)
		}
		for _, n := range [][2]uint16{{0, 1}, {2, 1}, {0, 0}} {
			if _, err := p.SealFragment(nil, header, wire.TypeIDi, n[0], n[1], nil, iv(p)); !errors.Is(err, ErrUnsupported) {
				t.Errorf("%s: fragment %d of %d gives %v", name, n[0], n[1], err)
			}
		}
	}
}

func TestSealRefuses(t *testing.T) {
	for name, p := range protections(t) {
		if _, err := p.Seal(nil, header, wire.TypeNotify, make([]byte, math.MaxUint16), iv(p)); !errors.Is(err, ErrTooLong) {
			t.Errorf("%s: 65535 octets give %v", name, err)
		}
		if _, err := p.Seal(nil, header, wire.TypeNotify, nil, make([]byte, 3)); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: an IV of 3 octets gives %v", name, err)
		}
	}
}

// TestPadLengthBeyondPayload seals a pad length that points before the payload, which only a peer with the keys can.
func TestPadLengthBeyondPayload(t *testing.T) {
	for name, p := range protections(t) {
		out, err := p.Seal(nil, header, wire.TypeNotify, bytes.Repeat([]byte{1}, 15), iv(p))
		if err != nil {
			t.Fatal(err)
		}
		offset := wire.HeaderLen + genericHeaderLen
		if p.aead != nil {
			used := out[offset : offset+aeadIVLen]
			out = p.aead.Seal(out[:offset+aeadIVLen], p.nonce(used), append(make([]byte, 15), 16), out[:offset])
		} else {
			plain := append(make([]byte, 15), 16)
			encryptCBC(p, out[offset:offset+16], plain)
			out = append(out[:offset+16], plain...)
			out = append(out, mac(p.hash, p.key, out)[:p.icvLen]...)
		}
		if _, err := openOnly(p, out); !errors.Is(err, ErrIntegrity) {
			t.Errorf("%s: pad length 16 of 16 octets gives %v", name, err)
		}
	}
}

func encryptCBC(p *Protection, iv, plain []byte) {
	cipher.NewCBCEncrypter(p.block, iv).CryptBlocks(plain, plain)
}

func TestOpenShort(t *testing.T) {
	for name, p := range protections(t) {
		for size := range 90 {
			b := make([]byte, 0, wire.HeaderLen+4+size)
			h := header
			h.NextPayload, h.Length = wire.TypeSK, uint32(wire.HeaderLen+4+size)
			b = h.Append(b)
			b = append(b, 0, 0)
			b = binary.BigEndian.AppendUint16(b, uint16(4+size))
			b = append(b, make([]byte, size)...)
			if _, err := openOnly(p, b); !errors.Is(err, ErrIntegrity) {
				t.Errorf("%s: %d octets of zeros give %v", name, size, err)
			}
		}
		for _, sk := range []wire.Encrypted{{Offset: -1}, {Offset: 0}, {Offset: 1000}, {Offset: 32}} {
			if _, err := p.Open(make([]byte, 32), sk); !errors.Is(err, ErrIntegrity) {
				t.Errorf("%s: offset %d gives %v", name, sk.Offset, err)
			}
		}
	}
}

func TestNewProtectionRefuses(t *testing.T) {
	key := func(n int) sa.Secret { return sa.NewSecret(make([]byte, n)) }
	for name, c := range map[string]struct {
		o           proposal.IKE
		encr, integ int
	}{
		"GCM without salt":    {gcm256, 32, 0},
		"GCM with integrity":  {gcm256, 36, 32},
		"no keys":             {gcm256, 0, 0},
		"CBC without HMAC":    {proposal.IKE{Encryption: proposal.EncrAESCBC, KeyBits: 256}, 32, 0},
		"CBC with short HMAC": {proposal.IKE{Encryption: proposal.EncrAESCBC, KeyBits: 256, Integrity: proposal.IntegHMACSHA256128}, 32, 16},
		"NULL":                {proposal.IKE{Encryption: proposal.EncrNULL, Integrity: proposal.IntegHMACSHA256128}, 0, 32},
	} {
		if _, err := NewProtection(c.o, key(c.encr), key(c.integ)); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s gives %v, want ErrUnsupported", name, err)
		}
	}
}

func TestProtectionIsRedactedAndWiped(t *testing.T) {
	for name, p := range protections(t) {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			for _, v := range []any{p, *p} {
				if got := fmt.Sprintf(format, v); got != "[redacted]" || strings.Contains(got, "66") {
					t.Errorf("%s: %s prints %q", name, format, got)
				}
			}
		}
		p.Wipe()
		if _, err := p.Seal(nil, header, wire.TypeNotify, nil, iv(p)); !errors.Is(err, ErrExhausted) {
			t.Errorf("%s: after Wipe Seal gives %v", name, err)
		}
	}
}

func BenchmarkSealOpen(b *testing.B) {
	inner := make([]byte, 1000)
	for name, p := range protections(b) {
		random := iv(p)
		var out []byte
		b.Run(name+"/seal", func(b *testing.B) {
			b.SetBytes(int64(len(inner)))
			for b.Loop() {
				var err error
				if out, err = p.Seal(out[:0], header, wire.TypeNotify, inner, random); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/open", func(b *testing.B) {
			b.SetBytes(int64(len(inner)))
			for b.Loop() {
				if _, err := openOnly(p, out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
