package tun

import "errors"

// Errors.
var (
	ErrWouldBlock = errors.New("nothing to read from the TUN now")
	ErrClosed     = errors.New("TUN is closed")
	ErrTruncated  = errors.New("virtio-net header is truncated")
	// ErrSegmentation means that a header does not go with its packet: drop it.
	ErrSegmentation = errors.New("super-packet cannot be split")
)
