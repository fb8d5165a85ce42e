package suite

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256" // registers the hashes that cryptoHash names
	"crypto/sha512"
	"fmt"
	"io"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// The limits on RSA keys (RFC 8247 4.1.1 for the lower one). Verification with a longer modulus costs a peer nothing
// and this side much.
const (
	rsaBitsMin = 2048
	rsaBitsMax = 8192
)

// SupportedHashes is what SIGNATURE_HASH_ALGORITHMS announces (RFC 7427 4). SHA-1 is never in it.
func SupportedHashes() []wire.HashAlgorithm {
	return []wire.HashAlgorithm{wire.HashSHA256, wire.HashSHA384, wire.HashSHA512, wire.HashIdentity}
}

// Sign makes AUTH data with the private key of a certificate. peer is what the peer announced in
// SIGNATURE_HASH_ALGORITHMS, empty when it announced nothing. With an announcement the method is 14 (RFC 7427), RSA
// keys signing with RSASSA-PSS (RFC 8247 3.2). Without one, ECDSA keys use methods 9 to 11, which fix a SHA-2 hash; RSA
// and Ed25519 keys have no such method, because method 1 means SHA-1 in practice: the error is ErrNoCommonHash.
func Sign(rand io.Reader, signer crypto.Signer, peer []wire.HashAlgorithm, octets []byte) (wire.AuthMethod, []byte, error) {
	return SignAmong(rand, signer, peer, nil, octets)
}

// SignAmong is Sign for a peer that announced the AlgorithmIdentifiers that it accepts (RFC 9593), none of which means
// that it has not told. Only for such a peer an RSA key signs with PKCS #1 v1.5, when that accepts nothing better.
func SignAmong(rand io.Reader, signer crypto.Signer, peer []wire.HashAlgorithm, accepted [][]byte, octets []byte) (wire.AuthMethod, []byte, error) {
	if err := checkPublicKey(signer.Public()); err != nil {
		return 0, nil, err
	}
	if key, ok := signer.Public().(*ecdsa.PublicKey); ok && len(peer) == 0 {
		return signRaw(rand, signer, key, octets)
	}
	a, err := chooseAlgorithm(signer.Public(), peer, accepted)
	if err != nil {
		return 0, nil, err
	}
	signature, err := signer.Sign(rand, digest(a.hash, octets), a.options())
	if err != nil {
		return 0, nil, fmt.Errorf("sign with %T and %s: %w", signer.Public(), a.hash, err)
	}
	identifier := a.identifiers()[0]
	data := append([]byte{byte(len(identifier))}, identifier...)
	return wire.AuthDigitalSignature, append(data, signature...), nil
}

// chooseAlgorithm takes the hash that suits the key best among those that the peer announced.
func chooseAlgorithm(pub crypto.PublicKey, peer []wire.HashAlgorithm, accepted [][]byte) (algorithm, error) {
	a := algorithm{scheme: schemePSS}
	order := []wire.HashAlgorithm{wire.HashSHA256, wire.HashSHA384, wire.HashSHA512}
	switch key := pub.(type) {
	case *ecdsa.PublicKey:
		a.scheme = schemeECDSA
		switch key.Curve { // RFC 7427 4: the hash should match the strength of the key
		case elliptic.P384():
			order = []wire.HashAlgorithm{wire.HashSHA384, wire.HashSHA512, wire.HashSHA256}
		case elliptic.P521():
			order = []wire.HashAlgorithm{wire.HashSHA512, wire.HashSHA384, wire.HashSHA256}
		}
	case ed25519.PublicKey:
		a.scheme = schemeEd25519
		order = []wire.HashAlgorithm{wire.HashIdentity} // RFC 8420 2
	}
	schemes := []scheme{a.scheme}
	if a.scheme == schemePSS && len(accepted) > 0 {
		schemes = append(schemes, schemePKCS1)
	}
	for _, a.scheme = range schemes {
		for _, a.hash = range order {
			if slices.Contains(peer, a.hash) && a.among(accepted) {
				return a, nil
			}
		}
	}
	return algorithm{}, fmt.Errorf("sign with %T for a peer that announced %v: %w", pub, peer, ErrNoCommonHash)
}

// options tells a crypto.Signer how to sign.
func (a algorithm) options() crypto.SignerOpts {
	if a.scheme == schemePSS {
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: cryptoHash(a.hash)}
	}
	return cryptoHash(a.hash)
}

