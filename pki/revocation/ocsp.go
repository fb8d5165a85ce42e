package revocation

import (
	"crypto"
	_ "crypto/sha1" // names of certificates in requests; nothing is signed with it
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The limits of a request.
const (
	// MaxRequest is its size in octets.
	MaxRequest = 4096
	// MaxRequests is how many certificates it asks for.
	MaxRequests = 16
	// MaxNonce is the size of a nonce in octets (RFC 9654 2.1).
	MaxNonce = 128
)

// ErrRequest is wrapped when an OCSP request cannot be read.
var ErrRequest = errors.New("malformed OCSP request")

// CertID names a certificate (RFC 6960 4.1.1).
type CertID struct {
	// Hash is what the issuer is named with.
	Hash                  crypto.Hash
	IssuerName, IssuerKey []byte
	Serial                *big.Int
	raw                   []byte // as it was asked: a response repeats it
}

// Request is an OCSP request.
type Request struct {
	Certificates []CertID
	// Nonce is the value of the extension, nil without one.
	Nonce []byte
}

var (
	oidNonce   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	oidHashes  = map[string]crypto.Hash{"1.3.14.3.2.26": crypto.SHA1, "2.16.840.1.101.3.4.2.1": crypto.SHA256, "2.16.840.1.101.3.4.2.2": crypto.SHA384, "2.16.840.1.101.3.4.2.3": crypto.SHA512}
	oidBasic   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	tagContext = func(n uint8) cryptobyte_asn1.Tag { return cryptobyte_asn1.Tag(n).ContextSpecific().Constructed() }
)

// ParseRequest reads a request (RFC 6960 4.1.1). A signature of the requester is not looked at. Errors wrap ErrRequest.
func ParseRequest(der []byte) (Request, error) {
	if len(der) > MaxRequest {
		return Request{}, fmt.Errorf("%d octets, more than %d: %w", len(der), MaxRequest, ErrRequest)
	}
	input := cryptobyte.String(der)
	var request, tbs, list cryptobyte.String
	if !input.ReadASN1(&request, cryptobyte_asn1.SEQUENCE) || !input.Empty() || !request.ReadASN1(&tbs, cryptobyte_asn1.SEQUENCE) ||
		!request.SkipOptionalASN1(tagContext(0)) || !request.Empty() {
		return Request{}, fmt.Errorf("not a sequence with the parts of a request: %w", ErrRequest)
	}
	var extensions cryptobyte.String
	var extended bool
	if !tbs.SkipOptionalASN1(tagContext(0)) || !tbs.SkipOptionalASN1(tagContext(1)) || !tbs.ReadASN1(&list, cryptobyte_asn1.SEQUENCE) ||
		!tbs.ReadOptionalASN1(&extensions, &extended, tagContext(2)) || !tbs.Empty() {
		return Request{}, fmt.Errorf("not the parts of what is to be signed: %w", ErrRequest)
	}
	var out Request
	for !list.Empty() {
		if len(out.Certificates) == MaxRequests {
			return Request{}, fmt.Errorf("more than %d certificates: %w", MaxRequests, ErrRequest)
		}
		var single cryptobyte.String
		if !list.ReadASN1(&single, cryptobyte_asn1.SEQUENCE) {
			return Request{}, fmt.Errorf("certificate %d is not a sequence: %w", len(out.Certificates)+1, ErrRequest)
		}
		id, err := parseCertID(&single)
		if err != nil {
			return Request{}, fmt.Errorf("certificate %d: %w", len(out.Certificates)+1, err)
		}
		if !single.SkipOptionalASN1(tagContext(0)) || !single.Empty() {
			return Request{}, fmt.Errorf("certificate %d has more than a name: %w", len(out.Certificates)+1, ErrRequest)
		}
		out.Certificates = append(out.Certificates, id)
	}
	if len(out.Certificates) == 0 {
		return Request{}, fmt.Errorf("no certificate is asked for: %w", ErrRequest)
	}
	if extended {
		var err error
		if out.Nonce, err = parseNonce(extensions); err != nil {
			return Request{}, err
		}
	}
	return out, nil
}

func parseCertID(in *cryptobyte.String) (CertID, error) {
	var raw, id, algorithm cryptobyte.String
	var oid asn1.ObjectIdentifier
	c := CertID{Serial: new(big.Int)}
	if !in.ReadASN1Element(&raw, cryptobyte_asn1.SEQUENCE) {
		return CertID{}, fmt.Errorf("no name of a certificate: %w", ErrRequest)
	}
	c.raw = raw
	if !raw.ReadASN1(&id, cryptobyte_asn1.SEQUENCE) || !id.ReadASN1(&algorithm, cryptobyte_asn1.SEQUENCE) || !algorithm.ReadASN1ObjectIdentifier(&oid) ||
		!id.ReadASN1Bytes(&c.IssuerName, cryptobyte_asn1.OCTET_STRING) || !id.ReadASN1Bytes(&c.IssuerKey, cryptobyte_asn1.OCTET_STRING) ||
		!id.ReadASN1Integer(c.Serial) || !id.Empty() {
		return CertID{}, fmt.Errorf("the name of a certificate has other parts than RFC 6960 4.1.1 gives it: %w", ErrRequest)
	}
	c.Hash = oidHashes[oid.String()] // 0 for one that we do not know: no issuer matches
	return c, nil
}

// parseNonce looks for the nonce among extensions. Others are not critical for an answer, or are not understood: RFC 6960
// 4.4 defines none that a responder must obey.
func parseNonce(wrapped cryptobyte.String) ([]byte, error) {
	var extensions cryptobyte.String
	if !wrapped.ReadASN1(&extensions, cryptobyte_asn1.SEQUENCE) || !wrapped.Empty() {
		return nil, fmt.Errorf("extensions are not a sequence: %w", ErrRequest)
	}
	var nonce []byte
	for !extensions.Empty() {
		var extension, value cryptobyte.String
		var oid asn1.ObjectIdentifier
		var critical bool
		if !extensions.ReadASN1(&extension, cryptobyte_asn1.SEQUENCE) || !extension.ReadASN1ObjectIdentifier(&oid) ||
			!extension.ReadOptionalASN1Boolean(&critical, cryptobyte_asn1.BOOLEAN, false) ||
			!extension.ReadASN1(&value, cryptobyte_asn1.OCTET_STRING) || !extension.Empty() {
			return nil, fmt.Errorf("extension cannot be read: %w", ErrRequest)
		}
		switch {
		case oid.Equal(oidNonce):
			var octets []byte
			if nonce != nil || !value.ReadASN1Bytes(&octets, cryptobyte_asn1.OCTET_STRING) || !value.Empty() || len(octets) == 0 || len(octets) > MaxNonce {
				return nil, fmt.Errorf("nonce is not one octet string of 1 to %d octets (RFC 9654 2.1): %w", MaxNonce, ErrRequest)
			}
			nonce = octets
		case critical:
			return nil, fmt.Errorf("critical extension %v is not understood: %w", oid, ErrRequest)
		}
	}
	return nonce, nil
}

// Matches reports whether the certificate is one of the issuer.
func (c CertID) Matches(issuer *x509.Certificate) bool {
	if c.Hash == 0 {
		return false
	}
	var info struct {
		Algorithm cryptobyte.String
		Key       asn1.BitString
	}
	spki := cryptobyte.String(issuer.RawSubjectPublicKeyInfo)
	var seq cryptobyte.String
	if !spki.ReadASN1(&seq, cryptobyte_asn1.SEQUENCE) || !seq.ReadASN1(&info.Algorithm, cryptobyte_asn1.SEQUENCE) || !seq.ReadASN1BitString(&info.Key) {
		return false
	}
	return string(c.sum(issuer.RawSubject)) == string(c.IssuerName) && string(c.sum(info.Key.RightAlign())) == string(c.IssuerKey)
}

func (c CertID) sum(octets []byte) []byte {
	h := c.Hash.New()
	h.Write(octets)
	return h.Sum(nil)
}
