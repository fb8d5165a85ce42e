package spd

import (
	"net/netip"
	"slices"
)

// Set is a policy with the addresses of one machine: the ordered filters, and what their rules say. It never changes;
// a new policy or a new address makes another Set. The zero value permits everything.
type Set struct {
	filters []Specific
	rules   map[string]*Rule
	policy  *Policy
	groups  []Range
	// addresses are those that the facts know as the machine's own.
	addresses []netip.Addr
	aboutMe   bool
	// limited tells that a rule is for a class of interfaces; see classes.go.
	limited          bool
	remoteInterfaces []string
	remoteAddresses  []netip.Addr
	// negotiables are what negotiations see of filters and rules.
	negotiables []Negotiable
}

// Match is the answer of a lookup.
type Match struct {
	Filter *Specific // the heaviest filter that describes the packet; nil if none does. Not to be modified
	Rule   *Rule     // the rule of the filter; nil with an exemption or without a filter. Not to be modified
	Action Action
	Exempt string // name of the exemption, empty if none
	// Group tells that the destination is a multicast or broadcast address, with which IKE cannot negotiate.
	Group bool
}

// Lookup returns what the policy says of a packet: the first filter, in the order of weight, that matches. A packet
// that no filter describes is permitted, as with the Windows policies: a policy says what it wants protected or
// blocked, and one that wants everything else blocked says so in a filter from any to any.
//
// A packet of an address that the machine has and the facts lack is blocked, unless it is exempt, by a policy that has
// filters about Me: they do not mean that address yet, and the packet would pass them by.
//
// It is linear in the number of filters on purpose: this is the definition, not the fast path.
func (s Set) Lookup(d Direction, p Packet) Match {
	for i := range s.filters {
		f := &s.filters[i]
		if p.Unknown && s.aboutMe && f.Exempt == "" {
			break
		}
		if f.Matches(d, p) {
			return Match{Filter: f, Rule: s.rules[f.RuleID], Action: f.Action, Exempt: f.Exempt, Group: s.group(p.Destination)}
		}
	}
	if p.Unknown && s.aboutMe {
		return Match{Action: ActionBlock, Group: s.group(p.Destination)}
	}
	return Match{Action: ActionPermit, Group: s.group(p.Destination)}
}

func (s Set) group(a netip.Addr) bool {
	return slices.ContainsFunc(s.groups, func(r Range) bool { return r.Contains(a) })
}

// Filters returns the filters, heaviest first: exemptions, then the filters of the rules.
func (s Set) Filters() []Specific { return slices.Clone(s.filters) }

// Groups returns the multicast and broadcast addresses. A packet to one of them that a filter wants negotiated is
// dropped, in either direction.
func (s Set) Groups() []Range { return slices.Clone(s.groups) }

// Addresses returns the addresses that the facts know as the machine's own, sorted. exact tells that the policy has
// filters about Me, so that no other address of the machine may talk.
func (s Set) Addresses() (known []netip.Addr, exact bool) {
	return slices.Clone(s.addresses), s.aboutMe
}

// Owns reports whether the facts know an address as the machine's own.
func (s Set) Owns(a netip.Addr) bool {
	_, found := slices.BinarySearchFunc(s.addresses, a, netip.Addr.Compare)
	return found
}

// Rule returns the rule of an ID. The rule must not be modified.
func (s Set) Rule(id string) (*Rule, bool) {
	r, ok := s.rules[id]
	return r, ok
}

// Name returns the name of the policy; empty for the zero Set.
func (s Set) Name() string { return s.Policy().Name }

// Policy returns the policy that was expanded. Its slices must not be modified.
func (s Set) Policy() Policy {
	if s.policy == nil {
		return Policy{}
	}
	return *s.policy
}

// DefaultResponse returns the default response of the policy.
func (s Set) DefaultResponse() DefaultResponse { return s.Policy().DefaultResponse }

// KeyExchange returns the settings of IKE SAs.
func (s Set) KeyExchange() KeyExchange { return s.Policy().KeyExchange }

// Between returns the Set for packets between an own address and a peer's, forwarded ones excepted: its Lookup answers for
// them as that of the whole Set does, among fewer filters. It is not one to negotiate with.
func (s Set) Between(here, there netip.Addr) Set {
	var few []Specific
	for i := range s.filters {
		f := &s.filters[i]
		if f.Direction == Out && f.Source.Contains(here) && f.Destination.Contains(there) ||
			f.Direction == In && f.Source.Contains(there) && f.Destination.Contains(here) {
			few = append(few, *f)
		}
	}
	s.filters, s.negotiables = few, nil
	return s
}

// Selectors returns what a negotiation for the packet asks for, the machine's own side and the peer's. In transport
// mode that is the pair of addresses of the packet with the protocol and the ports of the filter, so that one pair of
// SAs serves every flow of that filter between the two machines; in tunnel mode it is the filter itself. It returns
// nothing for a match that does not negotiate.
func (m Match) Selectors(p Packet) (local, remote []Selector) {
	if m.Action != ActionNegotiate || m.Filter == nil {
		return nil, nil
	}
	f := m.Filter
	source, destination := Range{p.Source, p.Source}, Range{p.Destination, p.Destination}
	if f.Tunnel {
		source, destination = f.Source, f.Destination
	}
	local = []Selector{selector(f.Protocol, source, f.SourcePort)}
	remote = []Selector{selector(f.Protocol, destination, f.DestinationPort)}
	if f.Direction == In {
		local, remote = remote, local
	}
	return local, remote
}

func selector(protocol uint8, r Range, ports PortRange) Selector {
	from, to := ports.Bounds()
	return Selector{Protocol: protocol, From: r.From, To: r.To, PortFrom: from, PortTo: to}
}
