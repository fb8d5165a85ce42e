package suite

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// Vulnerabilities of other implementations of IKE in what they take for a signature.

// rawRSA computes m^d, so that a test can sign any block.
func rawRSA(key *rsa.PrivateKey, block []byte) []byte {
	m := new(big.Int).Exp(new(big.Int).SetBytes(block), key.D, key.N)
	return m.FillBytes(make([]byte, key.Size()))
}

// digestInfo is the DER before a SHA-256 sum in PKCS #1 v1.5.
var digestInfo = []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}

// CVE-2018-16151, CVE-2018-16152, CVE-2018-17540 (strongSwan) and CVE-2026-50721, CVE-2026-50722 (libreswan): the padded
// block is parsed instead of compared, so that octets at will fit into it, and small exponents can be forged for. Each
// block below is signed with the right key: only the comparison can refuse it.
func TestCVE_2018_16151_PKCS1IsComparedNotParsed(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	octets := []byte("octets")
	sum := digest(wire.HashSHA256, octets)
	size := key.Size()
	padded := func(tail []byte) []byte {
		block := append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, size-3-len(tail))...)
		return append(append(block, 0), tail...)
	}
	right := slices.Concat(digestInfo, sum)
	withoutNull := slices.Concat([]byte{0x30, 0x2f, 0x30, 0x0b}, digestInfo[4:15], []byte{0x04, 0x20}, sum)
	inParameters := slices.Concat([]byte{0x30, 0x35, 0x30, 0x11}, digestInfo[4:15], []byte{0x04, 0x04, 1, 2, 3, 4, 0x04, 0x20}, sum)
	short := slices.Concat([]byte{0, 1}, bytes.Repeat([]byte{0xff}, 8), []byte{0}, right)
	blocks := map[string][]byte{
		"garbage behind the sum":                  slices.Concat(short, make([]byte, size-len(short))),
		"garbage inside the sequence":             padded(slices.Concat(right, []byte{0, 0, 0, 0})),
		"parameters that are absent":              padded(withoutNull),
		"parameters with octets at will":          padded(inParameters),
		"padding that is too short":               slices.Concat([]byte{0, 1, 0}, right, make([]byte, size-3-len(right))),
		"padding with other octets":               append(append([]byte{0, 1}, bytes.Repeat([]byte{0xfe}, size-3-len(right))...), append([]byte{0}, right...)...),
		"a long form of the DER length":           padded(slices.Concat([]byte{0x30, 0x81, 0x31}, digestInfo[2:], sum)),
		"block type 2":                            append([]byte{0, 2}, padded(right)[2:]...),
		"no sum at all (underflow of 2018-17540)": padded(digestInfo[:0]),
	}
	pub, all := &key.PublicKey, SupportedHashes()
	check := func(name string, block []byte, want error) {
		t.Helper()
		signature := rawRSA(key, block)
		id := algorithm{schemePKCS1, wire.HashSHA256}.identifiers()[0]
		data := slices.Concat([]byte{byte(len(id))}, id, signature)
		if err := Verify(pub, wire.AuthDigitalSignature, data, octets, all); !errors.Is(err, want) {
			t.Errorf("method 14, %s: %v, want %v", name, err, want)
		}
		if err := Verify(pub, wire.AuthRSA, signature, octets, all); !errors.Is(err, want) {
			t.Errorf("method 1, %s: %v, want %v", name, err, want)
		}
	}
	check("the right block", padded(right), nil)
	for name, block := range blocks {
		check(name, block, ErrSignature)
	}
}

// CVE-2021-41990 and CVE-2018-6459 (strongSwan): the salt length and the mask function of RSASSA-PSS are read from the
// peer's parameters. Here only one encoding per hash exists, with both spellings that RFC 8017 allows.
func TestCVE_2021_41990_PSSParametersAreFixed(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	octets := []byte("octets")
	signature, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest(wire.HashSHA256, octets), &rsa.PSSOptions{SaltLength: 32})
	if err != nil {
		t.Fatal(err)
	}
	oid := oidRSA(10)
	sha256, mgf := der(derContext, der(derSequence, oidSHA2(1), derNull())), der(derContext|1, der(derSequence, oidRSA(8), der(derSequence, oidSHA2(1), derNull())))
	salt := func(n ...byte) []byte { return der(derContext|2, der(derInteger, n)) }
	for name, id := range map[string][]byte{
		"no parameters":        der(derSequence, oid),
		"NULL parameters":      der(derSequence, oid, derNull()),
		"empty parameters":     der(derSequence, oid, der(derSequence)), // SHA-1 by default
		"mask function absent": der(derSequence, oid, der(derSequence, sha256, salt(32))),
		"salt absent":          der(derSequence, oid, der(derSequence, sha256, mgf)),
		"salt of 20":           der(derSequence, oid, der(derSequence, sha256, mgf, salt(20))),
		"negative salt":        der(derSequence, oid, der(derSequence, sha256, mgf, salt(0xe0))),
		"salt of 2^63":         der(derSequence, oid, der(derSequence, sha256, mgf, salt(0, 0x80, 0, 0, 0, 0, 0, 0, 0))),
		"trailer 2":            der(derSequence, oid, der(derSequence, sha256, mgf, salt(32), der(derContext|3, der(derInteger, []byte{2})))),
	} {
		data := slices.Concat([]byte{byte(len(id))}, id, signature)
		if err := Verify(&key.PublicKey, wire.AuthDigitalSignature, data, octets, SupportedHashes()); !errors.Is(err, ErrAlgorithm) {
			t.Errorf("%s: %v, want ErrAlgorithm", name, err)
		}
	}
}

