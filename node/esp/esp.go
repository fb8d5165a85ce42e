// Package esp seals and opens one packet at a time (RFC 4303), for the suites of policies/proposal.
//
// Its invariant: a key never sees the same sequence number or IV twice, no octet of a packet leaves Open before its
// ICV was verified and its sequence number entered in the replay window, and nothing is ever encrypted without
// integrity. It does no I/O and holds no clock: limits in time, selectors and the choice of the SA are the
// datapath's.
package esp

import (
	"encoding/binary"

	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Headroom is how many octets before start Open may overwrite in transport mode, where the IP header it builds needs
// more room than the ESP header gave. It is what any ESP packet leaves behind at its end: 2 octets of trailer and 16
// of ICV.
const Headroom = trailerLen + minICVLen

// MaxTrailer bounds the octets that Seal needs after a packet: padding, pad length and next header.
const MaxTrailer = 18

const (
	headerLen  = 8 // SPI and sequence number
	trailerLen = 2 // pad length and next header
	minICVLen  = 16
)

// OutboundStats counts what an Outbound did.
type OutboundStats struct {
	Packets, Octets uint64 // octets of ESP packets
	Errors          uint64
	Sequence        uint64 // last number used, by all forks
}

// InboundStats counts what an Inbound did.
type InboundStats struct {
	Packets, Octets uint64 // accepted; octets of ESP packets
	Replayed        uint64
	IntegrityFailed uint64
	Malformed       uint64 // length, padding, next header or inner packet wrong
	Dummies         uint64
	Highest         uint64 // highest sequence number accepted
}

// Opened is one opened packet.
type Opened struct {
	// Packet is a whole IP packet, inside the buffer given to Open or, in transport mode where that has no room for the
	// header, in memory of the Spill that Recycle takes back. In tunnel mode it is the inner packet as it was
	// sealed; in transport mode its header is made from the endpoints of the SA, with traffic class 0: that of the
	// outer packet is the caller's to set (packet.SetTrafficClass).
	Packet []byte
	// ChecksumUnknown tells that a NAT may have changed the addresses the TCP or UDP checksum covers: the checksum is
	// to be replaced, not verified (RFC 3948 3.1.2). Only in UDP-encapsulated transport mode.
	ChecksumUnknown bool
	Sequence        uint64
}

// SPIOf returns the SPI of an ESP packet, false where it is too short to have one.
func SPIOf(b []byte) (sa.SPI, bool) {
	if len(b) < headerLen {
		return 0, false
	}
	return sa.SPI(binary.BigEndian.Uint32(b)), true
}
