package userspace

import (
	"encoding/binary"
	"math"

	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

// Over IPv6 nobody but the sender cuts packets (RFC 8200 5), and the kernel cuts for the interface, not for a path that
// has less room. What neither fits the path nor has a sender that could be told is cut here, after it was sealed
// (RFC 4303 3.3.4).

// defaultHopLimit is that of IP (RFC 1700, IANA "Internet Protocol Parameters").
const defaultHopLimit = 64

// longestWhole is the longest ESP packet that needs no cutting here.
func (a *association) longestWhole() int {
	if !a.path.v6 || a.path.known == a.path.device {
		return math.MaxInt
	}
	n := a.path.known - packet.IPv6HeaderLen
	if a.child.Encap {
		n -= packet.UDPHeaderLen
	}
	return n
}

// sendCut sends a message of which packets are longer than the path allows.
func (l *loop) sendCut(a *association, m *transport.Message) error {
	for rest := m.Payload; len(rest) > 0; {
		n := min(m.SegmentLen, len(rest))
		esp := rest[:n]
		rest = rest[n:]
		if n <= a.whole {
			one := *m
			one.Payload, one.SegmentLen = esp, n
			if err := l.sockets.SendESP(&one); err != nil {
				return err
			}
			continue
		}
		h := packet.IP{
			Source: m.Local.Addr(), Destination: m.Remote.Addr(), Protocol: packet.ProtocolESP, TrafficClass: m.TrafficClass,
			HopLimit: m.HopLimit, PayloadLen: n,
		}
		if h.HopLimit == 0 {
			h.HopLimit = defaultHopLimit
		}
		if m.Encap {
			h.Protocol = packet.ProtocolUDP
			h.PayloadLen += packet.UDPHeaderLen
		}
		pkt := h.AppendHeader(make([]byte, 0, packet.IPv6HeaderLen+h.PayloadLen))
		if m.Encap {
			pkt = binary.BigEndian.AppendUint16(pkt, m.Local.Port())
			pkt = binary.BigEndian.AppendUint16(pkt, m.Remote.Port())
			pkt = binary.BigEndian.AppendUint16(pkt, uint16(h.PayloadLen))
			pkt = append(pkt, 0, 0)
		}
		pkt = append(pkt, esp...)
		info, err := packet.Parse(pkt)
		if err != nil {
			return err
		}
		packet.FixChecksum(pkt, info) // RFC 8200 8.1: UDP over IPv6 has one
		l.fragmentID += uint32(len(l.loops))
		// Every link takes as much, and the kernel may believe less of the path than there is: what it tells the flows
		// inside the SA stands in the same cache.
		if err := packet.FragmentIPv6(pkt, leastMTU6, l.fragmentID, func(b []byte) error { return l.clear.send(b, info) }); err != nil {
			return err
		}
	}
	return nil
}
