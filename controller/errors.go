package controller

import "errors"

var (
	// ErrConfig is wrapped when the configuration is refused; nothing was started.
	ErrConfig = errors.New("invalid configuration")
	// ErrNoCA is wrapped when there is no CA yet and none was asked for.
	ErrNoCA = errors.New("there is no CA yet")
	// ErrTrustDomain is wrapped when the trust domain is unknown, or another one than the fleet was made with.
	ErrTrustDomain = errors.New("trust domain")
)
