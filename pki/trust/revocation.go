package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/bailiwick-net/bailiwick/pki"
)

// The limits of a set of revocations. Certificates live for weeks, so a set holds what was revoked in that time.
const (
	MaxRevocations     = 100_000
	MaxRevocationsSize = 8 << 20 // octets, encoded
)

// maxSerial is the longest serial number, in octets (RFC 5280 4.1.2.2).
const maxSerial = 20

const revocationsFormat = 1

// Serial is one revoked certificate: the key that issued it and the serial number that this key gave it.
type Serial struct {
	Issuer pki.KeyID
	number string // big-endian, without leading zeros: comparable, and one spelling per number
}

// NewSerial names a certificate. The number must be positive and of at most 20 octets. Errors wrap ErrRevocations.
func NewSerial(issuer pki.KeyID, number *big.Int) (Serial, error) {
	if number == nil || number.Sign() <= 0 || len(number.Bytes()) > maxSerial {
		return Serial{}, fmt.Errorf("serial number %s is not positive and of at most %d octets: %w", serialText(number), maxSerial, ErrRevocations)
	}
	return Serial{issuer, string(number.Bytes())}, nil
}

// Number is the serial number.
func (s Serial) Number() *big.Int { return new(big.Int).SetBytes([]byte(s.number)) }

func compareSerials(a, b Serial) int {
	if c := bytes.Compare(a.Issuer[:], b.Issuer[:]); c != 0 {
		return c
	}
	return a.Number().Cmp(b.Number())
}

func compareKeys(a, b pki.KeyID) int { return bytes.Compare(a[:], b[:]) }

// Revocations is a set of certificates that must not be believed any more, named by issuer key and serial number, and
// of keys that must not be believed whatever certificate they come in. It is immutable; the zero value is the empty set.
type Revocations struct {
	revision uint64
	serials  map[Serial]struct{}
	keys     map[pki.KeyID]struct{}
}

// NewRevocations makes a set. revision is the writer's number for it, higher for newer. Errors wrap ErrRevocations.
func NewRevocations(revision uint64, serials []Serial, keys []pki.KeyID) (Revocations, error) {
	if n := len(serials) + len(keys); n > MaxRevocations {
		return Revocations{}, fmt.Errorf("%d revocations, more than %d: %w", n, MaxRevocations, ErrRevocations)
	}
	r := Revocations{revision, make(map[Serial]struct{}, len(serials)), make(map[pki.KeyID]struct{}, len(keys))}
	for _, s := range serials {
		if s.number == "" {
			return Revocations{}, fmt.Errorf("revocation without a serial number: %w", ErrRevocations)
		}
		r.serials[s] = struct{}{}
	}
	for _, k := range keys {
		r.keys[k] = struct{}{}
	}
	return r, nil
}

// Revision is the writer's number for the set.
func (r Revocations) Revision() uint64 { return r.revision }

// Len is the number of revocations.
func (r Revocations) Len() int { return len(r.serials) + len(r.keys) }

// Serials are the revoked certificates in canonical order.
func (r Revocations) Serials() []Serial {
	out := make([]Serial, 0, len(r.serials))
	for s := range r.serials {
		out = append(out, s)
	}
	slices.SortFunc(out, compareSerials)
	return out
}

// Keys are the revoked keys in canonical order.
func (r Revocations) Keys() []pki.KeyID {
	out := make([]pki.KeyID, 0, len(r.keys))
	for k := range r.keys {
		out = append(out, k)
	}
	slices.SortFunc(out, compareKeys)
	return out
}

