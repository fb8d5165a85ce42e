package revocation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Failure is an OCSP response without an answer (RFC 6960 4.2.1). Its value is that of the ENUMERATED there.
type Failure uint8

// The failures that the responder has.
const (
	MalformedRequest Failure = 1
	InternalError    Failure = 2
	TryLater         Failure = 3
	Unauthorized     Failure = 6 // the responder does not speak for the issuer
)

// Append appends the response, which is not signed.
func (f Failure) Append(dst []byte) []byte {
	// SEQUENCE { ENUMERATED }
	return append(dst, 0x30, 0x03, 0x0a, 0x01, byte(f))
}

// State is what a response says of a certificate.
type State uint8

// The states. The zero value is unknown.
const (
	Unknown State = iota // never issued, or so long ago that nothing is known of it
	Good
	Revoked
)

// Single is the answer about one certificate.
type Single struct {
	ID    CertID
	State State
	// At and Reason are for Revoked.
	At     time.Time
	Reason Reason
}

// Response is what a signed response says.
type Response struct {
	Answers []Single
	Nonce   []byte
	// ProducedAt is now; ThisUpdate is when the answers were known to be right, NextUpdate when to ask again.
	ProducedAt, ThisUpdate, NextUpdate time.Time
}

// ErrResponse is wrapped when a response cannot be made.
var ErrResponse = errors.New("OCSP response")

// generalized is GeneralizedTime as RFC 5280 4.1.2.5.2 writes it.
func generalized(b *cryptobyte.Builder, t time.Time) {
	b.AddASN1(cryptobyte_asn1.GeneralizedTime, func(b *cryptobyte.Builder) {
		b.AddBytes([]byte(t.UTC().Format("20060102150405Z")))
	})
}

// Sign makes the response with the key of the responder's certificate, which goes along. The key is ECDSA on P-256.
// Errors wrap ErrResponse.
func (r Response) Sign(rand io.Reader, responder *x509.Certificate, key crypto.Signer) ([]byte, error) {
	if public, ok := key.Public().(*ecdsa.PublicKey); !ok || public.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: the responder's key is a %T, wanted ECDSA on P-256", ErrResponse, key.Public())
	}
	if len(r.Answers) == 0 || len(r.Answers) > MaxRequests {
		return nil, fmt.Errorf("%w: %d answers, wanted 1 to %d", ErrResponse, len(r.Answers), MaxRequests)
	}
	data, err := r.data(responder)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(data)
	signature, err := key.Sign(rand, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signing: %w: %w", ErrResponse, err)
	}
	var b cryptobyte.Builder
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) { // BasicOCSPResponse
		b.AddBytes(data)
		b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}) // ecdsa-with-SHA256, RFC 5758 3.2
		})
		b.AddASN1BitString(signature)
		b.AddASN1(tagContext(0), func(b *cryptobyte.Builder) {
			b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(responder.Raw) })
		})
	})
	basic, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrResponse, err)
	}
	var out cryptobyte.Builder
	out.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) { // OCSPResponse
		b.AddASN1Enum(0) // successful
		b.AddASN1(tagContext(0), func(b *cryptobyte.Builder) {
			b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidBasic)
				b.AddASN1OctetString(basic)
			})
		})
	})
	return out.Bytes()
}

// data is the ResponseData: the octets to be signed.
func (r Response) data(responder *x509.Certificate) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tagContext(1), func(b *cryptobyte.Builder) { b.AddBytes(responder.RawSubject) }) // byName
		generalized(b, r.ProducedAt)
		b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, s := range r.Answers {
				b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) { r.single(b, s) })
			}
		})
		if len(r.Nonce) > 0 {
			b.AddASN1(tagContext(1), func(b *cryptobyte.Builder) {
				b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(oidNonce)
						b.AddASN1(cryptobyte_asn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddASN1OctetString(r.Nonce) })
					})
				})
			})
		}
	})
	data, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrResponse, err)
	}
	return data, nil
}

func (r Response) single(b *cryptobyte.Builder, s Single) {
	b.AddBytes(s.ID.raw)
	switch s.State {
	case Good:
		b.AddASN1(cryptobyte_asn1.Tag(0).ContextSpecific(), func(*cryptobyte.Builder) {})
	case Revoked:
		b.AddASN1(tagContext(1), func(b *cryptobyte.Builder) {
			generalized(b, s.At)
			if s.Reason != Unspecified {
				b.AddASN1(tagContext(0), func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(s.Reason)) })
			}
		})
	case Unknown:
		b.AddASN1(cryptobyte_asn1.Tag(2).ContextSpecific(), func(*cryptobyte.Builder) {})
	}
	generalized(b, r.ThisUpdate)
	b.AddASN1(tagContext(0), func(b *cryptobyte.Builder) { generalized(b, r.NextUpdate) })
}
