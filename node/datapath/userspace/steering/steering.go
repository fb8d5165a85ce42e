// Package steering compiles a policy into the nftables rules that make the kernel treat packets as spd.Set.Lookup and
// the tables of spd say: permit, drop, or mark for the TUN.
//
// Its invariant: a packet that the policy wants protected is accepted nowhere in clear but by a soft association, an
// inpass rule or an exemption; every race and every loss of an element ends in a drop or in the TUN, where the packet is
// looked up again. It leaves talking to the kernel to its parent.
package steering

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Params are the names and marks that the rules use.
type Params struct {
	Device   string // TUN
	Mask     uint32 // bits of the mark that belong to the backend
	Protect  uint32 // mark of packets for the TUN
	Own      uint32 // mark of the sockets of IKE and ESP
	Reinject uint32 // mark of packets that the backend lets go in clear
	Tunnel   uint32 // mark of packets that came out of the TUN
	Forward  uint32 // mark of packets that are forwarded in clear
	Fresh    uint32 // mark of packets that came through SAs whose outbound half was not used yet, with Kernel
	// Kernel leaves ESP to the kernel. What is to be protected and has no SA goes to Queue, what is marked Fresh to the
	// next one; Device means nothing then, and Tunnel marks what came out of SAs.
	Kernel bool
	Queue  uint16
	// Conntrack has the kernel reassemble fragments by connection tracking, where it has no tproxy. Both are only used
	// for that.
	Conntrack bool
}

// The names of chains, sets and counters that others refer to. Counters of filters are "filter/RULE/FILTER" or
// "exempt/NAME"; they count what the filter describes, whatever became of it.
const (
	ChainOutput = "output"
	ChainInput  = "input"

	CounterGuard      = "guard"       // marked, and about to leave by another device than the TUN: dropped
	CounterClearIn    = "clear-in"    // came in clear where the policy or a live SA wants security: dropped
	CounterGroup      = "group"       // to a group address, where the policy wants security: dropped
	CounterFragment   = "fragment"    // fragments whose ports nobody can read: dropped
	CounterOwn        = "own"         // of the own sockets, but no exemption covers it: dropped
	CounterUnsteered  = "unsteered"   // forwarded, to be protected, but not marked: dropped
	CounterProtect    = "protect"     // sent into the TUN
	CounterFromTunnel = "from-tunnel" // came out of the TUN
	CounterReinjected = "reinjected"
	// Of an address that the machine has and the policy does not know yet: dropped.
	CounterUnknownAddress = "unknown-address"
	// To be protected, and about to leave by an interface of another class than that of its address: dropped.
	CounterCrossed = "crossed"
	// Forwarded for others, and about to leave as the machine's own by source NAT, where the policy wants security: dropped.
	CounterTranslated = "translated"
	// ICMP errors in clear that quote a protected packet: dropped.
	CounterQuoted = "quoted"
)

// The dynamic sets hold the selectors of SAs that no filter asks for: those of the default response.
func dynamicSets(v6 bool) []Set {
	suffix := familySuffix(v6)
	return []Set{
		{Name: "dyn_host" + suffix, IPv6: v6, Key: []Field{Local, Remote}},
		{Name: "dyn_proto" + suffix, IPv6: v6, Key: []Field{Local, Remote, Protocol}},
		{Name: "dyn_port" + suffix, IPv6: v6, Key: []Field{Local, Remote, Protocol, LocalPort, RemotePort}, Interval: true},
	}
}

// DynamicSet returns the set for selectors that name hosts only, a protocol, or ports.
func DynamicSet(v6, protocol, ports bool) Set {
	sets := dynamicSets(v6)
	switch {
	case ports:
		return sets[2]
	case protocol:
		return sets[1]
	}
	return sets[0]
}

// SoftSet returns the set of soft associations of a rule for one direction: answers have to be accepted before the
// first packet goes out, and that one before any later packet.
func SoftSet(ruleID string, d spd.Direction, v6 bool) Set {
	return Set{
		Name: "soft_" + d.String() + "_" + digest(ruleID) + familySuffix(v6), IPv6: v6, Key: []Field{Local, Remote}, Timeout: true,
	}
}

// SecuredSet returns the set of the pairs that were protected once under a rule with spd.FallbackDiscover, and whose
// clear packets are no longer accepted.
func SecuredSet(ruleID string, v6 bool) Set {
	return Set{Name: "secured_" + digest(ruleID) + familySuffix(v6), IPv6: v6, Key: []Field{Local, Remote}}
}

func digest(ruleID string) string {
	sum := sha256.Sum256([]byte(ruleID))
	return hex.EncodeToString(sum[:6])
}

func familySuffix(v6 bool) string {
	if v6 {
		return "6"
	}
	return "4"
}

