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
	// Conntrack has the kernel reassemble fragments by connection tracking, where it has no tproxy. Both are only used
	// for that.
	Conntrack bool
}

// The names of chains, sets and counters that others refer to. Counters of filters are "filter/RULE/FILTER" or
// "exempt/NAME".
const (
	ChainOutput = "output"
	ChainInput  = "input"

	CounterGuard      = "guard"       // marked, and about to leave by another device than the TUN: dropped
	CounterClearIn    = "clear-in"    // came in clear where the policy or a live SA wants security: dropped
	CounterGroup      = "group"       // to a group address, where the policy wants security: dropped
	CounterFragment   = "fragment"    // later fragments that ports decide about: dropped
	CounterOwn        = "own"         // of the own sockets, but no exemption covers it: dropped
	CounterUnsteered  = "unsteered"   // forwarded, to be protected, but not marked: dropped
	CounterProtect    = "protect"     // sent into the TUN
	CounterFromTunnel = "from-tunnel" // came out of the TUN
	CounterReinjected = "reinjected"
	// Of an address that the machine has and the policy does not know yet: dropped.
	CounterUnknownAddress = "unknown-address"
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
	chainProtect    = "protect"
	chainClear      = "clear"
	chainTranslated = "translated"
	chainUnknownOut = "unknown_out"
	chainUnknownIn  = "unknown_in"
	chainQuoted4    = "quoted4"
	chainQuoted6    = "quoted6"
	chainForwardOut = "forward_out"
	chainForwardIn  = "forward_in"
)

// Compile returns the rules for a policy. The zero Set gives rules that permit everything.
func Compile(set spd.Set, p Params) Ruleset {
	c := compiler{set: set, params: p, filters: set.Filters()}
	return Ruleset{Sets: c.sets(), Chains: []Chain{
		{Name: ChainOutput, Hook: HookOutput, Rules: c.output()},
		{Name: ChainInput, Hook: HookInput, Rules: c.input()},
		{Name: "prerouting", Hook: HookPrerouting, Rules: c.prerouting()},
		{Name: "forward", Hook: HookForward, Rules: c.forward()},
		{Name: "postrouting", Hook: HookPostrouting, Rules: c.postrouting()},
		{Name: "after_nat", Hook: HookPostrouting, Late: true, Rules: []Rule{
			{Matches: []Match{c.marked(p.Forward), LocalAddress{}}, Verdict: Goto, Target: chainTranslated},
		}},
		{Name: chainTranslated, Rules: c.translated()},
		{Name: chainUnknownOut, Rules: c.addresses(spd.Out)},
		{Name: chainUnknownIn, Rules: c.addresses(spd.In)},
		{Name: chainQuoted4, Rules: c.quoted(false)},
		{Name: chainQuoted6, Rules: c.quoted(true)},
		{Name: chainProtect, Rules: append(c.groups(),
			// ESP of an address that the policy does not know as the machine's own would go round in circles.
			Rule{Matches: []Match{c.marked(p.Own)}, Verdict: Drop, Comment: CounterOwn},
			Rule{Mark: p.Protect, Mask: p.Mask, Verdict: Accept, Comment: CounterProtect},
		)},
		{Name: chainClear, Rules: append(c.groups(), Rule{Verdict: Accept})},
		{Name: chainForwardOut, Rules: c.forwardOut()},
		{Name: chainForwardIn, Rules: c.forwardIn()},
		// Nothing jumps here. A rule like this one makes the kernel reassemble fragments before it asks any rule
		// (nf_defrag); without it, later fragments of IPv6 have no ports that a filter could look at.
		{Name: "defrag", Rules: []Rule{{Matches: []Match{Proto(spd.ProtocolTCP), Reassembly{p.Conntrack}}}}},
	}}
}

type compiler struct {
	set     spd.Set
	params  Params
	filters []spd.Specific
}

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

