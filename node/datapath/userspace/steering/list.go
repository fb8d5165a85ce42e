package steering

import (
	"slices"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// list is what a chain holds packets against: the filters of a direction, and what becomes of the packets of each.
type list struct {
	direction spd.Direction
	outcome   func(*spd.Specific) outcome
	loopback  Match                      // tells packets on the loopback interface
	passing   bool                       // packets that are forwarded: they are neither of the own sockets nor on loopback
	quoted    bool                       // packets inside ICMP errors, which go back by the interface that they came in by
	unrouted  bool                       // the interface that they leave by is not chosen yet
	comment   func(*spd.Specific) string // under which packets are counted; nil counts none
	skip      func(*spd.Specific) bool
}

// exempt, filtered and all return the rules of the exemptions, of the filters, and of both.
func (c *compiler) exempt(l list) []Rule {
	return c.classify(l, func(f *spd.Specific) bool { return f.Exempt != "" })
}

func (c *compiler) filtered(l list) []Rule {
	return c.classify(l, func(f *spd.Specific) bool { return f.Exempt == "" })
}

func (c *compiler) all(l list) []Rule {
	return c.classify(l, func(*spd.Specific) bool { return true })
}

func (c *compiler) classify(l list, wanted func(*spd.Specific) bool) []Rule {
	var out []Rule
	for _, v6 := range []bool{false, true} {
		rules := c.family(l, v6, wanted)
		if len(rules) == 0 {
			continue
		}
		t := tree{out: &c.out, seen: c.seen}
		out = append(out, Rule{Matches: []Match{Family{v6}}, Verdict: Jump, Target: t.addChain(rules)})
	}
	return out
}

// family returns the rules for the packets of one family. Where filters are limited to a class of interfaces, there is a
// tree for each class; the last rules that a chain asks have to be these.
func (c *compiler) family(l list, v6 bool, wanted func(*spd.Specific) bool) []Rule {
	if !c.limited(l, v6, wanted) {
		return c.tree(l, v6, wanted, spd.InterfacesLAN)
	}
	t := tree{out: &c.out, seen: c.seen}
	remote := t.addChain(c.tree(l, v6, wanted, spd.InterfacesRemoteAccess))
	return append(c.remote(l, Rule{Verdict: Goto, Target: remote}), c.tree(l, v6, wanted, spd.InterfacesLAN)...)
}

// remote repeats a rule for each of the interfaces for remote access.
func (c *compiler) remote(l list, rule Rule) []Rule {
	var out []Rule
	for _, name := range c.set.RemoteInterfaces() {
		r := rule
		r.Matches = append(slices.Clone(rule.Matches), Interface{Out: l.direction == spd.Out != l.quoted, Route: l.unrouted, Name: name})
		out = append(out, r)
	}
	return out
}

// limited reports whether some filters of a list are for a class of interfaces, of which this machine may have both.
func (c *compiler) limited(l list, v6 bool, wanted func(*spd.Specific) bool) bool {
	return len(c.set.RemoteInterfaces()) > 0 && slices.ContainsFunc(c.filters, func(f spd.Specific) bool {
		return f.Interfaces != spd.InterfacesAll && f.Direction == l.direction && f.Source.Is4() != v6 && wanted(&f) && (l.skip == nil || !l.skip(&f))
	})
}

// tree returns the rules for the packets of one family on interfaces of one class.
func (c *compiler) tree(l list, v6 bool, wanted func(*spd.Specific) bool, class spd.Interfaces) []Rule {
	items := make([]item, 0, len(c.filters)/2)
	for i := range c.filters {
		f := &c.filters[i]
		if f.Direction != l.direction || f.Source.Is4() == v6 || !wanted(f) || l.skip != nil && l.skip(f) {
			continue
		}
		if f.Interfaces != spd.InterfacesAll && f.Interfaces != class {
			continue
		}
		if it, ok := c.item(l, f); ok {
			items = append(items, it)
		}
	}
	t := tree{v6: v6, quoted: l.quoted, counted: l.comment != nil, out: &c.out, seen: c.seen, deepest: deepest}
	if c.limited(l, v6, wanted) {
		t.deepest-- // the chain of the class is one more
	}
	return t.rules(items)
}

// item returns a filter as the tree takes it. It returns false for filters that describe no packet here.
func (c *compiler) item(l list, f *spd.Specific) (item, bool) {
	if l.passing && (f.Loopback || f.Own) {
		return item{}, false
	}
	it := item{outcome: l.outcome(f)}
	if l.comment != nil {
		it.Comment = l.comment(f)
	}
	if f.Loopback {
		it.extra = append(it.extra, l.loopback)
	}
	if f.Own {
		it.extra = append(it.extra, c.marked(c.params.Own))
	}
	if !whole(f.Source) {
		it.bind(Source, spanOf(f.Source))
	}
	if !whole(f.Destination) {
		it.bind(Destination, spanOf(f.Destination))
	}
	if f.Protocol == 0 {
		return it, true
	}
	it.bind(L4Protocol, numbers(uint16(f.Protocol), uint16(f.Protocol)))
	if !f.SourcePort.Any() {
		it.bind(SourcePort, numbers(f.SourcePort.Bounds()))
	}
	if !f.DestinationPort.Any() {
		it.bind(DestinationPort, numbers(f.DestinationPort.Bounds()))
	}
	if f.Answers {
		it.extra = append(it.extra, Opening{Not: true})
	}
	if f.ICMP.Scope != spd.ICMPEvery {
		it.bind(ICMPType, numbers(uint16(f.ICMP.Type), uint16(f.ICMP.Type)))
	}
	if f.ICMP.Scope == spd.ICMPOfTypeAndCode {
		it.extra = append(it.extra, ICMPCode{IPv6: v6(f), Code: f.ICMP.Code})
	}
	return it, true
}

func v6(f *spd.Specific) bool { return !f.Source.Is4() }

// Counter names the counter of what a filter describes, whatever became of it. A filter with several addresses or directions
// has one.
func Counter(f *spd.Specific) string {
	if f.Exempt != "" {
		return "exempt/" + f.Exempt
	}
	s := "filter/" + f.RuleID + "/" + f.FilterID
	return s[:min(len(s), 120)] // the kernel keeps at most 255 octets of user data
}
