package xfrm

import (
	"math/bits"
	"net/netip"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// side is one side of a packet: what a traffic selector or a filter says of source or destination.
type side struct {
	addresses spd.Range
	protocol  uint8
	from, to  uint16 // ports, inclusive
}

func sideOf(s sa.Selector) side {
	out := side{spd.Range{From: s.From, To: s.To}, s.Protocol, s.PortFrom, s.PortTo}
	if icmp(s) { // one type of ICMP is protected with all others: more than was negotiated, never less
		out.from, out.to = 0, 65535
	}
	return out
}

func sidesOf(f *spd.Specific) (source, destination side) {
	source, destination = side{f.Source, f.Protocol, 0, 65535}, side{f.Destination, f.Protocol, 0, 65535}
	source.from, source.to = f.SourcePort.Bounds()
	destination.from, destination.to = f.DestinationPort.Bounds()
	switch f.ICMP.Scope { // the kernel takes type and code for ports, but not as RFC 7296 3.13.1 does
	case spd.ICMPOfType:
		source.from, source.to = uint16(f.ICMP.Type), uint16(f.ICMP.Type)
	case spd.ICMPOfTypeAndCode:
		source.from, source.to = uint16(f.ICMP.Type), uint16(f.ICMP.Type)
		destination.from, destination.to = uint16(f.ICMP.Code), uint16(f.ICMP.Code)
	case spd.ICMPEvery:
	}
	return source, destination
}

// meet is what two sides have in common; false where that is nothing.
func (s side) meet(o side) (side, bool) {
	if s.addresses.Is4() != o.addresses.Is4() || s.protocol != 0 && o.protocol != 0 && s.protocol != o.protocol {
		return side{}, false
	}
	out := side{protocol: max(s.protocol, o.protocol), from: max(s.from, o.from), to: min(s.to, o.to), addresses: s.addresses}
	if o.addresses.From.Compare(out.addresses.From) > 0 {
		out.addresses.From = o.addresses.From
	}
	if o.addresses.To.Compare(out.addresses.To) < 0 {
		out.addresses.To = o.addresses.To
	}
	return out, out.from <= out.to && out.addresses.From.Compare(out.addresses.To) <= 0
}

// selectors describes source and destination by as many selectors of the kernel as it takes: ranges of addresses become
// prefixes, ranges of ports values under a mask.
func selectors(source, destination side) []selector {
	if source.protocol != 0 && destination.protocol != 0 && source.protocol != destination.protocol ||
		source.addresses.Is4() != destination.addresses.Is4() {
		return nil
	}
	var out []selector
	for _, sp := range prefixes(source.addresses) {
		for _, dp := range prefixes(destination.addresses) {
			for _, s := range ports(source.from, source.to) {
				for _, d := range ports(destination.from, destination.to) {
					out = append(out, selector{
						source: sp, destination: dp, protocol: max(source.protocol, destination.protocol),
						sourcePort: s.value, sourceMask: s.mask, destPort: d.value, destMask: d.mask,
					})
				}
			}
		}
	}
	return out
}

// masked are the ports whose bits under the mask are those of the value.
type masked struct{ value, mask uint16 }

// ports cuts a range into the fewest masked values.
func ports(from, to uint16) []masked {
	var out []masked
	for at := uint32(from); at <= uint32(to); {
		size := uint32(1) << bits.TrailingZeros32(at|1<<16)
		for at+size-1 > uint32(to) {
			size >>= 1
		}
		out = append(out, masked{uint16(at), ^uint16(size - 1)})
		at += size
	}
	return out
}

// prefixes cuts a range into the fewest prefixes.
func prefixes(r spd.Range) []netip.Prefix {
	if p, ok := r.Prefix(); ok {
		return []netip.Prefix{p}
	}
	var out []netip.Prefix
	for at := r.From; ; {
		length := at.BitLen()
		for length > 0 {
			wider := netip.PrefixFrom(at, length-1).Masked()
			if wider.Addr() != at || last(wider).Compare(r.To) > 0 {
				break
			}
			length--
		}
		p := netip.PrefixFrom(at, length)
		out = append(out, p)
		end := last(p)
		if end.Compare(r.To) >= 0 {
			return out
		}
		at = end.Next()
	}
}

// last is the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// hull is the narrowest selector of the kernel around two lists of traffic selectors, and exact that it holds nothing
// else.
func hull(source, destination []sa.Selector) (_ selector, exact bool) {
	if len(source) == 1 && len(destination) == 1 && !icmp(source[0]) && !icmp(destination[0]) {
		if all := selectors(sideOf(source[0]), sideOf(destination[0])); len(all) == 1 {
			return all[0], true
		}
	}
	s, sameS := around(source)
	d, sameD := around(destination)
	if !s.IsValid() || !d.IsValid() || s.Addr().Is4() != d.Addr().Is4() {
		return selector{}, false
	}
	out := selector{source: s, destination: d}
	if p := source[0].Protocol; sameS && sameD && p == destination[0].Protocol {
		out.protocol = p
	}
	return out, false
}

func icmp(s sa.Selector) bool {
	return (s.Protocol == spd.ProtocolICMP || s.Protocol == spd.ProtocolICMPv6) && (s.PortFrom != 0 || s.PortTo != 65535)
}

// around is the prefix around the addresses of all selectors, and whether their protocols are the same.
func around(list []sa.Selector) (p netip.Prefix, same bool) {
	same = true
	for i, s := range list {
		if i == 0 {
			p = netip.PrefixFrom(s.From, s.From.BitLen())
		}
		if s.From.Is4() != p.Addr().Is4() {
			return netip.Prefix{}, false
		}
		same = same && s.Protocol == list[0].Protocol
		for !p.Contains(s.From) || !p.Contains(s.To) {
			p = netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked()
		}
	}
	return p, same && len(list) > 0
}
