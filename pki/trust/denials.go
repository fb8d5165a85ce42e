package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/bailiwick-net/bailiwick/pki"
)

const (
	// MaxDenials bounds the machines of a set of denials.
	MaxDenials = 100_000
	// MaxDenialsSize is the largest encoded set looked at, in octets.
	MaxDenialsSize = MaxRevocationsSize + MaxDenials*18 + 64
)

const denialsFormat = 1

// Denials say whom a verifier must not believe although a root vouches for them: machines whose account in the
// directory is disabled or gone, whatever certificate they show, and what was revoked. It is immutable; the zero value
// denies nobody.
type Denials struct {
	machines map[pki.UUID]struct{}
	revoked  Revocations
}

// NewDenials makes a set. Errors wrap ErrDenials.
func NewDenials(machines []pki.UUID, revoked Revocations) (Denials, error) {
	if len(machines) > MaxDenials {
		return Denials{}, fmt.Errorf("%d denied machines, more than %d: %w", len(machines), MaxDenials, ErrDenials)
	}
	d := Denials{machines: make(map[pki.UUID]struct{}, len(machines)), revoked: revoked}
	for _, m := range machines {
		if m.IsZero() {
			return Denials{}, fmt.Errorf("denied machine with the nil UUID: %w", ErrDenials)
		}
		d.machines[m] = struct{}{}
	}
	return d, nil
}

// Machines are the denied machines in ascending order.
func (d Denials) Machines() []pki.UUID {
	out := make([]pki.UUID, 0, len(d.machines))
	for m := range d.machines {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b pki.UUID) int { return bytes.Compare(a[:], b[:]) })
	return out
}

// Revoked is what was revoked.
func (d Denials) Revoked() Revocations { return d.revoked }

// Len is the number of machines and revocations.
func (d Denials) Len() int { return len(d.machines) + d.revoked.Len() }

// check refuses a machine that is denied. A certificate without the identity URI of a machine is of nobody in the
// directory, which has no say about it.
func (d Denials) check(leaf *x509.Certificate) error {
	if len(d.machines) == 0 {
		return nil
	}
	id, err := pki.IdentityFromCertificate(leaf)
	if err != nil {
		return nil //nolint:nilerr // not a machine of the fleet
	}
	if _, denied := d.machines[id.UUID()]; denied {
		return refuse(ReasonDenied, leaf, nil, "the directory does not admit the machine %v: its account is disabled or gone", id)
	}
	return nil
}

// Digest names the set. The error is that of Append.
func (d Denials) Digest() (Digest, error) {
	der, err := d.Append(nil)
	if err != nil {
		return Digest{}, err
	}
	return sha256.Sum256(der), nil
}

// Append appends the DER encoding:
//
//	SEQUENCE {
//	    INTEGER                     1, the format
//	    SEQUENCE OF OCTET STRING    UUIDs of machines, ascending
//	    Revocations                 as Revocations.Append writes them
//	}
func (d Denials) Append(dst []byte) ([]byte, error) {
	revoked, err := d.revoked.Append(nil)
	if err != nil {
		return nil, err
	}
	out := cryptobyte.NewBuilder(dst)
	out.AddASN1(cryptobyte_asn1.SEQUENCE, func(seq *cryptobyte.Builder) {
		seq.AddASN1Uint64(denialsFormat)
		seq.AddASN1(cryptobyte_asn1.SEQUENCE, func(list *cryptobyte.Builder) {
			for _, m := range d.Machines() {
				list.AddASN1OctetString(m[:])
			}
		})
		seq.AddBytes(revoked)
	})
	der, err := out.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding denials: %w: %w", ErrDenials, err)
	}
	return der, nil
}

// ParseDenials reads the encoding of Append, and nothing but the canonical encoding. Errors wrap ErrDenials.
func ParseDenials(der []byte) (Denials, error) {
	if len(der) > MaxDenialsSize {
		return Denials{}, fmt.Errorf("denials of %d octets, more than %d: %w", len(der), MaxDenialsSize, ErrDenials)
	}
	input := cryptobyte.String(der)
	var seq, list, revoked cryptobyte.String
	var format uint64
	if !input.ReadASN1(&seq, cryptobyte_asn1.SEQUENCE) || !input.Empty() || !seq.ReadASN1Integer(&format) {
		return Denials{}, fmt.Errorf("denials are not one DER sequence that begins with a format: %w", ErrDenials)
	}
	if format != denialsFormat {
		return Denials{}, fmt.Errorf("denials of the format %d, this version reads %d: %w", format, denialsFormat, ErrDenials)
	}
	if !seq.ReadASN1(&list, cryptobyte_asn1.SEQUENCE) || !seq.ReadASN1Element(&revoked, cryptobyte_asn1.SEQUENCE) || !seq.Empty() {
		return Denials{}, fmt.Errorf("denials are not a list of machines and revocations: %w", ErrDenials)
	}
	var machines []pki.UUID
	for !list.Empty() {
		var m []byte
		if !list.ReadASN1Bytes(&m, cryptobyte_asn1.OCTET_STRING) || len(m) != len(pki.UUID{}) {
			return Denials{}, fmt.Errorf("denied machine %d is not a UUID: %w", len(machines)+1, ErrDenials)
		}
		if last := len(machines) - 1; last >= 0 && bytes.Compare(machines[last][:], m) >= 0 {
			return Denials{}, fmt.Errorf("denied machine %d is not in ascending order: %w", len(machines)+1, ErrDenials)
		}
		machines = append(machines, pki.UUID(m))
	}
	r, err := ParseRevocations(revoked)
	if err != nil {
		return Denials{}, fmt.Errorf("%w: %w", ErrDenials, err)
	}
	return NewDenials(machines, r)
}
