package packet

import (
	"errors"
	"net/netip"
)

// Errors of Parse.
var (
	ErrTruncated = errors.New("packet is truncated")
	ErrMalformed = errors.New("packet header is malformed")
)

// Parse reads the headers of one IPv4 or IPv6 packet.
func Parse(b []byte) (Info, error) { return Info{}, ErrMalformed }

// ClampMSS lowers the MSS option of a TCP SYN to at most mss.
func ClampMSS(pkt []byte, info Info, mss uint16) bool { return false }

// CompleteChecksum turns a partial checksum into a complete one.
func CompleteChecksum(pkt []byte, start, offset int) error { return ErrMalformed }

// VerifyChecksum reports whether the TCP or UDP checksum of a whole packet is right.
func VerifyChecksum(pkt []byte, info Info) bool { return false }

// FixChecksum computes the TCP or UDP checksum anew.
func FixChecksum(pkt []byte, info Info) bool { return false }

// AppendTooBig appends the ICMP "fragmentation needed" or ICMPv6 "packet too big" that answers offending.
func AppendTooBig(dst, offending []byte, from netip.Addr, mtu int) ([]byte, error) {
	return dst, ErrMalformed
}

// DecapsulateECN combines the outer ECN with the inner packet per RFC 6040 4.2; false means drop the packet.
func DecapsulateECN(pkt []byte, outer uint8) bool { return false }