const (
	chainProtect       = "protect"
	chainProtectOwn    = "protect_own"
	chainClear         = "clear"
	chainClearIn       = "clear_in"
	chainTranslated    = "translated"
	chainNotTranslated = "not_translated"
	chainUnknownOut    = "unknown_out"
	chainUnknownIn     = "unknown_in"
	chainQuoted4       = "quoted4"
	chainQuoted6       = "quoted6"
	chainQuotes        = "quotes"
	chainForwardOut    = "forward_out"
	chainForwardIn     = "forward_in"
	chainForwardClear  = "forward_clear"
	chainForwarded     = "forwarded"
	chainUnsteered     = "unsteered"
	chainTunnels       = "tunnels"
)

// Compile returns the rules for a policy. The zero Set gives rules that permit everything.
func Compile(set spd.Set, p Params) Ruleset {
	c := compiler{set: set, params: p, filters: set.Filters(), seen: map[string]bool{}, own: chainProtect}
	c.out.Sets = c.sets()
	drop := func(name, counter string) {
		c.chain(Chain{Name: name, Rules: []Rule{{Verdict: Drop, Comment: counter}}})
	}
	drop(chainClearIn, CounterClearIn)
	drop(chainNotTranslated, CounterTranslated)
	drop(chainQuotes, CounterQuoted)
	drop(chainUnsteered, CounterUnsteered)
	c.chain(Chain{Name: chainProtect, Rules: append(append(c.groups(),
		// ESP of an address that the policy does not know as the machine's own would go round in circles.
		Rule{Matches: []Match{c.marked(p.Own)}, Verdict: Drop, Comment: CounterOwn},
	), c.protect()...)})
	if crossed := c.crossed(); crossed != nil {
		c.chain(Chain{Name: chainProtectOwn, Rules: append(crossed, Rule{Verdict: Goto, Target: chainProtect})})
		c.own = chainProtectOwn
	}
	c.chain(Chain{Name: chainClear, Rules: append(c.groups(), Rule{Verdict: Accept})})
	c.chain(Chain{Name: chainForwardClear, Rules: append(c.groups(), Rule{Verdict: Goto, Target: chainForwarded})})
	// What is forwarded in clear is looked at again after source NAT, whichever filter let it pass.
	c.chain(Chain{Name: chainForwarded, Rules: []Rule{{Mark: p.Forward, Mask: p.Mask, Verdict: Accept}}})
	c.negotiations()
	c.chain(Chain{Name: chainUnknownOut, Rules: c.addresses(spd.Out)})
	c.chain(Chain{Name: chainUnknownIn, Rules: c.addresses(spd.In)})
	c.chain(Chain{Name: chainTranslated, Rules: c.translated()})
	c.chain(Chain{Name: chainQuoted4, Rules: c.quoted(false)})
	c.chain(Chain{Name: chainQuoted6, Rules: c.quoted(true)})
	c.chain(Chain{Name: chainForwardIn, Rules: c.forwardIn()})
	c.chain(Chain{Name: chainForwardOut, Rules: c.forwardOut()})
	// What leaves is judged as it leaves: with the addresses that destination NAT gave it, and with nobody behind to change
	// the mark. What the others drop does not get here.
	c.chain(Chain{Name: ChainOutput, Hook: HookOutput, Order: OrderLast, Rules: c.output()})
	c.chain(Chain{Name: ChainInput, Hook: HookInput, Rules: c.input()})
	c.chain(Chain{Name: "prerouting", Hook: HookPrerouting, Rules: c.prerouting()})
	c.chain(Chain{Name: "forward", Hook: HookForward, Rules: c.forward()})
	c.chain(Chain{Name: "postrouting", Hook: HookPostrouting, Order: OrderFirst, Rules: c.postrouting()})
	c.chain(Chain{Name: "after_nat", Hook: HookPostrouting, Order: OrderAfterNAT, Rules: []Rule{
		{Matches: []Match{c.marked(p.Forward), LocalAddress{}}, Verdict: Goto, Target: chainTranslated},
	}})
	// Nothing jumps here. A rule like this one makes the kernel reassemble fragments before it asks any rule
	// (nf_defrag); without it, later fragments of IPv6 have no ports that a filter could look at.
	c.chain(Chain{Name: "defrag", Rules: []Rule{{Matches: []Match{Proto(spd.ProtocolTCP), Reassembly{p.Conntrack}}}}})
	return c.out
}

type compiler struct {
	set     spd.Set
	params  Params
	filters []spd.Specific
	out     Ruleset
	seen    map[string]bool // chains and maps with a digest for a name
	own     string          // the chain that protects what the machine itself sends
}

func (c *compiler) chain(chain Chain) { c.out.Chains = append(c.out.Chains, chain) }

