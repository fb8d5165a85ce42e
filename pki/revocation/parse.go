package revocation

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"time"
)

// ErrSigner is wrapped when a list was signed by nobody who may.
var ErrSigner = errors.New("the list was signed by no CA that may")

const (
	// MaxList bounds a list that was signed elsewhere, in octets: that of a root has a line for each CA below it.
	MaxList = 256 << 10
	// listSkew is how far ahead the clock may be where a list is signed.
	listSkew = 5 * time.Minute
)

// ParseList reads the whole list of an issuer (RFC 5280 5, DER), which was signed elsewhere, and says which of the issuers that is.
// A list that is over, or that is not the whole one, is refused, and so is a hold: it would be lifted by nobody. Errors wrap
// ErrList or ErrSigner.
func ParseList(der []byte, issuers []*x509.Certificate, now time.Time) (List, *x509.Certificate, error) {
	if len(der) > MaxList {
		return List{}, nil, fmt.Errorf("%w of %d octets, more than %d", ErrList, len(der), MaxList)
	}
	parsed, err := x509.ParseRevocationList(der)
	if err != nil {
		return List{}, nil, fmt.Errorf("%w that cannot be read: %w", ErrList, err)
	}
	var issuer *x509.Certificate
	for _, c := range issuers {
		if string(c.RawSubject) == string(parsed.RawIssuer) && parsed.CheckSignatureFrom(c) == nil {
			issuer = c
		}
	}
	if issuer == nil {
		return List{}, nil, fmt.Errorf("%w of %q: %w", ErrList, parsed.Issuer, ErrSigner)
	}
	list, err := wholeList(parsed)
	switch {
	case err != nil:
	case list.ThisUpdate.After(now.Add(listSkew)):
		err = fmt.Errorf("it was made at %s, which is yet to come: compare the clocks", list.ThisUpdate.Format(time.RFC3339))
	case !now.Before(list.NextUpdate):
		err = fmt.Errorf("it ended at %s: sign another one", list.NextUpdate.Format(time.RFC3339))
	}
	if err != nil {
		return List{}, nil, fmt.Errorf("%w of %q: %w", ErrList, issuer.Subject, err)
	}
	return list, issuer, nil
}

// ReadList reads a list that ParseList took before, whoever signed it and whenever it ends. Errors wrap ErrList.
func ReadList(der []byte) (List, error) {
	parsed, err := x509.ParseRevocationList(der)
	if err != nil {
		return List{}, fmt.Errorf("%w that cannot be read: %w", ErrList, err)
	}
	list, err := wholeList(parsed)
	if err != nil {
		return List{}, fmt.Errorf("%w of %q: %w", ErrList, parsed.Issuer, err)
	}
	return list, nil
}

func wholeList(parsed *x509.RevocationList) (List, error) {
	if parsed.Number == nil || parsed.Number.Sign() <= 0 || !parsed.Number.IsInt64() {
		return List{}, fmt.Errorf("its number is %v, wanted one from 1 on of at most 63 bits (RFC 5280 5.2.3)", parsed.Number)
	}
	switch {
	case parsed.NextUpdate.IsZero():
		return List{}, errors.New("it does not say when the next one is there (nextUpdate)")
	case !parsed.ThisUpdate.Before(parsed.NextUpdate):
		return List{}, fmt.Errorf("it is good from %s, and ends at %s", parsed.ThisUpdate.UTC().Format(time.RFC3339), parsed.NextUpdate.UTC().Format(time.RFC3339))
	}
	for _, e := range parsed.Extensions {
		// All that make a list less than the whole one are critical: parts (5.2.5) and differences (5.2.4).
		if e.Critical {
			return List{}, fmt.Errorf("it has the critical extension %v, so it is not the whole list", e.Id)
		}
	}
	list := List{Number: parsed.Number.Uint64(), ThisUpdate: parsed.ThisUpdate.UTC(), NextUpdate: parsed.NextUpdate.UTC()}
	for _, e := range parsed.RevokedCertificateEntries {
		serial := e.SerialNumber
		if !IsSerial(serial) {
			return List{}, fmt.Errorf("the serial number %v is none (RFC 5280 4.1.2.2)", serial)
		}
		for _, x := range e.Extensions {
			if x.Critical {
				return List{}, fmt.Errorf("the entry of %s has the critical extension %v, so it is about another issuer", serial.Text(16), x.Id)
			}
		}
		reason := Unspecified
		if code := e.ReasonCode; code >= 0 && code <= math.MaxUint8 && reasonNames[Reason(code)] != "" {
			reason = Reason(code)
		}
		if reason == CertificateHold {
			return List{}, fmt.Errorf("%s is on hold, which is for machines: a CA is revoked or not", serial.Text(16))
		}
		list.Entries = append(list.Entries, Entry{Serial: serial, At: e.RevocationTime.UTC(), Reason: reason})
	}
	return list, nil
}
