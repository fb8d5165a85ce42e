package guard

import "errors"

// Sentinels of this package.
var (
	// ErrNothingHeld says that no change waits for release.
	ErrNothingHeld = errors.New("no directory change is held")
	// ErrOtherHeld says that the named change is not the one that waits: the directory has changed since it was shown.
	ErrOtherHeld = errors.New("another directory change is held")
	// ErrLimits says that limits make no sense.
	ErrLimits = errors.New("invalid mass-change limits")
)
