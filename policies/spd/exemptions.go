package spd

import (
	"net/netip"
)

// The names of the exemptions. Those from ExemptMulticast on stand only in the Set of a policy that asks for them.
const (
	ExemptLoopback   = "loopback"
	ExemptIKE        = "ike"
	ExemptESP        = "esp"
	ExemptController = "controller"
	ExemptDHCP       = "dhcp"
	ExemptNeighbour  = "neighbour-discovery"
	ExemptListener   = "multicast-listener"
	ExemptPathMTU    = "path-mtu"
	ExemptMulticast  = "multicast"
	ExemptBroadcast  = "broadcast"
	ExemptBreakGlass = "break-glass"
	ExemptKerberos   = "kerberos"
	ExemptRSVP       = "rsvp"
	ExemptICMP       = "icmp"
)

var (
	any4       = RangeOf(netip.MustParsePrefix("0.0.0.0/0"))
	any6       = RangeOf(netip.MustParsePrefix("::/0"))
	multicast4 = RangeOf(netip.MustParsePrefix("224.0.0.0/4"))
	multicast6 = RangeOf(netip.MustParsePrefix("ff00::/8"))
	linkLocal6 = RangeOf(netip.MustParsePrefix("fe80::/10"))
	broadcast4 = single(netip.AddrFrom4([4]byte{255, 255, 255, 255}))
)

func single(a netip.Addr) Range { return Range{a, a} }

func anyLike(a netip.Addr) Range {
	if a.Is4() {
		return any4
	}
	return any6
}

func port(p uint16) PortRange { return PortRange{p, p} }

// exemptions returns the filters that no rule can override. They are as narrow as their purpose allows: none of them
// lets a packet from the wire in for its source port, because whoever sends it chooses it. What comes from a
// controller's port can only answer. Kerberos over UDP is the one that has to, where a policy asks for it.
func exemptions(e Exemptions, f Facts) []Specific {
	var out []Specific
	add := func(name string, s Specific) {
		s.Exempt, s.Action = name, ActionPermit
		out = append(out, s)
	}
	for _, all := range []Range{any4, any6} {
		add(ExemptLoopback, Specific{Direction: Out, Source: all, Destination: all, Loopback: true})
		add(ExemptLoopback, Specific{Direction: In, Source: all, Destination: all, Loopback: true})
	}
	for _, me := range f.Addresses {
		own, peers := single(me), anyLike(me)
		// A NAT may have changed the peer's port (RFC 7296 2.23), so only the own port counts inbound. Outbound the port
		// is not enough: it would let any local process that binds it past the filters.
		for _, p := range []uint16{500, 4500} {
			add(ExemptIKE, Specific{Direction: In, Source: peers, Destination: own, Protocol: ProtocolUDP, DestinationPort: port(p)})
			add(ExemptIKE, Specific{Direction: Out, Source: own, Destination: peers, Protocol: ProtocolUDP, SourcePort: port(p), Own: true})
		}
		add(ExemptESP, Specific{Direction: In, Source: peers, Destination: own, Protocol: ProtocolESP})
		add(ExemptESP, Specific{Direction: Out, Source: own, Destination: peers, Protocol: ProtocolESP, Own: true})
		for _, p := range e.BreakGlassTCP {
			add(ExemptBreakGlass, Specific{Direction: In, Source: peers, Destination: own, Protocol: ProtocolTCP, DestinationPort: port(p)})
			add(ExemptBreakGlass, Specific{Direction: Out, Source: own, Destination: peers, Protocol: ProtocolTCP, SourcePort: port(p)})
		}
		for _, c := range f.Controllers {
			if c.Addr().Is4() != me.Is4() {
				continue
			}
			there := single(c.Addr())
			add(ExemptController, Specific{Direction: Out, Source: own, Destination: there, Protocol: ProtocolTCP, DestinationPort: port(c.Port())})
			add(ExemptController, Specific{Direction: In, Source: there, Destination: own, Protocol: ProtocolTCP, SourcePort: port(c.Port()), Answers: true})
		}
		// Inbound only: it carries the path MTU of our own ESP packets. An outbound one would show the head of a packet
		// that was protected.
		if me.Is4() {
			add(ExemptPathMTU, Specific{Direction: In, Source: peers, Destination: own, Protocol: ProtocolICMP,
				ICMP: ICMP{ICMPOfTypeAndCode, 3, 4}}) // fragmentation needed, RFC 1191
		} else {
			add(ExemptPathMTU, Specific{Direction: In, Source: peers, Destination: own, Protocol: ProtocolICMPv6,
				ICMP: ICMP{ICMPOfType, 2, 0}}) // packet too big, RFC 8201
		}
	}
	if e.Kerberos {
		for _, me := range f.Addresses {
			addKerberos(add, single(me), anyLike(me))
		}
	}
	if e.RSVP {
		addProtocol(add, ExemptRSVP, protocolRSVP, any4, any6)
	}
	if e.ICMP {
		addProtocol(add, ExemptICMP, ProtocolICMP, any4)
		addProtocol(add, ExemptICMP, ProtocolICMPv6, any6)
	}
	addDHCP(add)
	addNeighbours(add)
	if e.Multicast {
		addBoth(add, ExemptMulticast, any4, multicast4)
		addBoth(add, ExemptMulticast, any6, multicast6)
	}
	if e.Broadcast {
		addBoth(add, ExemptBroadcast, any4, broadcast4)
		for _, b := range f.Broadcasts {
			addBoth(add, ExemptBroadcast, any4, single(b))
		}
	}
	return out
}