// CheckPath refuses a path that was verified before, leaf first and root last, if any certificate below the root is revoked
// meanwhile. A refusal is an *Error.
func (r Revocations) CheckPath(path []*x509.Certificate) error {
	for i := range len(path) - 1 {
		if err := r.check(path[i], path[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// HasKey reports whether a key is revoked, whatever certificate it comes in.
func (r Revocations) HasKey(key pki.KeyID) bool {
	_, ok := r.keys[key]
	return ok
}

// check refuses a certificate that was revoked, given the certificate that verified it.
func (r Revocations) check(cert, issuer *x509.Certificate) error {
	if r.Len() == 0 {
		return nil
	}
	key, err := pki.KeyIDOf(cert.PublicKey)
	if err != nil {
		return refuse(ReasonWeakKey, cert, err, "its key cannot be named")
	}
	if _, ok := r.keys[key]; ok {
		return refuse(ReasonRevoked, cert, nil, "its key %s is revoked (revision %d of the revocations)", key, r.revision)
	}
	// The issuer is the key that verified the signature, not what the certificate claims in its extensions.
	issuerKey, err := pki.KeyIDOf(issuer.PublicKey)
	if err != nil {
		return refuse(ReasonWeakKey, issuer, err, "its key cannot be named")
	}
	serial, err := NewSerial(issuerKey, cert.SerialNumber)
	if err != nil {
		return refuse(ReasonMalformed, cert, err, "its serial number cannot be looked up")
	}
	if _, ok := r.serials[serial]; ok {
		return refuse(ReasonRevoked, cert, nil, "its serial number is revoked (revision %d of the revocations)", r.revision)
	}
	return nil
}

// Digest names the set: its members and its revision.
func (r Revocations) Digest() (Digest, error) {
	der, err := r.Append(nil)
	if err != nil {
		return Digest{}, err
	}
	return sha256.Sum256(der), nil
}

// Append appends the DER encoding:
//
//	SEQUENCE {
//	    INTEGER                                          1, the format
//	    INTEGER                                          revision
//	    SEQUENCE OF SEQUENCE { OCTET STRING issuer key, INTEGER serial }    ascending
//	    SEQUENCE OF OCTET STRING                         keys, ascending
//	}
func (r Revocations) Append(dst []byte) ([]byte, error) {
	out := cryptobyte.NewBuilder(dst)
	out.AddASN1(cryptobyte_asn1.SEQUENCE, func(seq *cryptobyte.Builder) {
		seq.AddASN1Uint64(revocationsFormat)
		seq.AddASN1Uint64(r.revision)
		seq.AddASN1(cryptobyte_asn1.SEQUENCE, func(list *cryptobyte.Builder) {
			for _, s := range r.Serials() {
				list.AddASN1(cryptobyte_asn1.SEQUENCE, func(entry *cryptobyte.Builder) {
					entry.AddASN1OctetString(s.Issuer[:])
					entry.AddASN1BigInt(s.Number())
				})
			}
		})
		seq.AddASN1(cryptobyte_asn1.SEQUENCE, func(list *cryptobyte.Builder) {
			for _, k := range r.Keys() {
				list.AddASN1OctetString(k[:])
			}
		})
	})
	der, err := out.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding revocations: %w: %w", ErrRevocations, err)
	}
	return der, nil
}

// ParseRevocations reads the encoding of Append, and nothing but the canonical encoding. Errors wrap ErrRevocations.
func ParseRevocations(der []byte) (Revocations, error) {
	if len(der) > MaxRevocationsSize {
		return Revocations{}, fmt.Errorf("revocations of %d octets, more than %d: %w", len(der), MaxRevocationsSize, ErrRevocations)
	}
	revision, serialSeq, keySeq, err := readLists(der, revocationsFormat)
	if err != nil {
		return Revocations{}, fmt.Errorf("revocations: %w: %w", err, ErrRevocations)
	}
	serials, err := readSerials(serialSeq)
	if err != nil {
		return Revocations{}, err
	}
	keys, err := readKeys(keySeq)
	if err != nil {
		return Revocations{}, err
	}
	return NewRevocations(revision, serials, keys)
}

func readSerials(list cryptobyte.String) ([]Serial, error) {
	var out []Serial
	for !list.Empty() {
		var entry cryptobyte.String
		var issuer []byte
		number := new(big.Int)
		if !list.ReadASN1(&entry, cryptobyte_asn1.SEQUENCE) || !entry.ReadASN1Bytes(&issuer, cryptobyte_asn1.OCTET_STRING) ||
			len(issuer) != len(pki.KeyID{}) || !entry.ReadASN1Integer(number) || !entry.Empty() {
			return nil, fmt.Errorf("revocation %d is not an issuer key and a serial number: %w", len(out)+1, ErrRevocations)
		}
		s, err := NewSerial(pki.KeyID(issuer), number)
		if err != nil {
			return nil, fmt.Errorf("revocation %d: %w", len(out)+1, err)
		}
		if len(out) > 0 && compareSerials(out[len(out)-1], s) >= 0 {
			return nil, fmt.Errorf("revocation %d is not in ascending order: %w", len(out)+1, ErrRevocations)
		}
		out = append(out, s)
	}
	return out, nil
}

func readKeys(list cryptobyte.String) ([]pki.KeyID, error) {
	var out []pki.KeyID
	for !list.Empty() {
		var key []byte
		if !list.ReadASN1Bytes(&key, cryptobyte_asn1.OCTET_STRING) || len(key) != len(pki.KeyID{}) {
			return nil, fmt.Errorf("revoked key %d is not a key id: %w", len(out)+1, ErrRevocations)
		}
		k := pki.KeyID(key)
		if len(out) > 0 && compareKeys(out[len(out)-1], k) >= 0 {
			return nil, fmt.Errorf("revoked key %d is not in ascending order: %w", len(out)+1, ErrRevocations)
		}
		out = append(out, k)
	}
	return out, nil
}
