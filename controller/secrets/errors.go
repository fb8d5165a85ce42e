package secrets

import "errors"

var (
	// ErrKey is wrapped when the file of the key that seals the secrets cannot be used.
	ErrKey = errors.New("key of the secrets not usable")
	// ErrLocked is wrapped when the file of the key is missing although the store holds secrets sealed with it.
	ErrLocked = errors.New("the key of the secrets is missing")
	// ErrUnreadable is wrapped when a stored secret cannot be opened.
	ErrUnreadable = errors.New("secret cannot be opened")
	// ErrNotFound is wrapped when there is no secret of a name.
	ErrNotFound = errors.New("there is no such secret")
	// ErrOverlap is wrapped when the time for which the old value shall be accepted is out of range.
	ErrOverlap = errors.New("overlap out of range")
)
