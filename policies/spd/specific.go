package spd

import (
	"cmp"
	"fmt"
	"strings"
)

// Specific is one filter after expansion: real addresses, one family, one direction. It is comparable; two Sets that
// hold the same Specific treat its packets by the same filter of the same rule.
type Specific struct {
	Direction       Direction
	Source          Range
	Destination     Range
	Protocol        uint8 // 0 means every protocol
	SourcePort      PortRange
	DestinationPort PortRange
	ICMP            ICMP
	Interfaces      Interfaces
	Loopback        bool // matches packets on the loopback interface only
	Own             bool // matches packets of the node's own sockets only
	Answers         bool // does not match the first packet of a TCP connection
	// RuleID and FilterID name where the filter comes from; both are empty for an exemption.
	RuleID   string
	FilterID string
	Action   Action
	Tunnel   bool   // the rule is a tunnel rule
	Exempt   string // name of the exemption, empty for a filter of a rule
	Weight   Weight
}

// Matches reports whether the filter, whatever its place in the Set, describes a packet.
func (s *Specific) Matches(d Direction, p Packet) bool {
	if s.Direction != d || !s.Source.Contains(p.Source) || !s.Destination.Contains(p.Destination) {
		return false
	}
	if s.Loopback && !p.Loopback || s.Own && !p.Own || s.Answers && p.Opens {
		return false
	}
	switch s.Interfaces {
	case InterfacesAll:
	case InterfacesLAN:
		if p.Interfaces == InterfacesRemoteAccess {
			return false
		}
	case InterfacesRemoteAccess:
		if p.Interfaces != InterfacesRemoteAccess {
			return false
		}
	}
	if s.Protocol == 0 {
		return true
	}
	if s.Protocol != p.Protocol {
		return false
	}
	return s.SourcePort.Contains(p.SourcePort) && s.DestinationPort.Contains(p.DestinationPort) && s.ICMP.Contains(p)
}

// String prints the filter in one line, as "show filters" does.
func (s *Specific) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", s.Direction, endpoint(s.Source, s.SourcePort))
	fmt.Fprintf(&b, " -> %s proto %s", endpoint(s.Destination, s.DestinationPort), ProtocolName(s.Protocol))
	switch s.ICMP.Scope {
	case ICMPOfType:
		fmt.Fprintf(&b, " type %d", s.ICMP.Type)
	case ICMPOfTypeAndCode:
		fmt.Fprintf(&b, " type %d code %d", s.ICMP.Type, s.ICMP.Code)
	case ICMPEvery:
	}
	if s.Interfaces != InterfacesAll {
		fmt.Fprintf(&b, " on %s", s.Interfaces)
	}
	if s.Loopback {
		b.WriteString(" on loopback")
	}
	if s.Own {
		b.WriteString(" of own sockets")
	}
	if s.Answers {
		b.WriteString(" answers")
	}
	fmt.Fprintf(&b, " %s", s.Action)
	if s.Exempt != "" {
		fmt.Fprintf(&b, " (exemption %s)", s.Exempt)
		return b.String()
	}
	fmt.Fprintf(&b, " weight %s rule %s filter %s", s.Weight, s.RuleID, s.FilterID)
	return b.String()
}

func endpoint(r Range, p PortRange) string {
	if p.Any() {
		return r.String()
	}
	return r.String() + " port " + p.String()
}

// ProtocolName names an IP protocol as filters print it; "any" is 0.
func ProtocolName(p uint8) string {
	switch p {
	case 0:
		return "any"
	case ProtocolICMP:
		return "icmp"
	case ProtocolTCP:
		return "tcp"
	case ProtocolUDP:
		return "udp"
	case ProtocolESP:
		return "esp"
	case ProtocolICMPv6:
		return "icmpv6"
	}
	return fmt.Sprint(p)
}

// Weight orders filters: the greater one is looked at first. It depends on the filter alone, never on the order in
// which an administrator wrote it. From the most significant part:
//
//	bit 63      exemption
//	bits 32-40  sum of the prefix lengths of source and destination, 0-256
//	bits 24-31  the longer of the two, 0-128
//	bit 23      a protocol is named
//	bits 21-22  number of ports that are named, 0-2
//	bits 2-20   131,070 less the number of ports that both sides leave open beyond one each
//	bits 0-1    action: block 3, permit 2, negotiate 1
//
// A range of addresses counts as the shortest prefix length that could hold as many. Me counts as a single address. A
// tunnel rule has no bonus. What is equal in all of it is ordered by rule ID and filter ID.
type Weight uint64

const weightExempt Weight = 1 << 63

// Exempt reports whether the weight is that of an exemption.
func (w Weight) Exempt() bool { return w&weightExempt != 0 }

// String prints the parts from the most significant, as "64.32.1.1.65535.2".
func (w Weight) String() string {
	if w.Exempt() {
		return "exempt"
	}
	return fmt.Sprintf("%d.%d.%d.%d.%d.%d", w>>32&0x1ff, w>>24&0xff, w>>23&1, w>>21&3, w>>2&0x7ffff, w&3)
}

// weigh computes the weight of a filter whose other fields are complete.
func weigh(s *Specific) Weight {
	if s.Exempt != "" {
		return weightExempt
	}
	source := s.Source.From.BitLen() - s.Source.wildcardBits()
	destination := s.Destination.From.BitLen() - s.Destination.wildcardBits()
	w := Weight(source+destination)<<32 | Weight(max(source, destination))<<24
	if s.Protocol != 0 {
		w |= 1 << 23
	}
	named, open := 0, 0
	for _, r := range []PortRange{s.SourcePort, s.DestinationPort} {
		from, to := r.Bounds()
		open += int(to) - int(from)
		if !r.Any() {
			named++
		}
	}
	w |= Weight(named)<<21 | Weight(131070-open)<<2
	switch s.Action {
	case ActionBlock:
		w |= 3
	case ActionPermit:
		w |= 2
	case ActionNegotiate:
		w |= 1
	}
	return w
}

// compareSpecific is the order of a Set: heaviest first, then by identity, so that it is total and does not depend on
// the order of the rules.
func compareSpecific(a, b Specific) int {
	return cmp.Or(
		cmp.Compare(b.Weight, a.Weight),
		cmp.Compare(a.Exempt, b.Exempt),
		cmp.Compare(a.RuleID, b.RuleID),
		cmp.Compare(a.FilterID, b.FilterID),
		cmp.Compare(a.Direction, b.Direction),
		a.Source.From.Compare(b.Source.From),
		a.Source.To.Compare(b.Source.To),
		a.Destination.From.Compare(b.Destination.From),
		a.Destination.To.Compare(b.Destination.To),
		cmp.Compare(a.Protocol, b.Protocol),
		cmp.Compare(a.SourcePort.From, b.SourcePort.From),
		cmp.Compare(a.SourcePort.To, b.SourcePort.To),
		cmp.Compare(a.DestinationPort.From, b.DestinationPort.From),
		cmp.Compare(a.DestinationPort.To, b.DestinationPort.To),
		cmp.Compare(a.ICMP.Type, b.ICMP.Type),
		cmp.Compare(a.ICMP.Code, b.ICMP.Code),
	)
}