func (c *compiler) output() []Rule {
	out := []Rule{
		{Matches: []Match{c.marked(c.params.Reinject)}, Verdict: Accept, Comment: CounterReinjected},
		// The kernel fragments after this hook; what is a fragment here comes from a raw socket.
		{Matches: []Match{Family{false}, LaterFragment{false}}, Verdict: Drop, Comment: CounterFragment},
		{Matches: []Match{Family{true}, LaterFragment{true}}, Verdict: Drop, Comment: CounterFragment},
	}
	known := false // the exemptions come first
	for i := range c.filters {
		f := &c.filters[i]
		if f.Direction != spd.Out {
			continue
		}
		if f.Exempt == "" && !known {
			out, known = append(out, c.unknown(spd.Out)...), true
		}
		matches, ok := c.matches(f, Interface{Out: true, Name: "lo"})
		if !ok {
			continue
		}
		switch f.Action {
		case spd.ActionPermit:
			out = append(out, Rule{Matches: matches, Verdict: Accept, Comment: comment(f)})
		case spd.ActionNegotiate:
			if rule, ok := c.set.Rule(f.RuleID); ok && soft(rule) {
				pass := append(matches[:len(matches):len(matches)], InSet{Set: SoftSet(rule.ID, spd.Out, !f.Source.Is4())})
				out = append(out, Rule{Matches: pass, Verdict: Goto, Target: chainClear, Comment: comment(f)})
			}
			out = append(out, Rule{Matches: matches, Verdict: Goto, Target: chainProtect, Comment: comment(f)})
		default:
			out = append(out, Rule{Matches: matches, Verdict: Drop, Comment: comment(f)})
		}
	}
	if !known {
		out = append(out, c.unknown(spd.Out)...)
	}
	for _, v6 := range []bool{false, true} {
		for _, s := range dynamicSets(v6) {
			out = append(out, Rule{Matches: []Match{Family{v6}, InSet{Set: s}}, Verdict: Goto, Target: chainProtect})
		}
	}
	return out
}

func (c *compiler) input() []Rule {
	out := []Rule{
		{Matches: []Match{Interface{Name: c.params.Device}}, Verdict: Accept, Comment: CounterFromTunnel},
	}
	known := false
	for i := range c.filters {
		f := &c.filters[i]
		if f.Direction != spd.In {
			continue
		}
		if f.Exempt == "" && !known {
			out, known = append(out, c.unknown(spd.In)...), true
		}
		if matches, ok := c.matches(f, Interface{Name: "lo"}); ok {
			out = append(out, c.inbound(f, matches)...)
		}
	}
	if !known {
		out = append(out, c.unknown(spd.In)...)
	}
	// A flow that an SA protects does not fall back to clear while the SA lives.
	for _, v6 := range []bool{false, true} {
		for _, s := range dynamicSets(v6) {
			out = append(out, Rule{
				Matches: []Match{Family{v6}, InSet{Set: s, Inbound: true}}, Verdict: Drop, Comment: CounterClearIn,
			})
		}
	}
	return out
}

// inbound are the rules of one filter for packets that came in clear.
func (c *compiler) inbound(f *spd.Specific, matches []Match) []Rule {
	switch f.Action {
	case spd.ActionPermit:
		return []Rule{{Matches: matches, Verdict: Accept, Comment: comment(f)}}
	case spd.ActionNegotiate:
	default:
		return []Rule{{Matches: matches, Verdict: Drop, Comment: comment(f)}}
	}
	rule, ok := c.set.Rule(f.RuleID)
	if !ok {
		return []Rule{{Matches: matches, Verdict: Drop, Comment: CounterClearIn}}
	}
	with := func(s Set) []Match {
		return append(matches[:len(matches):len(matches)], InSet{Set: s, Inbound: true})
	}
	v6 := !f.Source.Is4()
	var out []Rule
	if soft(rule) {
		if rule.Action.Fallback.Mode == spd.FallbackDiscover {
			out = append(out, Rule{Matches: with(SecuredSet(rule.ID, v6)), Verdict: Drop, Comment: CounterClearIn})
		}
		out = append(out, Rule{Matches: with(SoftSet(rule.ID, spd.In, v6)), Verdict: Goto, Target: chainClear, Comment: comment(f)})
	}
	if rule.Action.Inpass {
		return append(out, Rule{Matches: matches, Verdict: Goto, Target: chainClear, Comment: comment(f)})
	}
	return append(out, Rule{Matches: matches, Verdict: Drop, Comment: CounterClearIn})
}