// digest is the octets themselves for HashIdentity.
func digest(h wire.HashAlgorithm, octets []byte) []byte {
	switch h {
	case wire.HashSHA256:
		sum := sha256.Sum256(octets)
		return sum[:]
	case wire.HashSHA384:
		sum := sha512.Sum384(octets)
		return sum[:]
	case wire.HashSHA512:
		sum := sha512.Sum512(octets)
		return sum[:]
	}
	return octets
}

// checkPublicKey refuses key types and sizes that authenticate nobody.
func checkPublicKey(pub crypto.PublicKey) error {
	switch key := pub.(type) {
	case *rsa.PublicKey:
		if key.N == nil {
			return fmt.Errorf("use an empty RSA key: %w", ErrAlgorithm)
		}
		if bits := key.N.BitLen(); bits < rsaBitsMin || bits > rsaBitsMax {
			return fmt.Errorf("use an RSA key of %d bits where %d to %d are allowed: %w", bits, rsaBitsMin, rsaBitsMax, ErrAlgorithm)
		}
		if key.N.Sign() < 0 || key.N.Bit(0) == 0 {
			return fmt.Errorf("use an RSA key with an even or negative modulus: %w", ErrAlgorithm)
		}
		if key.E < 3 || key.E%2 == 0 {
			return fmt.Errorf("use an RSA key with exponent %d: %w", key.E, ErrAlgorithm)
		}
		return nil
	case *ecdsa.PublicKey:
		if _, _, ok := rawECDSA(key); !ok {
			return fmt.Errorf("use an ECDSA key of another curve than P-256, P-384 and P-521: %w", ErrAlgorithm)
		}
		return nil
	case ed25519.PublicKey:
		if len(key) != ed25519.PublicKeySize {
			return fmt.Errorf("use an Ed25519 key of %d octets: %w", len(key), ErrAlgorithm)
		}
		return nil
	}
	return fmt.Errorf("use a key of type %T: %w", pub, ErrAlgorithm)
}

// rawECDSA returns the method that belongs to the curve, and its hash (RFC 4754 7).
func rawECDSA(key *ecdsa.PublicKey) (wire.AuthMethod, wire.HashAlgorithm, bool) {
	switch key.Curve {
	case elliptic.P256():
		return wire.AuthECDSA256, wire.HashSHA256, true
	case elliptic.P384():
		return wire.AuthECDSA384, wire.HashSHA384, true
	case elliptic.P521():
		return wire.AuthECDSA521, wire.HashSHA512, true
	}
	return 0, 0, false
}

// signRaw signs with methods 9 to 11: r and s side by side, each in the length of the field (RFC 4754 7).
func signRaw(rand io.Reader, signer crypto.Signer, key *ecdsa.PublicKey, octets []byte) (wire.AuthMethod, []byte, error) {
	method, h, _ := rawECDSA(key)
	signature, err := signer.Sign(rand, digest(h, octets), cryptoHash(h))
	if err != nil {
		return 0, nil, fmt.Errorf("sign with %s: %w", method, err)
	}
	size := (key.Curve.Params().BitSize + 7) / 8
	var r, s []byte
	outer := cryptobyte.String(signature)
	var inner cryptobyte.String
	if !outer.ReadASN1(&inner, asn1.SEQUENCE) || !outer.Empty() || !inner.ReadASN1Integer(&r) ||
		!inner.ReadASN1Integer(&s) || !inner.Empty() || len(r) > size || len(s) > size {
		return 0, nil, fmt.Errorf("sign with %s: signer returned %d octets that are no ECDSA signature: %w", method, len(signature), ErrSignature)
	}
	data := make([]byte, 2*size)
	copy(data[size-len(r):], r)
	copy(data[2*size-len(s):], s)
	return method, data, nil
}

