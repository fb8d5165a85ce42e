package spd

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Lookup is told the class of the interface that a packet passes. The rules in the kernel see that interface. Whoever sees
// nothing but the packet (the packet thread, XFRM, IKE) goes by its own address instead: the class of a machine's address is
// that of the interface that has it. The two differ where a packet passes another interface than the one its address
// belongs to; the kernel drops it where it is to be protected, so that nobody decides about it by the wrong class.

// RemoteInterfaces returns the names of the interfaces for remote access; a final * stands for any rest of a name.
func (s Set) RemoteInterfaces() []string { return s.remoteInterfaces }

// RemoteAddresses returns the own addresses that such interfaces have, sorted.
func (s Set) RemoteAddresses() []netip.Addr { return s.remoteAddresses }

// Limited reports whether a rule is limited to a class of interfaces.
func (s Set) Limited() bool { return s.limited }

// Class returns the class of the interface that has an own address.
func (s Set) Class(own netip.Addr) Interfaces {
	if _, found := slices.BinarySearchFunc(s.remoteAddresses, own, netip.Addr.Compare); found {
		return InterfacesRemoteAccess
	}
	return InterfacesLAN
}

// LookupByAddress is Lookup for who does not know the interface: the own address of the packet stands for it. A packet
// without one is forwarded. It is negotiated where either class wants that, and blocked where both want something else.
func (s Set) LookupByAddress(d Direction, p Packet) Match {
	if !s.limited {
		return s.Lookup(d, p)
	}
	own := p.Source
	if d == In {
		own = p.Destination
	}
	p.Interfaces = s.Class(own)
	m := s.Lookup(d, p)
	if s.Owns(own) {
		return m
	}
	p.Interfaces = InterfacesRemoteAccess
	other := s.Lookup(d, p)
	switch {
	case m.Filter == other.Filter:
		return m
	case m.Action == ActionNegotiate && other.Action == ActionPermit:
		return m
	case m.Action == ActionPermit && other.Action == ActionNegotiate:
		return other
	}
	return Match{Action: ActionBlock, Group: m.Group}
}

// ByAddress returns the filters, heaviest first, as they are for who does not know interfaces: a filter that is limited to
// a class is about the own addresses of that class, unless it is about none of the other one.
func (s Set) ByAddress() []Specific {
	if !s.limited {
		return s.Filters()
	}
	var out []Specific
	for _, f := range s.filters {
		local := &f.Source
		if f.Direction == In {
			local = &f.Destination
		}
		whole := *local
		var same []netip.Addr
		other := false
		for _, a := range s.addresses {
			switch {
			case !whole.Contains(a):
			case s.Class(a) == f.Interfaces:
				same = append(same, a)
			default:
				other = true
			}
		}
		if f.Interfaces == InterfacesAll || !other {
			out = append(out, f)
			continue
		}
		for _, a := range same {
			*local = single(a)
			out = append(out, f)
		}
	}
	return out
}

// NamesInterface reports whether a name, or a pattern that ends with *, means an interface.
func NamesInterface(pattern, name string) bool {
	if rest, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, rest)
	}
	return pattern == name
}

// CheckInterface reports whether a text can be the name of an interface, or the beginning of one before a final *: at most 15
// octets without space, slash, colon and quotation marks.
func CheckInterface(pattern string) error {
	name := strings.TrimSuffix(pattern, "*")
	bad := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:*\"", r) }
	if pattern == "" || len(name) > 15 || name == "." || name == ".." || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("%q is no name of an interface: at most 15 letters, digits and signs, or the beginning of a name before a *", pattern)
	}
	return nil
}

func limited(rules []Rule) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool { return r.Interfaces != InterfacesAll })
}
