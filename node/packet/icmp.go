package packet

import (
	"encoding/binary"
	"net/netip"
)

// Longest ICMP errors in octets: RFC 1812 4.3.2.3 and RFC 4443 2.4 (c).
const (
	maxICMPv4Error = 576
	maxICMPv6Error = 1280
)

// AppendTooBig appends the packet from `from` that tells the sender of offending to use packets of at most mtu octets:
// ICMP "fragmentation needed and DF set" (RFC 1191 4) or ICMPv6 "packet too big" (RFC 4443 3.2). The error is
// ErrNoAnswer where no such packet may be sent: about an ICMP error, about a fragment that is not the first, to or
// about addresses that are not of one host, and for IPv4 about a packet that may be fragmented.
func AppendTooBig(dst, offending []byte, from netip.Addr, mtu int) ([]byte, error) {
	info, err := Parse(offending)
	if err != nil {
		return dst, err
	}
	offending = offending[:info.Length]
	if info.FragmentOffset > 0 || !unicast(info.Source) || info.Destination.IsMulticast() ||
		from.Is4() != (info.Version == 4) {
		return dst, ErrNoAnswer
	}
	if mtu < 0 || mtu > 0xffff {
		mtu = 0xffff
	}
	if info.Version == 4 {
		dontFragment := offending[6]&0x40 != 0
		if !dontFragment || info.Protocol == ProtocolICMP && icmpv4Error(offending[info.HeaderLen:]) {
			return dst, ErrNoAnswer
		}
		quote := offending[:min(len(offending), maxICMPv4Error-IPv4HeaderLen-8)]
		dst = IP{
			Source: from, Destination: info.Source, Protocol: ProtocolICMP, HopLimit: 64,
			TrafficClass: 0xc0, PayloadLen: 8 + len(quote),
		}.AppendHeader(dst)
		at := len(dst)
		dst = append(dst, 3, 4, 0, 0, 0, 0, byte(mtu>>8), byte(mtu))
		dst = append(dst, quote...)
		binary.BigEndian.PutUint16(dst[at+2:], ^Sum(dst[at:], 0))
		return dst, nil
	}
	// RFC 4443 2.4 (e.3) lets "packet too big" answer a multicast packet; nothing multicast enters an SA here.
	if info.Protocol == ProtocolICMPv6 && (info.HeaderLen >= info.Length || offending[info.HeaderLen] < 128) {
		return dst, ErrNoAnswer
	}
	quote := offending[:min(len(offending), maxICMPv6Error-IPv6HeaderLen-8)]
	dst = IP{
		Source: from, Destination: info.Source, Protocol: ProtocolICMPv6, HopLimit: 64, PayloadLen: 8 + len(quote),
	}.AppendHeader(dst)
	at := len(dst)
	dst = append(dst, 2, 0, 0, 0, 0, 0, byte(mtu>>8), byte(mtu))
	dst = append(dst, quote...)
	pseudo := PseudoHeaderSum(from, info.Source, ProtocolICMPv6, 8+len(quote))
	binary.BigEndian.PutUint16(dst[at+2:], ^Sum(dst[at:], pseudo))
	return dst, nil
}

func unicast(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// icmpv4Error reports whether an ICMP message is an error, or too short to tell.
func icmpv4Error(icmp []byte) bool {
	if len(icmp) == 0 {
		return true
	}
	switch icmp[0] {
	case 3, 4, 5, 11, 12:
		return true
	}
	return false
}
