package steering

import (
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// unknown looks closer at what concerns an address of this machine, where filters are about those: the time between
// "ip addr add" and the next ruleset is not one of clear traffic.
func (c *compiler) unknown(d spd.Direction) []Rule {
	if _, exact := c.set.Addresses(); !exact {
		return nil
	}
	target := chainUnknownOut
	if d == spd.In {
		target = chainUnknownIn
	}
	return []Rule{{Matches: []Match{LocalAddress{Destination: d == spd.In}}, Verdict: Jump, Target: target}}
}

// addresses drops what concerns an address that the kernel has and the policy does not know. Each known address has a
// rule of its own, because the kernel bounds the length of a rule.
func (c *compiler) addresses(d spd.Direction) []Rule {
	known, exact := c.set.Addresses()
	if !exact {
		return nil
	}
	var out []Rule
	for _, a := range known {
		out = append(out, Rule{
			Matches: []Match{Family{a.Is6()}, Address{Destination: d == spd.In, Range: spd.Range{From: a, To: a}}}, Verdict: Return,
		})
	}
	return append(out, Rule{Verdict: Drop, Comment: CounterUnknownAddress})
}

// postrouting are the last looks at what leaves.
func (c *compiler) postrouting() []Rule {
	out := []Rule{{
		// What lost its way to the TUN (socket bound to a device, link-local destination, policy routing changed by
		// others, no TUN) dies here.
		Matches: []Match{c.marked(c.params.Protect), Interface{Out: true, Not: true, Name: c.params.Device}},
		Verdict: Drop, Comment: CounterGuard,
	}}
	if !c.negotiatesIn() {
		return out
	}
	return append(out,
		Rule{Matches: []Match{Interface{Out: true, Name: c.params.Device}}, Verdict: Accept},
		Rule{Matches: []Match{Interface{Out: true, Name: "lo"}}, Verdict: Accept},
		// The ICMP errors: destination unreachable, source quench, redirect; time exceeded, parameter problem (RFC 792).
		Rule{Matches: []Match{Family{false}, Proto(spd.ProtocolICMP), ICMPTypes{From: 3, To: 5}}, Verdict: Goto, Target: chainQuoted4},
		Rule{Matches: []Match{Family{false}, Proto(spd.ProtocolICMP), ICMPTypes{From: 11, To: 12}}, Verdict: Goto, Target: chainQuoted4},
		// RFC 4443 2.1: error messages have types below 128.
		Rule{Matches: []Match{Family{true}, Proto(spd.ProtocolICMPv6), ICMPTypes{IPv6: true, To: 127}}, Verdict: Goto, Target: chainQuoted6},
	)
}

// translated looks again at what is forwarded in clear and got an address of this machine by source NAT, as the traffic of
// containers does: on the wire it is the machine's own, and nothing else may tell it from that.
func (c *compiler) translated() []Rule {
	if _, exact := c.set.Addresses(); !exact {
		return nil
	}
	var out []Rule
	for i := range c.filters {
		f := &c.filters[i]
		if f.Direction != spd.Out || f.Loopback || f.Own {
			continue
		}
		matches, ok := c.matches(f, nil)
		if !ok {
			continue
		}
		r := Rule{Matches: matches, Verdict: Drop, Comment: CounterTranslated}
		switch f.Action {
		case spd.ActionPermit:
			r.Verdict, r.Comment = Accept, ""
		case spd.ActionNegotiate:
			if rule, ok := c.set.Rule(f.RuleID); ok && soft(rule) {
				pass := append(matches[:len(matches):len(matches)], InSet{Set: SoftSet(rule.ID, spd.Out, !f.Source.Is4())})
				out = append(out, Rule{Matches: pass, Verdict: Accept})
			}
		default: // blocked: dropped as it stands
		}
		out = append(out, r)
	}
	return out
}

func (c *compiler) negotiatesIn() bool {
	for i := range c.filters {
		if f := &c.filters[i]; f.Direction == spd.In && f.Action == spd.ActionNegotiate {
			return true
		}
	}
	return false
}

// quoted drops the ICMP errors that are about to leave in clear and show the head of a packet that came in protected:
// where the policy permits ICMP, "port unreachable" would tell on the wire what an SA had hidden (RFC 4301 6). What is
// quoted was an inbound packet. Where a soft association covers the pair, it may have come in clear.
func (c *compiler) quoted(v6 bool) []Rule {
	if !c.negotiatesIn() {
		return nil
	}
	plain := func(m Match) Rule {
		return Rule{Matches: []Match{Quoted{IPv6: v6, Of: m}}, Verdict: Drop, Comment: CounterQuoted}
	}
	var out []Rule
	if v6 { // behind extension headers the ports are somewhere else
		for _, header := range []uint8{0, 43, 44, 51, 60} {
			out = append(out, plain(Proto(header)))
		}
	} else {
		out = append(out, plain(NoOptions{Not: true}))
	}
	for i := range c.filters {
		f := &c.filters[i]
		if f.Direction != spd.In || f.Source.Is4() == v6 || f.Loopback || f.Own || f.ICMP.Scope != spd.ICMPEvery || f.Interfaces == spd.InterfacesRemoteAccess {
			continue
		}
		var matches []Match
		add := func(m Match) { matches = append(matches, Quoted{IPv6: v6, Of: m}) }
		if !whole(f.Source) {
			add(Address{Range: f.Source})
		}
		if !whole(f.Destination) {
			add(Address{Destination: true, Range: f.Destination})
		}
		if f.Protocol != 0 {
			add(Proto(f.Protocol))
			for _, p := range []Ports{portsOf(f.SourcePort, false), portsOf(f.DestinationPort, true)} {
				if p != (Ports{Destination: p.Destination, To: 65535}) {
					add(p)
				}
			}
		}
		if f.Action != spd.ActionNegotiate {
			out = append(out, Rule{Matches: matches, Verdict: Return})
			continue
		}
		if rule, ok := c.set.Rule(f.RuleID); ok && soft(rule) {
			// The error goes back the way on which the packet came.
			in := append(matches[:len(matches):len(matches)], Family{v6}, InSet{Set: SoftSet(rule.ID, spd.In, v6)})
			out = append(out, Rule{Matches: in, Verdict: Return})
		}
		out = append(out, Rule{Matches: matches, Verdict: Drop, Comment: CounterQuoted})
	}
	return out
}

func portsOf(r spd.PortRange, destination bool) Ports {
	from, to := r.Bounds()
	return Ports{Destination: destination, From: from, To: to}
}