func (c *compiler) sets() []Set {
	var out []Set
	for _, v6 := range []bool{false, true} {
		out = append(out, dynamicSets(v6)...)
	}
	seen := map[string]bool{}
	for i := range c.filters {
		rule, ok := c.set.Rule(c.filters[i].RuleID)
		if !ok || !soft(rule) || seen[rule.ID] {
			continue
		}
		seen[rule.ID] = true
		for _, v6 := range []bool{false, true} {
			out = append(out, SoftSet(rule.ID, spd.Out, v6), SoftSet(rule.ID, spd.In, v6))
			if rule.Action.Fallback.Mode == spd.FallbackDiscover {
				out = append(out, SecuredSet(rule.ID, v6))
			}
		}
	}
	return out
}

// soft reports whether a rule may have soft associations. Tunnel rules have none: there is no peer to talk to in clear.
func soft(r *spd.Rule) bool {
	return r.Action.Action == spd.ActionNegotiate && r.Action.Fallback.Mode != spd.FallbackNone && !r.Tunnel.IsValid()
}

func (c *compiler) marked(mark uint32) MarkIs { return MarkIs{Value: mark, Mask: c.params.Mask} }

// groups drops what goes to a group address: IKE has no peer there.
func (c *compiler) groups() []Rule {
	var out []Rule
	for _, g := range c.set.Groups() {
		out = append(out, Rule{
			Matches: []Match{Family{!g.Is4()}, Address{Destination: true, Range: g}}, Verdict: Drop, Comment: CounterGroup,
		})
	}
	return out
}

// forward tells chains for forwarded packets from those for the machine's own.
const forwardSuffix = "_forward"

// negotiation names the chain that decides about packets of a negotiate filter whose rule lets peers talk in clear.
func negotiation(r *spd.Rule, d spd.Direction, v6 bool) string {
	return "negotiate_" + d.String() + "_" + digest(r.ID) + familySuffix(v6)
}

// negotiations adds the chains that packets reach by a negotiate filter, where it depends on the peer what becomes of
// them.
func (c *compiler) negotiations() {
	seen := map[string]bool{}
	for i := range c.filters {
		f := &c.filters[i]
		rule, ok := c.set.Rule(f.RuleID)
		if !ok || f.Action != spd.ActionNegotiate || !soft(rule) || seen[rule.ID] {
			continue
		}
		seen[rule.ID] = true
		for _, v6 := range []bool{false, true} {
			c.chain(Chain{Name: negotiation(rule, spd.Out, v6), Rules: []Rule{
				{Matches: []Match{InSet{Set: SoftSet(rule.ID, spd.Out, v6)}}, Verdict: Goto, Target: chainClear},
				{Verdict: Goto, Target: c.own},
			}})
			in := func(suffix, clear string) {
				var rules []Rule
				with := func(s Set) []Match { return []Match{InSet{Set: s, Inbound: true}} }
				if rule.Action.Fallback.Mode == spd.FallbackDiscover {
					rules = append(rules, Rule{Matches: with(SecuredSet(rule.ID, v6)), Verdict: Goto, Target: chainClearIn})
				}
				rules = append(rules, Rule{Matches: with(SoftSet(rule.ID, spd.In, v6)), Verdict: Goto, Target: clear})
				end := Rule{Verdict: Goto, Target: chainClearIn}
				if rule.Action.Inpass {
					end.Target = clear
				}
				c.chain(Chain{Name: negotiation(rule, spd.In, v6) + suffix, Rules: append(rules, end)})
			}
			in("", chainClear)
			in(forwardSuffix, chainForwardClear)
		}
	}
}

func (c *compiler) output() []Rule {
	out := []Rule{
		{Matches: []Match{c.marked(c.params.Reinject)}, Verdict: Accept, Comment: CounterReinjected},
		// The kernel fragments after this hook; what is a fragment here comes from a raw socket.
		unread(false),
		unread(true),
	}
	list := list{direction: spd.Out, loopback: Interface{Out: true, Name: "lo"}, comment: Counter, outcome: func(f *spd.Specific) outcome {
		switch f.Action {
		case spd.ActionPermit:
			return outcome{Verdict: Accept}
		case spd.ActionNegotiate:
			if rule, ok := c.set.Rule(f.RuleID); ok && soft(rule) {
				return outcome{Verdict: Goto, Target: negotiation(rule, spd.Out, !f.Source.Is4())}
			}
			return outcome{Verdict: Goto, Target: c.own}
		default:
			return outcome{Verdict: Drop}
		}
	}}
	out = append(out, c.exempt(list)...)
	out = append(out, c.unknown(spd.Out)...)
	out = append(out, c.filtered(list)...)
	for _, v6 := range []bool{false, true} {
		for _, s := range dynamicSets(v6) {
			out = append(out, Rule{Matches: []Match{Family{v6}, InSet{Set: s}}, Verdict: Goto, Target: chainProtect})
		}
	}
	return out
}

