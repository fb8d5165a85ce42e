package gpipsec

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// defaultPolling is the interval that Windows asks at, in seconds.
const defaultPolling = 10800

func (c *converter) policy(o object) {
	name := c.title(policies.KindPolicy, o, "Windows policy")
	c.policyNames[o.dn.Key()] = name
	doc := named(policies.KindPolicy, name)
	p := policies.Policy{
		Meta: policies.Meta{Name: name, Description: o.description},
		// "Any" of Windows leaves multicast and broadcast alone unless the machine's NoDefaultExempt says otherwise.
		Exemptions: policies.Exemptions{Multicast: true, Broadcast: true},
	}
	v, err := ParsePolicy(o.data())
	switch {
	case err != nil:
		c.note(doc, "its own settings cannot be read: %v", err)
	case v.Polling != 0 && v.Polling != defaultPolling:
		c.note(doc, "machines asked for changes every %s; nodes are told at once", time.Duration(v.Polling)*time.Second)
	}
	options := c.keyExchange(doc, o, &p)
	rules := c.rulesOf(doc, o)
	b := &policyBuilder{converter: c, source: o, doc: doc, policy: &p, options: options, taken: map[string]bool{}}
	for _, r := range rules {
		b.rule(r)
	}
	b.joinTunnels()
	c.note(doc, "addresses written as me and any mean IPv6 as well, which they did not in Windows before Vista")
	c.result.Documents.Policies = append(c.result.Documents.Policies, p)
}

// rulesOf finds the rules of a policy by both references: its own, and theirs to it.
func (c *converter) rulesOf(doc string, o object) []object {
	found := map[string]object{}
	for _, dn := range o.entry.Values("ipsecNFAReference") {
		r, missing := refer(c.rules, dn)
		if missing != "" {
			c.gap(o, doc, "names the rule %s: left out", missing)
			continue
		}
		found[r.dn.Key()] = r
	}
	for key, r := range c.rules {
		if refersTo(r, "ipsecOwnersReference", o.dn) {
			found[key] = r
		}
	}
	switch {
	case len(found) == 0:
		// Windows makes no policy without a rule: that of the default response is always there.
		c.gap(o, doc, "has no rule that can be seen: it is empty, or the reader may not see its rules")
	case len(o.entry.Values("ipsecNFAReference")) == 0:
		c.gap(o, doc, "names no rule, though rules name it: the reader may not see all of them")
	}
	return sorted(found)
}

func refersTo(o object, attribute string, dn directory.DN) bool {
	return slices.ContainsFunc(o.entry.Values(attribute), func(s string) bool {
		parsed, err := directory.ParseDN(s)
		return err == nil && parsed.Equal(dn)
	})
}

// mainMode options of a policy.
const (
	optionMapAccount = 1
	optionHideCA     = 2
)

// keyExchange reads the main mode settings into p and returns their options.
func (c *converter) keyExchange(doc string, o object, p *policies.Policy) uint32 {
	reference := o.value("ipsecISAKMPReference")
	if reference == "" {
		c.note(doc, "has no main mode settings: the defaults apply")
		return 0
	}
	m, missing := refer(c.mainModes, reference)
	if missing != "" {
		c.note(doc, "names the main mode settings %s: the defaults apply", missing)
		return 0
	}
	v, err := ParseMainMode(m.data())
	if err != nil {
		c.note(doc, "its main mode settings cannot be read, the defaults apply: %v", err)
		return 0
	}
	c.noteUnknown(doc, "main mode settings", v.Unknown)
	var names []string
	for _, code := range v.NewDH {
		if name, ok := overrides[code]; ok {
			names = append(names, name)
		}
	}
	seconds := v.Lifetime
	for _, m := range v.Methods {
		names = append(names, m.String())
		if seconds == 0 {
			seconds = m.Seconds
		}
		if m.Kilobytes != 0 {
			c.note(doc, "limits an IKE SA to %d kB; IKE SAs are limited by time alone", m.Kilobytes)
		}
	}
	if len(names) > 0 {
		c.note(doc, "offered %s in main mode, which are never negotiated: the defaults take their place", strings.Join(names, ", "))
	}
	if seconds != 0 {
		p.KeyExchange.Lifetime = time.Duration(seconds) * time.Second
	}
	switch {
	case v.MasterPFS:
		p.KeyExchange.ChildLimit = 1
	case v.Limit > spd.MaxChildLimit:
		c.note(doc, "allows %d quick modes per main mode, which is no limit here", v.Limit)
	default:
		p.KeyExchange.ChildLimit = int(v.Limit)
	}
	return v.Options
}

func (c *converter) noteUnknown(doc, what string, octets int) {
	if octets > 0 {
		c.note(doc, "%d octets at the end of its %s are not understood and left out", octets, what)
	}
}

