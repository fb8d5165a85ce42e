package trust

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// Reason is why a chain was refused.
type Reason uint8

// The reasons. The zero value is no reason and never leaves the package.
const (
	ReasonMalformed     Reason = iota + 1 // not a certificate, or a certificate with contents that cannot be accepted
	ReasonLimit                           // too many certificates, or too large ones
	ReasonWeakKey                         // a key of a kind or size that is not accepted
	ReasonUnknownIssuer                   // no path to a root of the bundle: a foreign or forged certificate
	ReasonExpired                         // the clock is past notAfter
	ReasonNotYetValid                     // the clock is before notBefore
	ReasonWrongUsage                      // the certificate, or an issuer, may not be used for this
	ReasonRevoked                         // the certificate, or an issuer, is in the set of revocations
	ReasonNameMismatch                    // a valid certificate, but of somebody else
	ReasonDenied                          // a valid certificate of a machine that the directory does not admit
)

var reasonNames = [...]string{
	ReasonMalformed: "malformed", ReasonLimit: "over limit", ReasonWeakKey: "key not accepted",
	ReasonUnknownIssuer: "unknown issuer", ReasonExpired: "expired", ReasonNotYetValid: "not yet valid",
	ReasonWrongUsage: "wrong usage", ReasonRevoked: "revoked", ReasonNameMismatch: "name mismatch",
	ReasonDenied: "machine not admitted",
}

// String returns the reason in a few words, fit for a metric label.
func (r Reason) String() string {
	if int(r) < len(reasonNames) && reasonNames[r] != "" {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Error is a refusal. Reason and the fields below it are for programs; Error says the same to people.
type Error struct {
	Reason Reason
	// Subject and Serial are of the certificate at fault, which may be an issuer. Empty where none was parsed.
	Subject string
	Serial  string
	// Now is the clock that the validity was held against; NotBefore and NotAfter are the validity. All are zero
	// unless Reason is ReasonExpired or ReasonNotYetValid.
	Now, NotBefore, NotAfter time.Time

	detail string
	cause  error
}

// Error says which certificate was refused, why, and what to look at.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Subject != "" {
		fmt.Fprintf(&b, "certificate of %q (serial %s) ", e.Subject, e.Serial)
	} else {
		b.WriteString("certificate ")
	}
	b.WriteString("refused, ")
	b.WriteString(e.Reason.String())
	b.WriteString(": ")
	b.WriteString(e.detail)
	if e.cause != nil {
		b.WriteString(": ")
		b.WriteString(e.cause.Error())
	}
	return b.String()
}

// Unwrap returns the error that led to the refusal, if there was one.
func (e *Error) Unwrap() error { return e.cause }

// ReasonOf returns the reason of a refusal anywhere in err's chain.
func ReasonOf(err error) (Reason, bool) {
	var refusal *Error
	if errors.As(err, &refusal) {
		return refusal.Reason, true
	}
	return 0, false
}

var (
	// ErrBundle is wrapped by every error about a trust bundle that cannot be made or read.
	ErrBundle = errors.New("invalid trust bundle")
	// ErrRevocations is wrapped by every error about a set of revocations that cannot be read.
	ErrRevocations = errors.New("invalid set of revocations")
	// ErrDenials is wrapped by every error about a set of denials that cannot be made or read.
	ErrDenials = errors.New("invalid set of denials")
	// ErrGroups is wrapped by every error about a set of groups that cannot be made or read.
	ErrGroups = errors.New("invalid set of groups")
	// ErrOptions is wrapped when Verify is asked for a verdict without saying for what.
	ErrOptions = errors.New("verification options incomplete")
)

func refuse(reason Reason, cert *x509.Certificate, cause error, format string, args ...any) *Error {
	e := &Error{Reason: reason, detail: fmt.Sprintf(format, args...), cause: cause}
	if cert != nil {
		e.Subject, e.Serial = subjectOf(cert), serialText(cert.SerialNumber)
	}
	return e
}

func serialText(serial *big.Int) string {
	if serial == nil {
		return "none"
	}
	return serial.Text(16)
}

// subjectOf names a certificate for people, bounded: the contents may be a stranger's.
func subjectOf(cert *x509.Certificate) string {
	s := cert.Subject.String()
	if s == "" && len(cert.DNSNames) > 0 {
		s = cert.DNSNames[0]
	}
	const most = 120
	if len(s) > most {
		s = s[:most] + "..."
	}
	return s
}

// refuseTime explains a validity problem with both clocks: the caller's, and the issuer's as the certificate shows it.
func refuseTime(now time.Time, cert *x509.Certificate) *Error {
	now = now.UTC()
	reason, edge, gap := ReasonExpired, "expired", now.Sub(cert.NotAfter)
	clocks := "renew it; or, if this clock is wrong, set it"
	if now.Before(cert.NotBefore) {
		reason, edge, gap = ReasonNotYetValid, "becomes valid", cert.NotBefore.Sub(now)
		clocks = "one of the two clocks, this one or that of the issuer, is wrong: set it"
	}
	e := refuse(reason, cert, nil, "this clock says %s, the issuer's clock gave it the validity %s to %s; it %s %s %s; %s",
		now.Format(time.RFC3339), cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339),
		edge, duration(gap), map[bool]string{true: "later", false: "ago"}[reason == ReasonNotYetValid], clocks)
	e.Now, e.NotBefore, e.NotAfter = now, cert.NotBefore, cert.NotAfter
	return e
}

// duration writes long spans in days, which is how people think of validity.
func duration(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.Round(time.Second).String()
}