// unread drops what no filter with ports can be held against. The kernel shows a first fragment of IPv6 alone, instead of
// putting it together with the others, when it lacks headers: it would pass every filter that names a port.
func unread(v6 bool) Rule {
	return Rule{Matches: []Match{Family{v6}, Unread{v6}}, Verdict: Drop, Comment: CounterFragment}
}

func (c *compiler) input() []Rule {
	out := append(c.opened(), unread(true))
	list := list{direction: spd.In, loopback: Interface{Name: "lo"}, comment: Counter, outcome: func(f *spd.Specific) outcome {
		return c.inbound(f, outcome{Verdict: Accept}, chainClear, "")
	}}
	out = append(out, c.exempt(list)...)
	out = append(out, c.unknown(spd.In)...)
	out = append(out, c.filtered(list)...)
	// A flow that an SA protects does not fall back to clear while the SA lives.
	for _, v6 := range []bool{false, true} {
		for _, s := range dynamicSets(v6) {
			out = append(out, Rule{Matches: []Match{Family{v6}, InSet{Set: s, Inbound: true}}, Verdict: Goto, Target: chainClearIn})
		}
	}
	return out
}

// inbound is what becomes of a packet that came in clear.
func (c *compiler) inbound(f *spd.Specific, permit outcome, clear, suffix string) outcome {
	switch f.Action {
	case spd.ActionPermit:
		return permit
	case spd.ActionNegotiate:
	default:
		return outcome{Verdict: Drop}
	}
	rule, ok := c.set.Rule(f.RuleID)
	switch {
	case ok && soft(rule):
		return outcome{Verdict: Goto, Target: negotiation(rule, spd.In, !f.Source.Is4()) + suffix}
	case ok && rule.Action.Inpass:
		return outcome{Verdict: Goto, Target: clear}
	}
	return outcome{Verdict: Goto, Target: chainClearIn}
}

// prerouting marks what a gateway has to send through a tunnel, before the route is chosen.
func (c *compiler) prerouting() []Rule {
	if c.params.Kernel {
		return nil // XFRM looks at what is forwarded by itself
	}
	out := []Rule{
		// The mark lets a strict reverse path filter find the way back through the TUN (src_valid_mark).
		{Matches: []Match{Interface{Name: c.params.Device}}, Mark: c.params.Tunnel, Mask: c.params.Mask, Verdict: Accept},
	}
	tunnels := false
	for i := range c.filters {
		tunnels = tunnels || c.filters[i].Tunnel
	}
	if !tunnels {
		return out
	}
	// The other verdicts are those of the forward chain.
	steered := func(f *spd.Specific) bool { return f.Tunnel && f.Action == spd.ActionNegotiate }
	c.chain(Chain{Name: chainTunnels, Rules: c.all(list{direction: spd.Out, passing: true, unrouted: true, outcome: func(f *spd.Specific) outcome {
		if steered(f) {
			return outcome{Verdict: Goto, Target: chainProtect}
		}
		return outcome{Verdict: Accept}
	}, comment: func(f *spd.Specific) string {
		if steered(f) {
			return Counter(f)
		}
		return "" // it is counted in the forward chain
	}})})
	return append(out, unread(true), Rule{Matches: []Match{LocalDestination{Not: true}}, Verdict: Jump, Target: chainTunnels})
}

func (c *compiler) forward() []Rule {
	out := append(c.strayed(), c.forwarded()...)
	ports := false
	for i := range c.filters {
		f := &c.filters[i]
		ports = ports || f.Exempt == "" && (!f.SourcePort.Any() || !f.DestinationPort.Any())
	}
	if ports {
		out = append(out, unread(false))
	}
	return append(out, unread(true), Rule{Verdict: Goto, Target: chainForwardOut})
}

// forwardOut asks the outbound filters; what they let pass goes on to the inbound ones.
func (c *compiler) forwardOut() []Rule {
	out := c.all(list{direction: spd.Out, passing: true, comment: Counter, outcome: func(f *spd.Specific) outcome {
		switch f.Action {
		case spd.ActionPermit:
			return outcome{Verdict: Goto, Target: chainForwardIn}
		case spd.ActionNegotiate:
			return outcome{Verdict: Goto, Target: c.unsteered(f)}
		default:
			return outcome{Verdict: Drop}
		}
	}})
	return append(out, Rule{Verdict: Goto, Target: chainForwardIn})
}

func (c *compiler) forwardIn() []Rule {
	out := c.all(list{direction: spd.In, passing: true, comment: Counter, outcome: func(f *spd.Specific) outcome {
		return c.inbound(f, outcome{Verdict: Goto, Target: chainForwarded}, chainForwardClear, forwardSuffix)
	}})
	return append(out, Rule{Verdict: Goto, Target: chainForwarded})
}
