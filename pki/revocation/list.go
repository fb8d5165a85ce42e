package revocation

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ErrList is wrapped when a list cannot be made.
var ErrList = errors.New("certificate revocation list")

// Entry is one revoked certificate in a list.
type Entry struct {
	Serial *big.Int
	At     time.Time
	Reason Reason
}

// List is what a certificate revocation list says (RFC 5280 5).
type List struct {
	// Number grows with every list of the issuer (RFC 5280 5.2.3).
	Number uint64
	// ThisUpdate is when it is made, NextUpdate when the next one is there at the latest.
	ThisUpdate, NextUpdate time.Time
	Entries                []Entry
	// DistributionPoint, where not empty, is where the list is, and says that it holds only revocations of certificates
	// that name this place.
	DistributionPoint string
}

var oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}

// Template is the list as crypto/x509 signs it, which adds the authority key identifier. Errors wrap ErrList.
func (l List) Template() (*x509.RevocationList, error) {
	if l.Number == 0 || !l.ThisUpdate.Before(l.NextUpdate) {
		return nil, fmt.Errorf("%w with the number %d, good from %v to %v", ErrList, l.Number, l.ThisUpdate, l.NextUpdate)
	}
	t := &x509.RevocationList{
		Number:     new(big.Int).SetUint64(l.Number),
		ThisUpdate: l.ThisUpdate.UTC().Truncate(time.Second), NextUpdate: l.NextUpdate.UTC().Truncate(time.Second),
	}
	for _, e := range l.Entries {
		if e.Serial == nil || e.Serial.Sign() <= 0 {
			return nil, fmt.Errorf("%w: an entry has no serial number", ErrList)
		}
		// The code 0 leaves the extension out, as RFC 5280 5.3.1 wants for unspecified.
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: e.Serial, RevocationTime: e.At.UTC().Truncate(time.Second), ReasonCode: int(e.Reason),
		})
	}
	slices.SortFunc(t.RevokedCertificateEntries, func(a, b x509.RevocationListEntry) int {
		return bytes.Compare(a.SerialNumber.Bytes(), b.SerialNumber.Bytes())
	})
	if l.DistributionPoint != "" {
		value, err := issuingDistributionPoint(l.DistributionPoint)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrList, err)
		}
		t.ExtraExtensions = []pkix.Extension{{Id: oidIssuingDistributionPoint, Critical: true, Value: value}}
	}
	return t, nil
}

// issuingDistributionPoint is the extension of RFC 5280 5.2.5 with a full name and nothing else:
//
//	SEQUENCE { distributionPoint [0] { fullName [0] { uniformResourceIdentifier [6] } } }
func issuingDistributionPoint(uri string) ([]byte, error) {
	var b cryptobyte.Builder
	context := func(n uint8) cryptobyte_asn1.Tag { return cryptobyte_asn1.Tag(n).ContextSpecific().Constructed() }
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(context(0), func(b *cryptobyte.Builder) {
			b.AddASN1(context(0), func(b *cryptobyte.Builder) {
				b.AddASN1(cryptobyte_asn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(uri)) })
			})
		})
	})
	return b.Bytes()
}
