// Package esp seals and opens one packet at a time (RFC 4303), for the suites of policies/proposal.
//
// Its invariant: a key never sees the same sequence number or IV twice, no octet of a packet leaves Open before its
// ICV was verified and its sequence number entered in the replay window, and nothing is ever encrypted without
// integrity. It does no I/O and holds no clock: limits in time, selectors and the choice of the SA are the
// datapath's.
package esp

import (
	"errors"

	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Headroom is how many octets before start Open may overwrite in transport mode, where the IP header it builds needs
// more room than the ESP header gave.
const Headroom = 18

// MaxTrailer bounds the octets that Seal needs after a packet: padding, pad length and next header.
const MaxTrailer = 18

// Errors of Open and Seal. All of them mean: drop this packet.
var (
	ErrShort      = errors.New("ESP packet is too short for its suite")
	ErrSPI        = errors.New("ESP packet has the SPI of another SA")
	ErrReplay     = errors.New("ESP sequence number was seen before or is left of the replay window")
	ErrIntegrity  = errors.New("ESP integrity check failed")
	ErrPadding    = errors.New("ESP padding is not 1, 2, 3, ...")
	ErrDummy      = errors.New("ESP packet is a dummy")
	ErrNextHeader = errors.New("ESP next header does not go with the mode of the SA")
	ErrInner      = errors.New("packet inside ESP is malformed")
	ErrExhausted  = errors.New("ESP sequence numbers are used up, the SA must be replaced")
	ErrPacket     = errors.New("packet cannot be sealed")
)

// OutboundStats counts what an Outbound did.
type OutboundStats struct {
	Packets, Octets uint64 // octets of ESP packets
	Errors          uint64
	Sequence        uint64 // last number used
}

// InboundStats counts what an Inbound did.
type InboundStats struct {
	Packets, Octets uint64 // accepted; octets of ESP packets
	Replayed        uint64
	IntegrityFailed uint64
	Malformed       uint64 // short, padding, next header or inner packet wrong
	Dummies         uint64
	Highest         uint64 // highest sequence number accepted
}

// Opened is one opened packet.
type Opened struct {
	// Packet is a whole IP packet inside the buffer given to Open.
	Packet []byte
	// ChecksumUnknown tells that a NAT may have changed the addresses the TCP or UDP checksum covers: the checksum is
	// to be replaced, not verified (RFC 3948 3.1.2). Only in UDP-encapsulated transport mode.
	ChecksumUnknown bool
	Sequence        uint64
}

// SPIOf returns the SPI of an ESP packet, false where it is too short to have one.
func SPIOf(b []byte) (sa.SPI, bool) {
	if len(b) < 8 {
		return 0, false
	}
	return sa.SPI(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])), true
}