// Verify checks the AUTH data of the peer against the public key of its certificate. announced is what this side sent
// in SIGNATURE_HASH_ALGORITHMS: a hash outside of it is refused, whatever the data says. Methods 9 to 11 are accepted
// as RFC 4754 fixes them. Method 1 is accepted with a SHA-2 hash only; peers that know no other than SHA-1 must learn
// RFC 7427 or be given another kind of credential. The error is ErrSignature or ErrAlgorithm.
func Verify(pub crypto.PublicKey, method wire.AuthMethod, data, octets []byte, announced []wire.HashAlgorithm) error {
	if err := checkPublicKey(pub); err != nil {
		return err
	}
	switch method {
	case wire.AuthDigitalSignature:
		return verifyDigitalSignature(pub, data, octets, announced)
	case wire.AuthECDSA256, wire.AuthECDSA384, wire.AuthECDSA521:
		return verifyRaw(pub, method, data, octets)
	case wire.AuthRSA:
		key, ok := pub.(*rsa.PublicKey)
		if !ok {
			return fmt.Errorf("verify method %s with a key of type %T: %w", method, pub, ErrAlgorithm)
		}
		for _, h := range []wire.HashAlgorithm{wire.HashSHA256, wire.HashSHA384, wire.HashSHA512} {
			if rsa.VerifyPKCS1v15(key, cryptoHash(h), digest(h, octets), data) == nil {
				return nil
			}
		}
		return fmt.Errorf("verify method %s with a SHA-2 hash: %w", method, ErrSignature)
	}
	return fmt.Errorf("verify a signature of method %s: %w", method, ErrAlgorithm)
}

// verifyDigitalSignature reads method 14 (RFC 7427 3): length octet, AlgorithmIdentifier, signature.
func verifyDigitalSignature(pub crypto.PublicKey, data, octets []byte, announced []wire.HashAlgorithm) error {
	if len(data) < 1 || len(data) < 1+int(data[0]) {
		return fmt.Errorf("verify %d octets of authentication data: %w", len(data), ErrSignature)
	}
	identifier, signature := data[1:1+int(data[0])], data[1+int(data[0]):]
	a, ok := findAlgorithm(identifier)
	if !ok {
		return fmt.Errorf("verify with AlgorithmIdentifier %x: %w", identifier, ErrAlgorithm)
	}
	if !slices.Contains(announced, a.hash) {
		return fmt.Errorf("verify with %s, which was not announced: %w", a.hash, ErrAlgorithm)
	}
	valid, fits := false, false
	switch key := pub.(type) {
	case *rsa.PublicKey:
		switch a.scheme {
		case schemePSS:
			fits = true
			// The salt length is that of the identifier, not whatever the signature holds.
			options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: cryptoHash(a.hash)}
			valid = rsa.VerifyPSS(key, cryptoHash(a.hash), digest(a.hash, octets), signature, options) == nil
		case schemePKCS1:
			fits = true
			valid = rsa.VerifyPKCS1v15(key, cryptoHash(a.hash), digest(a.hash, octets), signature) == nil
		case schemeECDSA, schemeEd25519: // not for this kind of key
		}
	case *ecdsa.PublicKey:
		fits = a.scheme == schemeECDSA
		valid = fits && ecdsa.VerifyASN1(key, digest(a.hash, octets), signature)
	case ed25519.PublicKey:
		fits = a.scheme == schemeEd25519
		valid = fits && ed25519.Verify(key, octets, signature)
	}
	if !fits {
		return fmt.Errorf("verify with AlgorithmIdentifier %x and a key of type %T: %w", identifier, pub, ErrAlgorithm)
	}
	if !valid {
		return ErrSignature
	}
	return nil
}

// verifyRaw checks methods 9 to 11 (RFC 4754 7).
func verifyRaw(pub crypto.PublicKey, method wire.AuthMethod, data, octets []byte) error {
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("verify method %s with a key of type %T: %w", method, pub, ErrAlgorithm)
	}
	want, h, _ := rawECDSA(key)
	if want != method {
		return fmt.Errorf("verify method %s with a key for %s: %w", method, want, ErrAlgorithm)
	}
	size := (key.Curve.Params().BitSize + 7) / 8
	if len(data) != 2*size {
		return fmt.Errorf("verify %d octets with method %s: %w", len(data), method, ErrSignature)
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addUnsigned(b, data[:size])
		addUnsigned(b, data[size:])
	})
	signature, err := b.Bytes()
	if err != nil || !ecdsa.VerifyASN1(key, digest(h, octets), signature) {
		return ErrSignature
	}
	return nil
}

// addUnsigned writes the big-endian number as a DER INTEGER.
func addUnsigned(b *cryptobyte.Builder, n []byte) {
	for len(n) > 1 && n[0] == 0 {
		n = n[1:]
	}
	b.AddASN1(asn1.INTEGER, func(b *cryptobyte.Builder) {
		if n[0]&0x80 != 0 {
			b.AddUint8(0)
		}
		b.AddBytes(n)
	})
}
