package pki

import "errors"

var (
	// ErrName is wrapped by every error about a name that is not in the form that this package accepts.
	ErrName = errors.New("invalid name")
	// ErrIdentity is wrapped when a certificate does not carry exactly the names of one identity.
	ErrIdentity = errors.New("certificate does not state one identity of the fleet")
	// ErrIKEIDMismatch is wrapped when an IKE ID is not among the names of the certificate that came with it.
	ErrIKEIDMismatch = errors.New("IKE ID is not a name of the certificate")
	// ErrIKEIDType is wrapped when an IKE ID is of a type that is never bound to a certificate.
	ErrIKEIDType = errors.New("IKE ID type cannot be bound to a certificate")
	// ErrKey is wrapped when a public key is of a kind or size that the fleet does not accept.
	ErrKey = errors.New("public key not accepted")
)
