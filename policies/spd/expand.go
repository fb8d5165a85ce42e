package spd

import (
	"fmt"
	"net/netip"
	"slices"
)

// Expand turns a policy into the Set of one machine: symbols become addresses, mirrored filters become two, and every
// filter gets its direction and its weight.
//
// A filter whose source is Me describes outbound packets, one whose destination is Me inbound packets; one that names
// Me on neither side, or on both, describes packets of both directions, which on a gateway includes those that it
// forwards. The filters of a tunnel rule read from the own side to the far side of the tunnel; they become exactly one
// outbound filter and its inbound reverse, whether they say mirrored or not, because IKEv2 always makes both.
//
// A symbol for which the machine has no address expands to no filter, and so does a DNS name in a rule that permits while
// it was never resolved: less is permitted meanwhile. Such a name in a rule that blocks or negotiates is an error, because
// what is to be blocked or protected would pass. The error wraps ErrPolicy or ErrFacts; there is no Set with one.
func Expand(p Policy, f Facts) (Set, error) {
	if err := p.Validate(); err != nil {
		return Set{}, err
	}
	f, err := normalFacts(f)
	if err != nil {
		return Set{}, err
	}
	if err := p.unresolved(f); err != nil {
		return Set{}, err
	}
	filters := exemptions(p.Exemptions, f)
	rules := make(map[string]*Rule, len(p.Rules))
	for i := range p.Rules {
		r := &p.Rules[i]
		rules[r.ID] = r
		for _, filter := range r.Filters {
			filters = append(filters, expandFilter(r, filter, f)...)
		}
	}
	for i := range filters {
		filters[i].Weight = weigh(&filters[i])
	}
	slices.SortFunc(filters, compareSpecific)
	filters = slices.Compact(filters) // any-to-any and its mirror are the same
	set := Set{filters: filters, rules: rules, policy: &p, groups: groups(f), addresses: f.Addresses, aboutMe: aboutMe(p.Rules),
		limited: limited(p.Rules), remoteInterfaces: f.RemoteInterfaces, remoteAddresses: f.RemoteAddresses}
	set.negotiables = set.findNegotiables()
	return set, nil
}

// groups are the addresses behind which there is no single peer.
func groups(f Facts) []Range {
	out := []Range{multicast4, multicast6, broadcast4}
	for _, b := range f.Broadcasts {
		out = append(out, single(b))
	}
	return out
}

// aboutMe reports whether a filter names Me.
func aboutMe(rules []Rule) bool {
	for _, r := range rules {
		for _, f := range r.Filters {
			if f.Source.Kind == AddressMe || f.Destination.Kind == AddressMe {
				return true
			}
		}
	}
	return false
}

func expandFilter(r *Rule, filter Filter, facts Facts) []Specific {
	var out []Specific
	tunnel := r.Tunnel.IsValid()
	for _, pair := range pairs(filter, facts) {
		s := Specific{
			Source: pair[0], Destination: pair[1], Protocol: filter.Protocol,
			SourcePort: filter.SourcePort, DestinationPort: filter.DestinationPort,
			Interfaces: r.Interfaces, RuleID: r.ID, FilterID: filter.ID, Action: r.Action.Action, Tunnel: tunnel,
		}
		fromMe, toMe := filter.Source.Kind == AddressMe, filter.Destination.Kind == AddressMe
		outbound, inbound := fromMe || !toMe, toMe || !fromMe
		if tunnel {
			out = append(out, directed(s, Out), directed(swapped(s), In))
			continue
		}
		if outbound {
			out = append(out, directed(s, Out))
		}
		if inbound {
			out = append(out, directed(s, In))
		}
		if filter.Mirrored { // the reverse of an outbound packet is inbound
			if outbound {
				out = append(out, directed(swapped(s), In))
			}
			if inbound {
				out = append(out, directed(swapped(s), Out))
			}
		}
	}
	return out
}

func directed(s Specific, d Direction) Specific {
	s.Direction = d
	return s
}

func swapped(s Specific) Specific {
	s.Source, s.Destination = s.Destination, s.Source
	s.SourcePort, s.DestinationPort = s.DestinationPort, s.SourcePort
	return s
}

