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
	return []Rule{{Verdict: Jump, Target: target}}
}

// strayed drops what came out of an SA for an address that the policy knows as the machine's own, and is about to be
// forwarded: the machine has just lost that address, and somebody else may have it.
func (c *compiler) strayed() []Rule {
	known, _ := c.set.Addresses()
	var out []Rule
	for _, v6 := range []bool{false, true} {
		m := Map{Key: Key{Of: Destination, IPv6: v6}}
		for _, a := range known {
			if a.Is6() == v6 {
				m.Elements = append(m.Elements, Element{From: a.AsSlice(), To: a.AsSlice(), Verdict: Drop})
			}
		}
		if len(m.Elements) == 0 {
			continue
		}
		matches := []Match{Interface{Name: c.params.Device}, Family{v6}}
		if c.params.Kernel {
			matches = []Match{Opened{}, c.marked(c.params.Tunnel), Family{v6}}
		}
		t := tree{out: &c.out, seen: c.seen}
		out = append(out, Rule{Matches: matches, Map: t.addMap(m)})
	}
	return out
}

// addresses drops what concerns an address that the kernel has and the policy does not know.
func (c *compiler) addresses(d spd.Direction) []Rule {
	known, exact := c.set.Addresses()
	if !exact {
		return nil
	}
	dimension := Source
	if d == spd.In {
		dimension = Destination
	}
	var out []Rule
	for _, v6 := range []bool{false, true} {
		m := Map{Key: Key{Of: dimension, IPv6: v6}}
		for _, a := range known {
			if a.Is6() == v6 {
				m.Elements = append(m.Elements, Element{From: a.AsSlice(), To: a.AsSlice(), Verdict: Return})
			}
		}
		if len(m.Elements) == 0 {
			continue
		}
		t := tree{out: &c.out, seen: c.seen}
		out = append(out, Rule{Matches: []Match{Family{v6}}, Map: t.addMap(m)})
	}
	if d == spd.Out {
		out = append(out, Rule{Matches: []Match{Family{true}, LocalAddress{Device: true}}, Verdict: Drop, Comment: CounterUnknownAddress})
	}
	return append(out, Rule{Matches: []Match{LocalAddress{Destination: d == spd.In}}, Verdict: Drop, Comment: CounterUnknownAddress})
}

// crossed drops what is to be protected, and about to leave by an interface of another class than the one that has its
// address: who makes its SA knows nothing but the address, and would go by the rules of the wrong class.
func (c *compiler) crossed() []Rule {
	if !c.set.Limited() || len(c.set.RemoteInterfaces()) == 0 {
		return nil
	}
	known, _ := c.set.Addresses()
	t := tree{out: &c.out, seen: c.seen}
	var out []Rule
	for _, v6 := range []bool{false, true} {
		maps := map[spd.Interfaces]*Map{}
		for _, class := range []spd.Interfaces{spd.InterfacesLAN, spd.InterfacesRemoteAccess} {
			m := Map{Key: Key{Of: Source, IPv6: v6}}
			for _, a := range known {
				if a.Is6() == v6 && c.set.Class(a) == class {
					m.Elements = append(m.Elements, Element{From: a.AsSlice(), To: a.AsSlice(), Verdict: Drop, Comment: CounterCrossed})
				}
			}
			if m.Counted = true; len(m.Elements) > 0 {
				maps[class] = t.addMap(m)
			}
		}
		var onRemote, onLAN []Rule
		if m := maps[spd.InterfacesLAN]; m != nil {
			onRemote = append(onRemote, Rule{Map: m})
		}
		if m := maps[spd.InterfacesRemoteAccess]; m != nil {
			onLAN = append(onLAN, Rule{Map: m})
		}
		if len(onRemote)+len(onLAN) == 0 {
			continue
		}
		remote := t.addChain(onRemote)
		split := t.addChain(append(c.remote(list{direction: spd.Out}, Rule{Verdict: Goto, Target: remote}), onLAN...))
		out = append(out, Rule{Matches: []Match{Family{v6}}, Verdict: Jump, Target: split})
	}
	return out
}

// postrouting are the last looks at what leaves.
func (c *compiler) postrouting() []Rule {
	out := c.guard()
	if !c.negotiatesIn() {
		return out
	}
	if !c.params.Kernel {
		out = append(out, Rule{Matches: []Match{Interface{Out: true, Name: c.params.Device}}, Verdict: Accept})
	}
	return append(out,
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
	return c.all(list{direction: spd.Out, passing: true, outcome: func(f *spd.Specific) outcome {
		switch f.Action {
		case spd.ActionPermit:
			return outcome{Verdict: Accept}
		case spd.ActionNegotiate:
			if rule, ok := c.set.Rule(f.RuleID); ok && soft(rule) {
				name := "translated_" + digest(rule.ID) + familySuffix(v6(f))
				if !c.seen[name] {
					c.seen[name] = true
					c.chain(Chain{Name: name, Rules: []Rule{
						{Matches: []Match{InSet{Set: SoftSet(rule.ID, spd.Out, v6(f))}}, Verdict: Accept},
						{Verdict: Goto, Target: chainNotTranslated},
					}})
				}
				return outcome{Verdict: Goto, Target: name}
			}
		default: // blocked: dropped as it stands
		}
		return outcome{Verdict: Goto, Target: chainNotTranslated}
	}})
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
		return Rule{Matches: []Match{Quoted{IPv6: v6, Of: m}}, Verdict: Goto, Target: chainQuotes}
	}
	var out []Rule
	if v6 { // behind extension headers the ports are somewhere else
		for _, header := range []uint8{0, 43, 44, 51, 60} {
			out = append(out, plain(Proto(header)))
		}
	} else {
		out = append(out, plain(NoOptions{Not: true}))
	}
	list := list{direction: spd.In, passing: true, quoted: true, outcome: func(f *spd.Specific) outcome {
		if f.Action != spd.ActionNegotiate {
			return outcome{Verdict: Accept}
		}
		if rule, ok := c.set.Rule(f.RuleID); ok && soft(rule) {
			// The error goes back the way on which the packet came.
			name := "quoted_" + digest(rule.ID) + familySuffix(v6)
			if !c.seen[name] {
				c.seen[name] = true
				c.chain(Chain{Name: name, Rules: []Rule{
					{Matches: []Match{InSet{Set: SoftSet(rule.ID, spd.In, v6)}}, Verdict: Accept},
					{Verdict: Goto, Target: chainQuotes},
				}})
			}
			return outcome{Verdict: Goto, Target: name}
		}
		return outcome{Verdict: Goto, Target: chainQuotes}
	}, skip: func(f *spd.Specific) bool { return f.ICMP.Scope != spd.ICMPEvery }}
	return append(out, c.family(list, v6, func(*spd.Specific) bool { return true })...)
}
