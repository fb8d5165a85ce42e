package revocation

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Reason is a CRLReason (RFC 5280 5.3.1). Its value is that of the ENUMERATED there.
type Reason uint8

// The reasons that a certificate can be revoked for. removeFromCRL (8) is left out: it is for delta lists alone.
const (
	Unspecified          Reason = 0
	KeyCompromise        Reason = 1
	CACompromise         Reason = 2
	AffiliationChanged   Reason = 3
	Superseded           Reason = 4
	CessationOfOperation Reason = 5
	CertificateHold      Reason = 6
	PrivilegeWithdrawn   Reason = 9
	AACompromise         Reason = 10
)

var reasonNames = map[Reason]string{
	Unspecified: "unspecified", KeyCompromise: "keyCompromise", CACompromise: "cACompromise", AffiliationChanged: "affiliationChanged",
	Superseded: "superseded", CessationOfOperation: "cessationOfOperation", CertificateHold: "certificateHold",
	PrivilegeWithdrawn: "privilegeWithdrawn", AACompromise: "aACompromise",
}

// ErrReason is wrapped when a text names no reason.
var ErrReason = errors.New("no reason for revoking a certificate")

// String returns the name of RFC 5280.
func (r Reason) String() string {
	if name, ok := reasonNames[r]; ok {
		return name
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Reasons are the names of all reasons, in the order of their numbers.
func Reasons() []string {
	var out []string
	for r := Unspecified; r <= AACompromise; r++ {
		if name, ok := reasonNames[r]; ok {
			out = append(out, name)
		}
	}
	return out
}

// ParseReason reads the name of RFC 5280, in any case. The error wraps ErrReason.
func ParseReason(text string) (Reason, error) {
	for r, name := range reasonNames {
		if strings.EqualFold(name, text) {
			return r, nil
		}
	}
	return 0, fmt.Errorf("%q is %w; wanted one of %s", clip(text), ErrReason, strings.Join(Reasons(), ", "))
}

// BlocksKey reports whether the key of a certificate that is revoked for the reason is not to be believed in another
// certificate either. A superseded certificate may have been replaced by one with the same key.
func (r Reason) BlocksKey() bool { return r != Superseded }

// Outlives reports whether the key stays blocked when the certificate has ended: whoever has the key can ask for another
// certificate at any time.
func (r Reason) Outlives() bool {
	return slices.Contains([]Reason{KeyCompromise, CACompromise, AACompromise}, r)
}

func clip(s string) string {
	const most = 60
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
