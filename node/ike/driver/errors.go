package driver

import "errors"

var (
	// ErrStopped means that the driver has ended, or was never run to the end of the context.
	ErrStopped = errors.New("the IKE driver has stopped")
	// ErrConfig means that a required field of Config is missing.
	ErrConfig = errors.New("the configuration of the IKE driver is not complete")
	errNoKey  = errors.New("this machine has no private key")
)
