package suite

import (
	"bytes"
	"crypto"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// scheme is how a signature is made.
type scheme uint8

const (
	schemePKCS1 scheme = iota + 1
	schemePSS
	schemeECDSA
	schemeEd25519
)

// algorithm is a signature algorithm of RFC 7427: scheme and hash.
type algorithm struct {
	scheme scheme
	hash   wire.HashAlgorithm
}

// cryptoHash returns 0 for HashIdentity; SHA-1 is never returned (RFC 8247 3.2: MUST NOT).
func cryptoHash(h wire.HashAlgorithm) crypto.Hash {
	switch h {
	case wire.HashSHA256:
		return crypto.SHA256
	case wire.HashSHA384:
		return crypto.SHA384
	case wire.HashSHA512:
		return crypto.SHA512
	}
	return 0
}

// algorithms is everything that can be negotiated with method 14.
func algorithms() []algorithm {
	return []algorithm{
		{schemeECDSA, wire.HashSHA256}, {schemeECDSA, wire.HashSHA384}, {schemeECDSA, wire.HashSHA512},
		{schemePSS, wire.HashSHA256}, {schemePSS, wire.HashSHA384}, {schemePSS, wire.HashSHA512},
		{schemePKCS1, wire.HashSHA256}, {schemePKCS1, wire.HashSHA384}, {schemePKCS1, wire.HashSHA512},
		{schemeEd25519, wire.HashIdentity},
	}
}

// The tags of the DER that is written here.
const (
	derInteger  = 0x02
	derOID      = 0x06
	derSequence = 0x30
	derContext  = 0xa0
)

// derNull is the NULL of AlgorithmIdentifier parameters.
func derNull() []byte { return []byte{0x05, 0x00} }

// der writes one element of less than 128 octets.
func der(tag byte, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	return append([]byte{tag, byte(len(body))}, body...)
}

// The last octets of the object identifiers; RFC 7427 A lists them whole.
func oidRSA(n byte) []byte {
	return der(derOID, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, n})
}

func oidECDSA(n byte) []byte { return der(derOID, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, n}) }

func oidSHA2(n byte) []byte {
	return der(derOID, []byte{0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, n})
}

// identifiers returns the DER of every AlgorithmIdentifier that stands for the algorithm; the first is the one that is
// sent. Comparing whole encodings leaves a peer no room for parameters that mean something else.
func (a algorithm) identifiers() [][]byte {
	// In the arc of SHA-2 and in that of ECDSA the numbers differ per hash.
	var rsa, ecdsa, sha2, salt byte
	switch a.hash {
	case wire.HashSHA256:
		rsa, ecdsa, sha2, salt = 11, 2, 1, 32
	case wire.HashSHA384:
		rsa, ecdsa, sha2, salt = 12, 3, 2, 48
	case wire.HashSHA512:
		rsa, ecdsa, sha2, salt = 13, 4, 3, 64
	}
	switch a.scheme {
	case schemePKCS1: // RFC 7427 A.1: NULL parameters are required
		return [][]byte{der(derSequence, oidRSA(rsa), derNull())}
	case schemeECDSA: // RFC 7427 A.3: parameters are absent
		return [][]byte{der(derSequence, oidECDSA(ecdsa))}
	case schemeEd25519: // RFC 8420 A.1: parameters are absent
		return [][]byte{der(derSequence, der(derOID, []byte{0x2b, 0x65, 0x70}))}
	case schemePSS:
		return pssIdentifiers(sha2, salt)
	}
	return nil
}

// pssIdentifiers writes RSASSA-PSS with one hash for message and mask, a salt of the hash length and trailer field 1
// (RFC 7427 A.4). RFC 8017 A.2.1 wants both spellings of the hash, with NULL and without parameters, to be accepted;
// DER leaves out the default trailer field, RFC 7427 A.4.3 prints it.
func pssIdentifiers(sha2, salt byte) [][]byte {
	var list [][]byte
	for _, trailer := range [][]byte{nil, der(derContext|3, der(derInteger, []byte{1}))} {
		for _, hashNull := range [][]byte{derNull(), nil} {
			for _, maskNull := range [][]byte{derNull(), nil} {
				mgf1 := der(derSequence, oidRSA(8), der(derSequence, oidSHA2(sha2), maskNull))
				list = append(list, der(derSequence, oidRSA(10), der(derSequence,
					der(derContext, der(derSequence, oidSHA2(sha2), hashNull)),
					der(derContext|1, mgf1),
					der(derContext|2, der(derInteger, []byte{salt})),
					trailer)))
			}
		}
	}
	return list
}

// AlgorithmIdentifiers are the DER of everything that is accepted with method 14, one spelling each.
func AlgorithmIdentifiers() [][]byte {
	var list [][]byte
	for _, a := range algorithms() {
		list = append(list, a.identifiers()[0])
	}
	return list
}

// among reports whether a peer accepts the algorithm in the spelling that is sent; no list is every algorithm.
func (a algorithm) among(accepted [][]byte) bool {
	return len(accepted) == 0 || slices.ContainsFunc(accepted, func(id []byte) bool { return bytes.Equal(id, a.identifiers()[0]) })
}

// findAlgorithm returns the algorithm that the DER stands for.
func findAlgorithm(identifier []byte) (algorithm, bool) {
	for _, a := range algorithms() {
		for _, id := range a.identifiers() {
			if bytes.Equal(id, identifier) {
				return a, true
			}
		}
	}
	return algorithm{}, false
}
