package store

import "errors"

var (
	// ErrNotFound is wrapped when the object asked for does not exist.
	ErrNotFound = errors.New("not found")
	// ErrConflict is wrapped when something else changed the object between reading and writing: read it again.
	ErrConflict = errors.New("changed by somebody else in the meantime")
	// ErrTooLarge is wrapped when a value or a change is larger than the store takes in one transaction.
	ErrTooLarge = errors.New("too large for one transaction")
	// ErrHeld is wrapped when another controller writes below the prefix.
	ErrHeld = errors.New("held by another controller")
	// ErrNotWriter is wrapped when another controller took the store over: nothing was written, and nothing will be.
	ErrNotWriter = errors.New("another controller took the store over")
	// ErrCorrupt is wrapped when a stored value cannot be read.
	ErrCorrupt = errors.New("stored value cannot be read")
)
