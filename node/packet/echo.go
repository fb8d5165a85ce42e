package packet

import (
	"encoding/binary"
	"net/netip"
)

// Echo is an ICMP or ICMPv6 echo message (RFC 792, RFC 4443 4).
type Echo struct {
	Source, Destination netip.Addr
	Reply               bool
	ID, Sequence        uint16
	Data                []byte
}

// echoHeader is the length of the ICMP header of an echo message.
const echoHeader = 8

// AppendEcho appends the packet of e with length octets in all, which zeros fill up after Data. A length that Data does not
// fit into is exceeded.
func AppendEcho(dst []byte, e Echo, length int) []byte {
	h := IP{Source: e.Source, Destination: e.Destination, Protocol: ProtocolICMP, HopLimit: 64}
	kind := [2]byte{8, 0}
	if !e.Source.Is4() {
		h.Protocol, kind = ProtocolICMPv6, [2]byte{128, 129}
	}
	h.PayloadLen = max(echoHeader+len(e.Data), length-h.HeaderLen())
	dst = h.AppendHeader(dst)
	at := len(dst)
	dst = append(dst, kind[0], 0, 0, 0, byte(e.ID>>8), byte(e.ID), byte(e.Sequence>>8), byte(e.Sequence))
	if e.Reply {
		dst[at] = kind[1]
	}
	dst = append(dst, e.Data...)
	dst = append(dst, make([]byte, h.PayloadLen-(len(dst)-at))...)
	pseudo := uint16(0)
	if h.Protocol == ProtocolICMPv6 {
		pseudo = PseudoHeaderSum(e.Source, e.Destination, ProtocolICMPv6, h.PayloadLen)
	}
	binary.BigEndian.PutUint16(dst[at+2:], ^Sum(dst[at:], pseudo))
	return dst
}

// ParseEcho reads an echo message out of a whole packet that Parse has said info of. Data lies in pkt.
func ParseEcho(pkt []byte, info Info) (Echo, bool) {
	if info.Fragment || info.Length > len(pkt) || info.HeaderLen+echoHeader > info.Length {
		return Echo{}, false
	}
	icmp := pkt[info.HeaderLen:info.Length]
	e := Echo{
		Source: info.Source, Destination: info.Destination,
		ID: binary.BigEndian.Uint16(icmp[4:]), Sequence: binary.BigEndian.Uint16(icmp[6:]), Data: icmp[echoHeader:],
	}
	switch {
	case icmp[1] != 0:
		return Echo{}, false
	case info.Protocol == ProtocolICMP && info.Version == 4 && (icmp[0] == 8 || icmp[0] == 0):
		e.Reply = icmp[0] == 0
	case info.Protocol == ProtocolICMPv6 && info.Version == 6 && (icmp[0] == 128 || icmp[0] == 129):
		e.Reply = icmp[0] == 129
	default:
		return Echo{}, false
	}
	return e, true
}
