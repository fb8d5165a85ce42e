package spd

import "errors"

var (
	// ErrPolicy is wrapped by every error about a policy that cannot be put into force.
	ErrPolicy = errors.New("invalid policy")
	// ErrFacts is wrapped by every error about facts that a policy cannot be expanded with.
	ErrFacts = errors.New("invalid facts of the machine")
)
