package suite

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// FuzzOpenSK feeds datagrams to the protection of both kinds. Without the key nothing opens, so each input is also
// sealed, after which it must open to itself.
func FuzzOpenSK(f *testing.F) {
	for _, path := range recordings(f) {
		for _, p := range loadSession(f, path).Packets {
			f.Add([]byte(p.Hex))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, p := range protections(t) {
			if m, err := wire.ParseMessage(b, wire.LimitAfterAuth); err == nil && len(m.Payloads) > 0 {
				switch sk := m.Payloads[len(m.Payloads)-1].(type) {
				case wire.Encrypted:
					_, err = p.Open(b, sk)
				case wire.Fragment:
					_, err = p.OpenFragment(b, sk)
				default:
					err = ErrIntegrity
				}
				if !errors.Is(err, ErrIntegrity) {
					t.Fatalf("%s: %x opens with error %v", name, b, err)
				}
			}
			for _, offset := range []int{0, wire.HeaderLen, len(b) / 2, len(b), len(b) + 1} {
				if _, err := p.Open(b, wire.Encrypted{Offset: offset}); !errors.Is(err, ErrIntegrity) {
					t.Fatalf("%s: %x at %d opens with error %v", name, b, offset, err)
				}
			}
			inner := b[:min(len(b), 60000)]
			out, err := p.SealFragment(nil, header, wire.TypeNotify, 1, 1, inner, iv(p))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got, err := openOnly(p, out); err != nil || !bytes.Equal(got, inner) {
				t.Fatalf("%s: %x seals to what opens to %x with error %v", name, inner, got, err)
			}
		}
	})
}

// fuzzKeys are public keys that need no randomness, so that a finding can be repeated.
func fuzzKeys(f *testing.F) []crypto.PublicKey {
	f.Helper()
	b, err := os.ReadFile("testdata/rsa2048.pem")
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		f.Fatal("testdata/rsa2048.pem holds no PEM block")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		f.Fatal(err)
	}
	keys := []crypto.PublicKey{cert.PublicKey, ed25519.NewKeyFromSeed(make([]byte, 32)).Public()}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		size := (curve.Params().BitSize + 7) / 8
		key, err := ecdsa.ParseRawPrivateKey(curve, big.NewInt(7).FillBytes(make([]byte, size)))
		if err != nil {
			f.Fatal(err)
		}
		keys = append(keys, key.Public())
	}
	return keys
}

// FuzzAuthSignature feeds AUTH data of every method to every kind of key. Nobody signed the octets, so nothing may
// verify.
func FuzzAuthSignature(f *testing.F) {
	keys := fuzzKeys(f)
	for _, path := range recordings(f) {
		for _, p := range loadSession(f, path).Packets {
			if len(p.AlgorithmID) > 0 {
				id := []byte(p.AlgorithmID)
				f.Add(uint8(wire.AuthDigitalSignature), slices.Concat([]byte{byte(len(id))}, id, make([]byte, 256)))
			}
		}
	}
	for _, a := range algorithms() {
		for _, id := range a.identifiers() {
			f.Add(uint8(wire.AuthDigitalSignature), slices.Concat([]byte{byte(len(id))}, id, unhex(f, "3006020101020101")))
		}
	}
	for _, v := range rfc4754 {
		f.Add(uint8(v.method), unhex(f, v.r+v.s))
	}
	octets := []byte("octets that nobody signed")
	f.Fuzz(func(t *testing.T, method uint8, data []byte) {
		for _, key := range keys {
			err := Verify(key, wire.AuthMethod(method), data, octets, SupportedHashes())
			if !errors.Is(err, ErrSignature) && !errors.Is(err, ErrAlgorithm) {
				t.Fatalf("method %d with %x and a key of type %T gives %v", method, data, key, err)
			}
		}
		if err := VerifyPSK(proposal.PRFHMACSHA256, sa.NewSecret([]byte("key")), octets, data); !errors.Is(err, ErrSignature) {
			t.Fatalf("%x passes as PSK: %v", data, err)
		}
	})
}

// FuzzAgree feeds public values to every group.
func FuzzAgree(f *testing.F) {
	private := map[proposal.Group]*PrivateValue{}
	for _, v := range exchangeVectors {
		p, public, err := KeyExchangeFrom(v.group, sa.NewSecret(unhex(f, v.i)))
		if err != nil {
			f.Fatal(err)
		}
		private[v.group] = p
		f.Add(public)
	}
	p, public, err := KeyExchangeFrom(proposal.GroupMODP2048, sa.NewSecret([]byte{0x51}))
	if err != nil {
		f.Fatal(err)
	}
	private[proposal.GroupMODP2048] = p
	f.Add(public)
	f.Fuzz(func(t *testing.T, public []byte) {
		for group, p := range private {
			shared, err := Agree(p, public)
			switch {
			case err != nil && !errors.Is(err, ErrPublicValue):
				t.Fatalf("group %d with %x gives %v", group, public, err)
			case err == nil && (len(public) != groups[group].public || shared.Len() != groups[group].shared || zero(shared.Expose())):
				t.Fatalf("group %d with %x gives a secret of %d octets", group, public, shared.Len())
			}
		}
	})
}

// FuzzKEM feeds encapsulation keys and ciphertexts. Whatever is not one is refused, and whatever is one gives a secret.
func FuzzKEM(f *testing.F) {
	private, public, err := NewKeyExchange(proposal.GroupMLKEM768)
	if err != nil {
		f.Fatal(err)
	}
	ciphertext, _, err := Encapsulate(proposal.GroupMLKEM768, public)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(public)
	f.Add(ciphertext)
	f.Add(make([]byte, 1568))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, group := range []proposal.Group{proposal.GroupMLKEM768, proposal.GroupMLKEM1024} {
			got, shared, err := Encapsulate(group, data)
			if wrong := CheckPublic(group, data); wrong != nil && err == nil {
				t.Fatalf("%s takes %d octets: %v", group, len(data), wrong)
			}
			if err == nil && (shared.Len() != 32 || len(got) == 0) {
				t.Fatalf("%s gives a secret of %d octets", group, shared.Len())
			}
		}
		if shared, err := Agree(private, data); (err == nil) != (len(data) == len(ciphertext)) || err == nil && shared.Len() != 32 {
			t.Fatalf("a ciphertext of %d octets gives a secret of %d, %v", len(data), shared.Len(), err)
		}
	})
}
