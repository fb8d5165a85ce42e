package steering

import "github.com/bailiwick-net/bailiwick/policies/spd"

// list is what a chain holds packets against: the filters of a direction, and what becomes of the packets of each.
type list struct {
	direction spd.Direction
	outcome   func(*spd.Specific) outcome
	loopback  Match                      // tells packets on the loopback interface
	passing   bool                       // packets that are forwarded: they are neither of the own sockets nor on loopback
	quoted    bool                       // packets inside ICMP errors
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

// family returns the rules for the packets of one family.
func (c *compiler) family(l list, v6 bool, wanted func(*spd.Specific) bool) []Rule {
	items := make([]item, 0, len(c.filters)/2)
	for i := range c.filters {
		f := &c.filters[i]
		if f.Direction != l.direction || f.Source.Is4() == v6 || !wanted(f) || l.skip != nil && l.skip(f) {
			continue
		}
		if it, ok := c.item(l, f); ok {
			items = append(items, it)
		}
	}
	t := tree{v6: v6, quoted: l.quoted, counted: l.comment != nil, out: &c.out, seen: c.seen}
	return t.rules(items)
}

// item returns a filter as the tree takes it. It returns false for filters that describe no packet here: no interface is
// known as remote access.
func (c *compiler) item(l list, f *spd.Specific) (item, bool) {
	if f.Interfaces == spd.InterfacesRemoteAccess || l.passing && (f.Loopback || f.Own) {
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