// CVE-2017-11185, CVE-2017-9022, CVE-2026-35334 (strongSwan) and CVE-2026-14957 (libreswan): moduli and exponents at the
// edges crash, or accept everything.
func TestCVE_2017_11185_RSAKeysAtTheEdges(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	id := algorithm{schemePKCS1, wire.HashSHA256}.identifiers()[0]
	for name, pub := range map[string]*rsa.PublicKey{
		"exponent 0": {N: key.N, E: 0}, "exponent 1": {N: key.N, E: 1}, "exponent 2": {N: key.N, E: 2}, "negative exponent": {N: key.N, E: -3},
		"modulus 0": {N: new(big.Int), E: 65537}, "no modulus": {E: 65537}, "even modulus": {N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 65537},
		"negative modulus": {N: new(big.Int).Neg(key.N), E: 65537},
	} {
		for _, signature := range [][]byte{nil, {0}, {1}, make([]byte, 256), key.N.Bytes(), bytes.Repeat([]byte{0xff}, 256), bytes.Repeat([]byte{0xff}, 300)} {
			data := slices.Concat([]byte{byte(len(id))}, id, signature)
			if err := Verify(pub, wire.AuthDigitalSignature, data, []byte("octets"), SupportedHashes()); err == nil {
				t.Errorf("%s: a signature of %d octets is accepted", name, len(signature))
			}
		}
	}
	// The signature itself at the edges, with a good key.
	for _, s := range []*big.Int{new(big.Int), big.NewInt(1), new(big.Int).Sub(key.N, big.NewInt(1)), key.N, new(big.Int).Add(key.N, big.NewInt(1))} {
		data := slices.Concat([]byte{byte(len(id))}, id, s.FillBytes(make([]byte, 256)))
		if err := Verify(&key.PublicKey, wire.AuthDigitalSignature, data, []byte("octets"), SupportedHashes()); !errors.Is(err, ErrSignature) {
			t.Errorf("signature %s: %v, want ErrSignature", s.Text(16)[:1], err)
		}
	}
}

// CVE-2013-2944 (strongSwan) and CVE-2020-16088 (OpenIKED): a verification with three outcomes whose error counts as yes.
func TestCVE_2013_2944_ECDSAErrorsAreNoSignatures(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	n := elliptic.P256().Params().N
	for name, rs := range map[string][2]*big.Int{
		"zeros": {new(big.Int), new(big.Int)}, "r zero": {new(big.Int), big.NewInt(1)}, "s zero": {big.NewInt(1), new(big.Int)},
		"r is the order": {n, big.NewInt(1)}, "s is the order": {big.NewInt(1), n}, "ones": {big.NewInt(1), big.NewInt(1)},
	} {
		raw := slices.Concat(rs[0].FillBytes(make([]byte, 32)), rs[1].FillBytes(make([]byte, 32)))
		if err := Verify(&key.PublicKey, wire.AuthECDSA256, raw, []byte("octets"), SupportedHashes()); !errors.Is(err, ErrSignature) {
			t.Errorf("method 9, %s: %v, want ErrSignature", name, err)
		}
	}
	id := algorithm{schemeECDSA, wire.HashSHA256}.identifiers()[0]
	for name, signature := range map[string][]byte{
		"nothing": nil, "no sequence": {2, 1, 1}, "negative r": {0x30, 6, 2, 1, 0xff, 2, 1, 1}, "empty": {0x30, 0}, "zeros": {0x30, 6, 2, 1, 0, 2, 1, 0},
	} {
		data := slices.Concat([]byte{byte(len(id))}, id, signature)
		if err := Verify(&key.PublicKey, wire.AuthDigitalSignature, data, []byte("octets"), SupportedHashes()); !errors.Is(err, ErrSignature) {
			t.Errorf("method 14, %s: %v, want ErrSignature", name, err)
		}
	}
}
