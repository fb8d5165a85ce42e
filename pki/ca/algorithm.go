package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	"github.com/bailiwick-net/bailiwick/pki"
)

// Algorithm is the kind of a CA's key.
type Algorithm uint8

// The algorithms. The zero value means the default, ECDSA on P-256. RSA is for old peers that verify nothing else.
const (
	ECDSAP256 Algorithm = iota + 1
	ECDSAP384
	Ed25519
	RSA3072
	RSA4096
)

var algorithmNames = map[Algorithm]string{
	ECDSAP256: "ecdsa-p256", ECDSAP384: "ecdsa-p384", Ed25519: "ed25519", RSA3072: "rsa-3072", RSA4096: "rsa-4096",
}

// String returns the name as written in configuration.
func (a Algorithm) String() string {
	if name, ok := algorithmNames[a]; ok {
		return name
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// ParseAlgorithm reads the form of String; the empty text is the default. Errors wrap ErrAuthority.
func ParseAlgorithm(text string) (Algorithm, error) {
	if text == "" {
		return ECDSAP256, nil
	}
	for a, name := range algorithmNames {
		if name == text {
			return a, nil
		}
	}
	return 0, fmt.Errorf("algorithm %.40q of a CA's key, wanted ecdsa-p256, ecdsa-p384, ed25519, rsa-3072 or rsa-4096: %w", text, ErrAuthority)
}

// GenerateKey makes a key.
func (a Algorithm) GenerateKey() (crypto.Signer, error) {
	switch a {
	case ECDSAP256, 0:
		return signer(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	case ECDSAP384:
		return signer(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return signer(key, err)
	case RSA3072:
		return signer(rsa.GenerateKey(rand.Reader, 3072))
	case RSA4096:
		return signer(rsa.GenerateKey(rand.Reader, 4096))
	}
	return nil, fmt.Errorf("%v: %w", a, ErrAuthority)
}

// signer keeps a failed generation from becoming a typed nil.
func signer[K crypto.Signer](key K, err error) (crypto.Signer, error) {
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return key, nil
}

// signatureAlgorithm is how a CA with the key signs: with the hash that is as strong as the key. RSA signs in the way of
// PKCS #1 v1.5 (RFC 8017 8.2), which every old peer verifies.
func signatureAlgorithm(public crypto.PublicKey) (x509.SignatureAlgorithm, error) {
	if err := pki.CheckKey(public); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrAuthority, err)
	}
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P384():
			return x509.ECDSAWithSHA384, nil
		case elliptic.P521():
			return x509.ECDSAWithSHA512, nil
		}
		return x509.ECDSAWithSHA256, nil
	case ed25519.PublicKey:
		return x509.PureEd25519, nil
	}
	return x509.SHA256WithRSA, nil
}
