// Package packet owns the views of one IP packet in a byte slice: its 5-tuple, its checksums, the few changes that
// IPsec makes to it or answers with (MSS clamp, ECN, "packet too big"), and the whole packet behind its fragments.
//
// Its invariant: no function reads outside the slice it is given, whatever the octets say, and an Info that Parse
// returned describes a packet that is wholly inside its slice. It leaves encryption to node/esp, segmentation to
// node/tun, and the fragments of outer packets to the kernel.
package packet

import (
	"net/netip"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// IP protocol numbers that the datapath looks at (IANA "Assigned Internet Protocol Numbers").
const (
	ProtocolHopByHop    = 0
	ProtocolICMP        = 1
	ProtocolIPv4        = 4
	ProtocolTCP         = 6
	ProtocolUDP         = 17
	ProtocolIPv6        = 41
	ProtocolRouting     = 43
	ProtocolFragment    = 44
	ProtocolESP         = 50
	ProtocolAH          = 51
	ProtocolICMPv6      = 58
	ProtocolNoNext      = 59
	ProtocolDestination = 60
	ProtocolSCTP        = 132
	ProtocolUDPLite     = 136
	ProtocolMobility    = 135
	ProtocolHIP         = 139
	ProtocolShim6       = 140
)

// Info is what Parse learns about a packet. Ports are 0 where the protocol has none and in every fragment but the
// first.
type Info struct {
	Version         uint8 // 4 or 6
	Protocol        uint8 // of the upper layer, after every extension header
	TrafficClass    uint8 // DSCP and ECN
	Fragment        bool  // one piece of a fragmented packet
	FragmentOffset  int   // octets; 0 in the first fragment
	Source          netip.Addr
	Destination     netip.Addr
	SourcePort      uint16
	DestinationPort uint16
	HeaderLen       int   // octets before the upper-layer header: IP header with options and extension headers
	TransportOffset int   // where ESP goes in transport mode: after hop-by-hop, routing and fragment headers (RFC 4303 3.1.1)
	NextHeader      uint8 // protocol of what stands at TransportOffset
	Length          int   // octets of the packet as its own header says; the slice may be longer
}

// SPD returns the packet as policies see it.
func (i Info) SPD() spd.Packet {
	return spd.Packet{
		Source: i.Source, Destination: i.Destination, Protocol: i.Protocol,
		SourcePort: i.SourcePort, DestinationPort: i.DestinationPort,
	}
}