// prerouting marks what a gateway has to send through a tunnel, before the route is chosen.
func (c *compiler) prerouting() []Rule {
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
	for i := range c.filters {
		f := &c.filters[i]
		if f.Direction != spd.Out {
			continue
		}
		matches, ok := c.matches(f, Interface{Name: "lo"})
		if !ok || f.Loopback {
			continue
		}
		matches = append([]Match{LocalDestination{Not: true}}, matches...)
		if f.Tunnel && f.Action == spd.ActionNegotiate {
			out = append(out, Rule{Matches: matches, Verdict: Goto, Target: chainProtect, Comment: comment(f)})
			continue
		}
		// The verdict is that of the forward chain.
		out = append(out, Rule{Matches: matches, Verdict: Accept})
	}
	return out
}

func (c *compiler) forward() []Rule {
	out := []Rule{
		{Matches: []Match{Interface{Name: c.params.Device}}, Verdict: Accept, Comment: CounterFromTunnel},
		{Matches: []Match{Interface{Out: true, Name: c.params.Device}}, Verdict: Accept, Comment: CounterProtect},
	}
	ports := false
	for i := range c.filters {
		f := &c.filters[i]
		ports = ports || f.Exempt == "" && (!f.SourcePort.Any() || !f.DestinationPort.Any())
	}
	if ports {
		for _, v6 := range []bool{false, true} {
			out = append(out, Rule{Matches: []Match{Family{v6}, LaterFragment{v6}}, Verdict: Drop, Comment: CounterFragment})
		}
	}
	return append(out, Rule{Verdict: Jump, Target: chainForwardOut}, Rule{Verdict: Jump, Target: chainForwardIn},
		Rule{Mark: c.params.Forward, Mask: c.params.Mask})
}

func (c *compiler) forwardOut() []Rule {
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
		r := Rule{Matches: matches, Verdict: Drop, Comment: comment(f)}
		switch f.Action {
		case spd.ActionPermit:
			r.Verdict = Return
		case spd.ActionNegotiate:
			r.Comment = CounterUnsteered
		case spd.ActionBlock:
		}
		out = append(out, r)
	}
	return out
}

func (c *compiler) forwardIn() []Rule {
	var out []Rule
	for i := range c.filters {
		f := &c.filters[i]
		if f.Direction != spd.In || f.Loopback {
			continue
		}
		if matches, ok := c.matches(f, nil); ok {
			out = append(out, c.inbound(f, matches)...)
		}
	}
	return out
}

// matches are the conditions of a filter; loopback is what tells packets on the loopback interface. It returns false
// for filters that describe no packet here: no interface is known as remote access.
func (c *compiler) matches(f *spd.Specific, loopback Match) ([]Match, bool) {
	if f.Interfaces == spd.InterfacesRemoteAccess {
		return nil, false
	}
	out := []Match{Family{!f.Source.Is4()}}
	if f.Loopback {
		out = append(out, loopback)
	}
	if f.Own {
		out = append(out, c.marked(c.params.Own))
	}
	if !whole(f.Source) {
		out = append(out, Address{Range: f.Source})
	}
	if !whole(f.Destination) {
		out = append(out, Address{Destination: true, Range: f.Destination})
	}
	if f.Protocol == 0 {
		return out, true
	}
	out = append(out, Proto(f.Protocol))
	if !f.SourcePort.Any() {
		from, to := f.SourcePort.Bounds()
		out = append(out, Ports{From: from, To: to})
	}
	if !f.DestinationPort.Any() {
		from, to := f.DestinationPort.Bounds()
		out = append(out, Ports{Destination: true, From: from, To: to})
	}
	if f.Answers {
		out = append(out, Opening{Not: true})
	}
	if f.ICMP.Scope != spd.ICMPEvery {
		out = append(out, ICMP{
			IPv6: f.Protocol == spd.ProtocolICMPv6, Type: f.ICMP.Type, Code: f.ICMP.Code, AnyCode: f.ICMP.Scope == spd.ICMPOfType,
		})
	}
	return out, true
}

func comment(f *spd.Specific) string {
	if f.Exempt != "" {
		return "exempt/" + f.Exempt
	}
	s := "filter/" + f.RuleID + "/" + f.FilterID
	return s[:min(len(s), 120)] // the kernel keeps at most 255 octets of user data
}
