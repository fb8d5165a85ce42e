package suite_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// What the peer announces (RFC 9593) narrows the choice, and never widens it beyond the hashes of RFC 7427.
func TestSignAmongWhatThePeerAccepts(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ids := suite.AlgorithmIdentifiers() // ECDSA, PSS and PKCS #1 with SHA-256, 384, 512 each, Ed25519
	if len(ids) != 10 {
		t.Fatalf("%d identifiers, want 10", len(ids))
	}
	all := suite.SupportedHashes()
	for _, c := range []struct {
		name     string
		key      crypto.Signer
		hashes   []wire.HashAlgorithm
		accepted [][]byte
		want     []byte // nil: refused
	}{
		{"nothing told", small, all, nil, ids[3]},
		{"everything", small, all, ids, ids[3]},
		{"only PSS with SHA-512", small, all, ids[5:6], ids[5]},
		{"only PKCS #1", small, all, ids[6:9], ids[6]},
		{"PKCS #1 and PSS", small, all, [][]byte{ids[6], ids[4]}, ids[4]},
		{"nothing for this key", small, all, ids[:3], nil},
		{"accepted, but the hash was not announced", small, []wire.HashAlgorithm{wire.HashSHA384}, ids[3:4], nil},
		{"ECDSA with another hash", curve, all, ids[2:3], ids[2]},
		{"not ECDSA", curve, all, ids[3:], nil},
	} {
		method, data, err := suite.SignAmong(rand.Reader, c.key, c.hashes, c.accepted, []byte("octets"))
		if c.want == nil {
			if !errors.Is(err, suite.ErrNoCommonHash) {
				t.Errorf("%s: %v, want ErrNoCommonHash", c.name, err)
			}
			continue
		}
		if err != nil || method != wire.AuthDigitalSignature || !bytes.HasPrefix(data[1:], c.want) {
			t.Errorf("%s: %v, %v, %x; want the identifier %x", c.name, err, method, data[:min(len(data), 70)], c.want)
			continue
		}
		if err := suite.Verify(c.key.Public(), method, data, []byte("octets"), all); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
