package proposal

import (
	"errors"
	"fmt"
)

var (
	// ErrOffer is wrapped by every error about an offer that is not negotiated.
	ErrOffer = errors.New("invalid offer")
	// ErrLegacy is wrapped, beside ErrOffer, when an offer names an algorithm that is understood and never negotiated.
	ErrLegacy = errors.New("never negotiated")
)

// A SyntaxError tells what is wrong with the text of an offer. It wraps ErrOffer, and ErrLegacy where it applies.
type SyntaxError struct {
	Text   string // the whole offer as it was written
	Reason string
	Legacy bool
}

// Error quotes the offer and gives the reason.
func (e *SyntaxError) Error() string { return fmt.Sprintf("offer %q: %s", e.Text, e.Reason) }

// Unwrap returns the sentinels.
func (e *SyntaxError) Unwrap() []error {
	if e.Legacy {
		return []error{ErrOffer, ErrLegacy}
	}
	return []error{ErrOffer}
}