// pairs returns every combination of a source with a destination of the same family.
func pairs(filter Filter, facts Facts) [][2]Range {
	var out [][2]Range
	for _, source := range ranges(filter.Source, facts) {
		for _, destination := range ranges(filter.Destination, facts) {
			if source.Is4() == destination.Is4() {
				out = append(out, [2]Range{source, destination})
			}
		}
	}
	return out
}

func ranges(a Address, f Facts) []Range {
	switch a.Kind {
	case AddressAny:
		return []Range{any4, any6}
	case AddressMe:
		return singles(f.Addresses)
	case AddressPrefix:
		return []Range{RangeOf(a.Prefix)}
	case AddressRange:
		return []Range{{a.From, a.To}}
	case AddressDNSServers:
		return singles(f.DNSServers)
	case AddressDHCPServer:
		return singles(f.DHCPServers)
	case AddressDefaultGateway:
		return singles(f.DefaultGateways)
	case AddressName:
		return singles(f.Names[a.Name])
	}
	return nil // Validate knows every kind
}

func singles(addresses []netip.Addr) []Range {
	out := make([]Range, len(addresses))
	for i, a := range addresses {
		out[i] = single(a)
	}
	return out
}

// normalFacts sorts and dedupes the facts and takes zones and the IPv4-mapped form away, so that the same machine
// always gives the same Set.
func normalFacts(f Facts) (Facts, error) {
	for _, list := range []struct {
		name      string
		addresses *[]netip.Addr
	}{
		{"address", &f.Addresses}, {"DNS server", &f.DNSServers}, {"DHCP server", &f.DHCPServers},
		{"default gateway", &f.DefaultGateways}, {"broadcast address", &f.Broadcasts}, {"remote access address", &f.RemoteAddresses},
	} {
		normal, err := normalAddresses(list.name, *list.addresses)
		if err != nil {
			return Facts{}, err
		}
		for _, a := range normal {
			if list.addresses == &f.Addresses && (a.IsLoopback() || a.IsMulticast() || a.IsUnspecified()) {
				return Facts{}, fmt.Errorf("%w: %s is not a unicast address of an interface", ErrFacts, a)
			}
			if list.addresses == &f.Broadcasts && !a.Is4() {
				return Facts{}, fmt.Errorf("%w: broadcast address %s is not of IPv4", ErrFacts, a)
			}
		}
		*list.addresses = normal
	}
	for _, a := range f.RemoteAddresses {
		if !slices.Contains(f.Addresses, a) {
			return Facts{}, fmt.Errorf("%w: remote access address %s is none of the own addresses", ErrFacts, a)
		}
	}
	for _, name := range f.RemoteInterfaces {
		if err := CheckInterface(name); err != nil {
			return Facts{}, fmt.Errorf("%w: %w", ErrFacts, err)
		}
	}
	f.RemoteInterfaces = slices.Compact(slices.Sorted(slices.Values(f.RemoteInterfaces)))
	names := make(map[string][]netip.Addr, len(f.Names))
	for name, addresses := range f.Names {
		var err error
		if names[name], err = normalAddresses("address of "+name, addresses); err != nil {
			return Facts{}, err
		}
	}
	f.Names = names
	controllers := make([]netip.AddrPort, 0, len(f.Controllers))
	for i, c := range f.Controllers {
		c = netip.AddrPortFrom(c.Addr().Unmap().WithZone(""), c.Port())
		if !c.IsValid() || c.Port() == 0 {
			return Facts{}, fmt.Errorf("%w: controller %d (%s) is not an address with a port", ErrFacts, i+1, c)
		}
		controllers = append(controllers, c)
	}
	slices.SortFunc(controllers, netip.AddrPort.Compare)
	f.Controllers = slices.Compact(controllers)
	return f, nil
}

// normalAddresses is a sorted copy of a list without zones, the IPv4-mapped form and repetitions.
func normalAddresses(what string, list []netip.Addr) ([]netip.Addr, error) {
	normal := make([]netip.Addr, 0, len(list))
	for i, a := range list {
		a = a.Unmap().WithZone("")
		if !a.IsValid() {
			return nil, fmt.Errorf("%w: %s %d is not an address", ErrFacts, what, i+1)
		}
		normal = append(normal, a)
	}
	slices.SortFunc(normal, netip.Addr.Compare)
	return slices.Compact(normal), nil
}
