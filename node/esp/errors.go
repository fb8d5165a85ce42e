package esp

import "errors"

// Errors of Open and Seal. All of them mean: drop this packet; ErrExhausted also means that the SA must be replaced.
var (
	ErrShort      = errors.New("ESP packet has no valid length for its suite")
	ErrSPI        = errors.New("ESP packet has the SPI of another SA")
	ErrReplay     = errors.New("ESP sequence number was seen before or is left of the replay window")
	ErrIntegrity  = errors.New("ESP integrity check failed")
	ErrPadding    = errors.New("ESP padding is not 1, 2, 3, ...")
	ErrDummy      = errors.New("ESP packet is a dummy")
	ErrNextHeader = errors.New("ESP next header does not go with the mode of the SA")
	ErrInner      = errors.New("packet inside ESP is malformed")
	ErrExhausted  = errors.New("ESP sequence numbers are used up, the SA must be replaced")
	ErrPacket     = errors.New("packet cannot be sealed")
	// ErrSuite and ErrKey are errors of NewOutbound and NewInbound.
	ErrSuite = errors.New("ESP suite is not implemented")
	ErrKey   = errors.New("ESP key does not fit its suite")
)
