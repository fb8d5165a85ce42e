package enroll

import "errors"

var (
	// ErrRequest is wrapped by every error about a certificate request that is malformed, unsigned or asks too much.
	ErrRequest = errors.New("invalid certificate request")
	// ErrNameMismatch is wrapped when a request states the name of somebody else.
	ErrNameMismatch = errors.New("certificate request states another name")
	// ErrTokenFormat is wrapped when a text is not a join token, or a mistyped one.
	ErrTokenFormat = errors.New("not a valid join token")
	// ErrTokenUnknown is wrapped when the controller knows no such token, or its secret is another.
	ErrTokenUnknown = errors.New("join token is not known")
	// ErrTokenExpired is wrapped when a token is presented after its end.
	ErrTokenExpired = errors.New("join token has expired")
	// ErrTokenUsed is wrapped when a token is presented a second time.
	ErrTokenUsed = errors.New("join token was used before")
)