// policyBuilder makes the rules of one policy.
type policyBuilder struct {
	*converter
	source  object
	doc     string
	policy  *policies.Policy
	options uint32
	taken   map[string]bool // names of rules
	tunnels []tunnelRule
}

// tunnelRule is a rule of a tunnel with the list and action that it uses.
type tunnelRule struct {
	index  int // in the rules of the policy
	list   policies.FilterList
	remote netip.Addr
}

func (b *policyBuilder) rule(o object) {
	v, err := ParseRule(o.data())
	if err != nil {
		b.gap(b.source, b.doc, "rule %s cannot be read and is left out: %v", o.called(), err)
		return
	}
	gap := b.gap
	if !v.Active {
		gap = func(_ object, doc, format string, args ...any) { b.note(doc, format, args...) }
	}
	b.noteUnknown(b.doc, "rule "+o.called(), v.Unknown)
	negotiation, missing := refer(b.negotiations, o.value("ipsecNegotiationPolicyReference"))
	if missing != "" {
		gap(b.source, b.doc, "rule %s names the filter action %s: the rule is left out", o.called(), missing)
		return
	}
	if strings.EqualFold(negotiation.value("iPSECNegotiationPolicyType"), typeDefaultResponse) {
		b.defaultResponse(o, v, negotiation)
		return
	}
	lists, missing := b.listsOf(o)
	if missing != "" {
		gap(b.source, b.doc, "rule %s names the filter list %s", o.called(), missing)
	}
	if len(lists) == 0 {
		gap(b.source, b.doc, "rule %s names no filter list that exists: the rule is left out", o.called())
		return
	}
	for _, l := range lists {
		b.add(o, v, negotiation, l)
	}
}

// listsOf finds the filter lists of a rule: the one that it names, or why it is missing, and those that name it.
func (b *policyBuilder) listsOf(rule object) (lists []object, missing string) {
	found := map[string]object{}
	if dn := rule.value("ipsecFilterReference"); dn != "" {
		var f object
		if f, missing = refer(b.filters, dn); missing == "" {
			found[f.dn.Key()] = f
		}
	}
	for key, f := range b.filters {
		if refersTo(f, "ipsecOwnersReference", rule.dn) {
			found[key] = f
		}
	}
	return sorted(found), missing
}

// gap notes that a policy would protect less than it says, because a part of it is gone or may not be seen.
func (c *converter) gap(policy object, doc, format string, args ...any) {
	c.note(doc, format, args...)
	c.gaps[policy.dn.Key()] = append(c.gaps[policy.dn.Key()], fmt.Errorf(doc+": "+format, args...))
}

// add joins one list with the action.
func (b *policyBuilder) add(o object, v RuleValue, negotiation, filter object) {
	list, action := b.filterList(filter), b.filterAction(negotiation)
	name := o.name
	if name == "" {
		name = list.Name
	}
	r := policies.Rule{
		Meta:     policies.Meta{Name: uniqueIn(b.taken, "", name), Description: o.description},
		Disabled: !v.Active, Interfaces: b.interfaces(o, v),
	}
	if v.Tunnel.IsValid() && action.Action == spd.ActionNegotiate {
		if !usable(v.Tunnel) {
			b.note(b.doc, "rule %q is left out: its tunnel ends at %s, which is no address of a machine (the endpoint was named %q)", r.Name, v.Tunnel, cleanName(v.TunnelName))
			return
		}
		r.Tunnel.Remote = v.Tunnel
		action = b.tunnelAction(action)
	} else if v.Tunnel.IsValid() {
		b.note(b.doc, "rule %q had a tunnel with action %s; the tunnel is left out", r.Name, action.Action)
	}
	if action.Action == spd.ActionNegotiate {
		r.Authentication = b.authentication(r.Name, v.Methods)
		list = b.negotiable(r, list)
	}
	if b.unreadable[filter.dn.Key()] && v.Active {
		b.gap(b.source, b.doc, "rule %q has the filter list %s, which cannot be read", r.Name, filter.called())
	}
	if len(list.Filters) == 0 {
		b.note(b.doc, "rule %q is left out: no filter of its list %q is left", r.Name, list.Name)
		return
	}
	b.keepList(list)
	b.keepAction(action)
	r.FilterList, r.FilterAction = list.Name, action.Name
	if r.Tunnel.Remote.IsValid() {
		b.tunnels = append(b.tunnels, tunnelRule{index: len(b.policy.Rules), list: list, remote: r.Tunnel.Remote})
	}
	b.policy.Rules = append(b.policy.Rules, r)
}

func usable(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && !a.Is4In6()
}

