package transport

import "errors"

// Errors.
var (
	ErrClosed     = errors.New("sockets are closed")
	ErrWouldBlock = errors.New("nothing to receive now")
	ErrTooBig     = errors.New("packet is longer than the path MTU")
	ErrDropped    = errors.New("socket buffer is full, packet dropped")
	// ErrNoSocket means that no socket of the address family, port or protocol is open.
	ErrNoSocket = errors.New("no such socket is open")
	ErrTooShort = errors.New("buffer is too short for the IKE message")
)
