package packet

import "errors"

// Errors. All of them mean: drop the packet.
var (
	ErrTruncated = errors.New("packet is truncated")
	ErrMalformed = errors.New("packet header is malformed")
	// ErrNoAnswer means that RFC 1122 3.2.2 or RFC 4443 2.4 forbids an ICMP error about this packet.
	ErrNoAnswer = errors.New("an ICMP error must not be sent about this packet")
)