func (b *policyBuilder) interfaces(o object, v RuleValue) spd.Interfaces {
	if v.InterfaceName != "" {
		b.note(b.doc, "rule %s was for the interface %q; it applies to every one of its class", o.called(), cleanName(v.InterfaceName))
	}
	switch v.Interface {
	case interfaceLAN:
		return spd.InterfacesLAN
	case interfaceDialUp:
		return spd.InterfacesRemoteAccess
	case interfaceAll:
	default:
		b.note(b.doc, "rule %s has the unknown interface type %#x; it applies to all", o.called(), v.Interface)
	}
	return spd.InterfacesAll
}

// negotiable returns the list, or a copy without the filters that a rule which negotiates cannot have.
func (b *policyBuilder) negotiable(r policies.Rule, list policies.FilterList) policies.FilterList {
	kept := list
	kept.Filters = slices.DeleteFunc(slices.Clone(list.Filters), func(f policies.Filter) bool {
		switch {
		case groupAddress(f.Source) || groupAddress(f.Destination):
			b.note(b.doc, "rule %q does not have the filter %s: there is no negotiation with multicast or broadcast, Windows dropped such packets", r.Name, filterText(f))
		case r.Tunnel.Remote.IsValid() && (f.Protocol != 0 || !f.SourcePort.Any() || !f.DestinationPort.Any()):
			b.note(b.doc, "rule %q does not have the filter %s: filters of a tunnel are of addresses alone", r.Name, filterText(f))
		default:
			return false
		}
		return true
	})
	if len(kept.Filters) == len(list.Filters) {
		return list
	}
	if len(kept.Filters) > 0 {
		kept.Name = b.unique(policies.KindFilterList, shorten(list.Name+" of "+r.Name, maxName))
	}
	return kept
}

func filterText(f policies.Filter) string {
	text := fmt.Sprintf("%s -> %s", f.Source, f.Destination)
	if f.Protocol != 0 {
		text += fmt.Sprintf(" protocol %d", f.Protocol)
	}
	return text
}

// groupAddress reports whether every packet to the address is for a group.
func groupAddress(a spd.Address) bool {
	first, last := a.From, a.To
	if a.Kind == spd.AddressPrefix {
		if a.Prefix.Bits() < 4 {
			return false
		}
		first, last = a.Prefix.Addr(), a.Prefix.Addr()
	}
	broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return first.IsMulticast() && last.IsMulticast() || first.IsValid() && first == broadcast && last == broadcast
}

// joinTunnels makes one rule of the two that Windows wants for a tunnel: one for each direction, each with the endpoint
// that its packets go to (KB 252735). The packets of the first go to the other gateway, those of the second come here.
func (b *policyBuilder) joinTunnels() {
	done, drop := map[int]bool{}, map[int]bool{}
	for i, out := range b.tunnels {
		if done[out.index] {
			continue
		}
		r := &b.policy.Rules[out.index]
		back := slices.IndexFunc(b.tunnels[i+1:], func(in tunnelRule) bool {
			o := b.policy.Rules[in.index]
			return !done[in.index] && reversed(out.list, in.list) && r.FilterAction == o.FilterAction && r.Disabled == o.Disabled &&
				r.Interfaces == o.Interfaces && slices.Equal(r.Authentication, o.Authentication) && out.remote.Is4() == in.remote.Is4() &&
				out.remote != in.remote
		})
		if back < 0 {
			b.note(b.doc, "rule %q is one direction of a tunnel to %s, and no rule for the other one was found: see that its filters cover both", r.Name, out.remote)
			continue
		}
		in := b.tunnels[i+1+back]
		both := out.list
		both.Name = b.unique(policies.KindFilterList, shorten(out.list.Name+" and back", maxName))
		both.Filters = slices.Clone(out.list.Filters)
		for i := range both.Filters {
			both.Filters[i].Mirrored = true
		}
		b.keepList(both)
		r.FilterList, r.Tunnel.Local = both.Name, in.remote
		b.note(b.doc, "rules %q and %q were the two directions of one tunnel and are one rule now, for the gateway %s; "+
			"the gateway %s needs it with remote and local exchanged", r.Name, b.policy.Rules[in.index].Name, in.remote, out.remote)
		done[in.index], drop[in.index] = true, true
	}
	var rules []policies.Rule
	for i, r := range b.policy.Rules {
		if !drop[i] {
			rules = append(rules, r)
		}
	}
	b.policy.Rules = rules
}

// reversed reports whether each filter of a is one of b with source and destination exchanged, neither mirrored.
func reversed(a, b policies.FilterList) bool {
	if len(a.Filters) != len(b.Filters) {
		return false
	}
	for _, f := range a.Filters {
		if f.Mirrored || !slices.ContainsFunc(b.Filters, func(g policies.Filter) bool {
			return !g.Mirrored && g.Source == f.Destination && g.Destination == f.Source && g.Protocol == f.Protocol
		}) {
			return false
		}
	}
	return true
}