// addDHCP exempts the client's side of DHCP (RFC 2131 4.1) and DHCPv6 (RFC 8415 7.2). What arrives can reach the
// client's port and no other.
func addDHCP(add func(string, Specific)) {
	add(ExemptDHCP, Specific{Direction: Out, Source: any4, Destination: any4, Protocol: ProtocolUDP, SourcePort: port(68), DestinationPort: port(67)})
	add(ExemptDHCP, Specific{Direction: In, Source: any4, Destination: any4, Protocol: ProtocolUDP, SourcePort: port(67), DestinationPort: port(68)})
	add(ExemptDHCP, Specific{Direction: Out, Source: linkLocal6, Destination: any6, Protocol: ProtocolUDP, SourcePort: port(546), DestinationPort: port(547)})
	add(ExemptDHCP, Specific{Direction: In, Source: linkLocal6, Destination: linkLocal6, Protocol: ProtocolUDP, DestinationPort: port(546)})
}

// addNeighbours exempts router and neighbour discovery (RFC 4861, types 133 to 136) and multicast listener discovery
// (RFC 2710, RFC 3810), without which switches do not deliver the former. Redirects (137) are not among them: no
// protocol breaks without one.
func addNeighbours(add func(string, Specific)) {
	for name, types := range map[string][]uint8{ExemptNeighbour: {133, 134, 135, 136}, ExemptListener: {130, 131, 132, 143}} {
		for _, t := range types {
			for _, d := range []Direction{Out, In} {
				add(name, Specific{Direction: d, Source: any6, Destination: any6, Protocol: ProtocolICMPv6, ICMP: ICMP{ICMPOfType, t, 0}})
			}
		}
	}
}

func addBoth(add func(string, Specific), name string, source, destination Range) {
	add(name, Specific{Direction: Out, Source: source, Destination: destination})
	add(name, Specific{Direction: In, Source: source, Destination: destination})
}

// protocolRSVP is RFC 2205.
const protocolRSVP = 46

// dynamicPorts are those that clients get on Linux (net.ipv4.ip_local_port_range) and by RFC 6335.
var dynamicPorts = PortRange{32768, 65535}

// addKerberos exempts both ends of Kerberos (RFC 4120 7.2). Whoever sends from UDP port 88 can reach the ports of
// clients, which is why Windows gave up this exemption; over TCP it can only answer.
func addKerberos(add func(string, Specific), own, peers Range) {
	kdc := port(88)
	for _, protocol := range []uint8{ProtocolTCP, ProtocolUDP} {
		add(ExemptKerberos, Specific{Direction: Out, Source: own, Destination: peers, Protocol: protocol, DestinationPort: kdc})
		add(ExemptKerberos, Specific{Direction: In, Source: peers, Destination: own, Protocol: protocol, DestinationPort: kdc})
		answer := Specific{Source: own, Destination: peers, Protocol: protocol, SourcePort: kdc, Answers: protocol == ProtocolTCP}
		add(ExemptKerberos, directed(answer, Out))
		answer.Source, answer.Destination, answer.DestinationPort = peers, own, dynamicPorts
		add(ExemptKerberos, directed(answer, In))
	}
}

func addProtocol(add func(string, Specific), name string, protocol uint8, families ...Range) {
	for _, all := range families {
		for _, d := range []Direction{Out, In} {
			add(name, Specific{Direction: d, Source: all, Destination: all, Protocol: protocol})
		}
	}
}
