package pki_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"math/big"
	"testing"

	"github.com/bailiwick-net/bailiwick/pki"
)

// rsaOf makes a key of the size that CheckKey sees; it does no arithmetic, so the modulus need not be a product.
func rsaOf(bits uint, e int) *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	return &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: e}
}

func TestCheckKey(t *testing.T) {
	even := rsaOf(2048, 65537)
	even.N.SetBit(even.N, 0, 0)
	x25519, err := ecdh.X25519().NewPublicKey(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		key  crypto.PublicKey
		ok   bool
	}{
		{"P-256", key.Public(), true},
		{"P-384", &ecdsa.PublicKey{Curve: elliptic.P384()}, true},
		{"P-521", &ecdsa.PublicKey{Curve: elliptic.P521()}, true},
		{"P-224", &ecdsa.PublicKey{Curve: elliptic.P224()}, false},
		{"no curve", &ecdsa.PublicKey{}, false},
		{"nil ECDSA", (*ecdsa.PublicKey)(nil), false},
		{"Ed25519", ed25519.PublicKey(make([]byte, 32)), true},
		{"short Ed25519", ed25519.PublicKey(make([]byte, 31)), false},
		{"RSA 2048", rsaOf(2048, 65537), true},
		{"RSA 8192", rsaOf(8192, 3), true},
		{"RSA 2047", rsaOf(2047, 65537), false},
		{"RSA 8193", rsaOf(8193, 65537), false},
		{"RSA with exponent 1", rsaOf(2048, 1), false},
		{"RSA with an even exponent", rsaOf(2048, 65536), false},
		{"RSA with an even modulus", even, false},
		{"RSA without a modulus", &rsa.PublicKey{E: 65537}, false},
		{"X25519", x25519, false},
		{"nil", nil, false},
	} {
		err := pki.CheckKey(c.key)
		if c.ok && err != nil || !c.ok && !errors.Is(err, pki.ErrKey) {
			t.Errorf("%s gives %v, want accepted: %v", c.name, err, c.ok)
		}
	}
}

func TestKeyID(t *testing.T) {
	cert := strongSwanCertificates(t)["eca"]
	id, err := pki.KeyIDOf(cert.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if want := pki.KeyID(sha256.Sum256(cert.RawSubjectPublicKeyInfo)); id != want {
		t.Errorf("key id %v, want the SHA-256 of the certificate's SubjectPublicKeyInfo %v", id, want)
	}
	if back, err := pki.ParseKeyID(id.String()); err != nil || back != id {
		t.Errorf("%v reads back as %v, %v", id, back, err)
	}
	for _, s := range []string{"", id.String()[1:], id.String() + "0", "G" + id.String()[1:], "AB" + id.String()[2:]} {
		if _, err := pki.ParseKeyID(s); !errors.Is(err, pki.ErrName) {
			t.Errorf("%q gives %v, want ErrName", s, err)
		}
	}
}
