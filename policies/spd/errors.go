package spd

import (
	"errors"
	"fmt"
)

var (
	// ErrPolicy is wrapped by every error about a policy that cannot be put into force.
	ErrPolicy = errors.New("invalid policy")
	// ErrFacts is wrapped by every error about facts that a policy cannot be expanded with.
	ErrFacts = errors.New("invalid facts of the machine")
	// ErrUnresolved is wrapped, beside ErrFacts, when a DNS name has no addresses yet.
	ErrUnresolved = fmt.Errorf("%w: a DNS name is not resolved", ErrFacts)
)
