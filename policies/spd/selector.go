package spd

import (
	"fmt"
	"net/netip"
	"slices"
)

// Selector is one traffic selector of a negotiation or a Child SA: addresses From..To inclusive of one family, ports
// inclusive (RFC 7296 3.13.1). Protocol 0 means every protocol, ports 0..65535 every port.
type Selector struct {
	Protocol uint8
	From, To netip.Addr
	PortFrom uint16
	PortTo   uint16
}

// HostSelector is the selector of everything about one address.
func HostSelector(a netip.Addr) Selector { return Selector{From: a, To: a, PortTo: 65535} }

// String prints the addresses, and protocol and ports where they are limited: "10.0.0.0/8 protocol 6 port 22".
func (s Selector) String() string {
	text := s.From.String() + "-" + s.To.String()
	if s.From == s.To {
		text = s.From.String()
	} else if p, ok := (Range{From: s.From, To: s.To}).Prefix(); ok {
		text = p.String()
	}
	if s.Protocol != 0 {
		text += fmt.Sprintf(" protocol %d", s.Protocol)
	}
	if s.PortFrom != 0 || s.PortTo != 65535 {
		text += " port " + PortRange{From: s.PortFrom, To: s.PortTo}.String()
	}
	return text
}

// Contains reports whether every packet of b is one of s. OPAQUE ports (65535 to 0) are contained in every port.
func (s Selector) Contains(b Selector) bool {
	x, ok := s.Intersect(b)
	return ok && x == b
}

// Intersect is the selector of what both contain.
func (s Selector) Intersect(b Selector) (Selector, bool) {
	if s.From.BitLen() != b.From.BitLen() {
		return Selector{}, false
	}
	x := b
	switch {
	case s.Protocol == b.Protocol || s.Protocol == 0:
	case b.Protocol == 0:
		x.Protocol = s.Protocol
	default:
		return Selector{}, false
	}
	if x.From.Less(s.From) {
		x.From = s.From
	}
	if s.To.Less(x.To) {
		x.To = s.To
	}
	if x.To.Less(x.From) {
		return Selector{}, false
	}
	anyPort := func(s Selector) bool { return s.PortFrom == 0 && s.PortTo == 65535 }
	opaque := func(s Selector) bool { return s.PortFrom > s.PortTo }
	switch {
	case anyPort(s):
	case opaque(s) && opaque(b):
	case opaque(s), opaque(b):
		return Selector{}, false
	default:
		x.PortFrom, x.PortTo = max(s.PortFrom, b.PortFrom), min(s.PortTo, b.PortTo)
		if x.PortTo < x.PortFrom {
			return Selector{}, false
		}
	}
	return x, true
}

// Within narrows a list to the selector and drops what others of the list contain already.
func (s Selector) Within(list []Selector) []Selector {
	var out []Selector
	for _, one := range list {
		x, ok := s.Intersect(one)
		if !ok || slices.ContainsFunc(out, func(o Selector) bool { return o.Contains(x) }) {
			continue
		}
		out = slices.DeleteFunc(out, x.Contains)
		out = append(out, x)
	}
	return out
}

// Covers reports whether the selector contains every one of a list that is not empty.
func (s Selector) Covers(list []Selector) bool {
	for _, one := range list {
		if !s.Contains(one) {
			return false
		}
	}
	return len(list) > 0
}
