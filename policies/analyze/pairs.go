package analyze

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Machine is one machine of a fleet.
type Machine struct {
	// Name is that for people; Policy names the bundle, and machines of one bundle have the same Rules.
	Name, Policy string
	Rules        *spd.Policy
	// Facts are what the machine has reported of itself. Without addresses it is taken to have one that no filter names.
	Facts spd.Facts
	// End holds what else is known of it; its Name and Set are made from the above.
	End End
}

// Pair is a group of machine pairs, of two bundles, that have the same trouble with each other for the same reason.
type Pair struct {
	// Policies are the bundles: of the machine that begins, and of the other one.
	Policies [2]string
	// Machines is the witness: a pair of machines that has the trouble. Pairs is how many have it.
	Machines [2]string
	Pairs    int
	// Assumed are those of the two whose addresses are not known.
	Assumed []string
	// Rules are those that met: of the machine that begins, and of the other one, empty for its default response or none.
	Rules [2]string
	// Packet is one of the packets that cannot be protected, and Outcome what becomes of it.
	Packet  spd.Packet
	Outcome Outcome
	Code    Code
	// Sentence says what does not fit. Mismatch holds both lists.
	Sentence string
	Mismatch *Mismatch
	// Later tells that the association is made and cannot be rekeyed.
	Later bool
}

// Fleet is the result of Pairs.
type Fleet struct {
	Pairs []Pair
	// Classes is how many kinds of machines there are, Bundles how many policies; Examined counts the pairs of kinds.
	Classes, Bundles, Examined int
	// Incomplete names pairs of machines for which not every kind of packet was looked at.
	Incomplete []string
}

// class is machines that nothing tells apart: the same bundle, addresses in the same cells, the same groups, secrets and
// certificates.
type class struct {
	first, second *Machine // the second is nil if the class has one machine
	count         int
	ends          [2]*known
}

// known is a machine with its policy expanded.
type known struct {
	end       End
	addresses []netip.Addr // one for each cell
	assumed   bool
	decided   map[string]*decided // by the filters about a peer
}

// Pairs finds the pairs of machines that cannot negotiate: one wants packets protected, the other one answers, and the
// two do not agree. Each pair is looked at with either machine beginning.
//
// It plays IKE for every filter that decides about any packet between any two kinds of machines. Machines are of one kind
// if they have the same bundle and nothing that a policy names (addresses, identities, groups, secrets) tells them apart.
// Which filters decide is found by looking up one packet of every cell of protocols and ports that the filters between
// the two addresses cut, and what a negotiation comes to is the same for all packets that one filter decides about, but
// where the other side grants a part of it only; there every cell of filter and grant is looked at. So for packets between
// the machines' own addresses it is complete, within a bound: of a pair of addresses with more than 65,536 cells only so
// many are looked at, and Incomplete names it. What lies behind gateways is not looked at.
//
// It fails only where a policy does not expand.
func Pairs(machines []Machine) (Fleet, error) {
	classes, err := classify(machines)
	if err != nil {
		return Fleet{}, err
	}
	var out Fleet
	out.Classes = len(classes)
	bundles := map[string]bool{}
	groups := map[groupKey]*Pair{}
	for i, a := range classes {
		bundles[a.first.Policy] = true
		for k, b := range classes[i:] {
			from, to, pairs := a.ends[0], b.ends[0], a.count*b.count
			if k == 0 {
				from, to, pairs = a.ends[0], a.ends[1], a.count*(a.count-1)/2
			}
			if to == nil {
				continue
			}
			out.Examined++
			p := pairing{from: from, to: to, policies: [2]string{a.first.Policy, b.first.Policy}, pairs: pairs, groups: groups}
			if !p.examine() {
				out.Incomplete = append(out.Incomplete, from.end.Name+" and "+to.end.Name)
			}
		}
	}
	out.Bundles = len(bundles)
	for _, p := range groups {
		out.Pairs = append(out.Pairs, *p)
	}
	slices.SortFunc(out.Pairs, func(a, b Pair) int {
		later := map[bool]int{true: 1}
		return cmp.Or(cmp.Compare(later[a.Later], later[b.Later]), cmp.Compare(a.Policies[0], b.Policies[0]), cmp.Compare(a.Policies[1], b.Policies[1]),
			cmp.Compare(a.Code, b.Code), cmp.Compare(a.Sentence, b.Sentence))
	})
	return out, nil
}

// classify sorts machines into classes, in the order of their first machines, and expands those.
func classify(machines []Machine) ([]*class, error) {
	cells, identities := landmarks(machines)
	spare := cells.free()
	byKey := map[string]*class{}
	var classes []*class
	for i := range machines {
		m := &machines[i]
		key := signature(m, cells, identities)
		c, ok := byKey[key]
		if !ok {
			c = &class{first: m}
			byKey[key], classes = c, append(classes, c)
		} else if c.second == nil {
			c.second = m
		}
		c.count++
	}
	for _, c := range classes {
		for i, m := range []*Machine{c.first, c.second} {
			if m == nil {
				continue
			}
			k, err := expand(m, cells, spare[i])
			if err != nil {
				return nil, err
			}
			c.ends[i] = k
		}
	}
	// Two machines of unknown address must not share one: what stands second takes the second spare address.
	for i, c := range classes {
		if c.ends[0].assumed && i > 0 {
			k, err := expand(c.first, cells, spareAddress(spare[0], i))
			if err != nil {
				return nil, err
			}
			c.ends[0] = k
		}
	}
	return classes, nil
}

// spareAddress is the n-th address after the spare ones.
func spareAddress(a netip.Addr, n int) netip.Addr {
	for range n + 1 {
		a = a.Next()
	}
	return a
}

func expand(m *Machine, cells *addressCells, spare netip.Addr) (*known, error) {
	k := &known{end: m.End}
	k.end.Name = m.Name
	facts := m.Facts
	if len(facts.Addresses) == 0 {
		k.assumed = true
		facts.Addresses = []netip.Addr{spare}
	}
	if m.Rules != nil {
		set, err := spd.Expand(*m.Rules, facts.Assuming(*m.Rules))
		if err != nil {
			return nil, fmt.Errorf("expand policy %q for %s: %w", m.Policy, m.Name, err)
		}
		k.end.Set = set
	}
	seen := map[int]bool{}
	for _, a := range facts.Addresses {
		if cell := cells.of(a); !seen[cell] {
			seen[cell] = true
			k.addresses = append(k.addresses, a)
		}
	}
	return k, nil
}

// landmarks are the addresses and identities that policies and machines name.
func landmarks(machines []Machine) (*addressCells, []string) {
	cells := &addressCells{}
	identities := map[string]bool{}
	policies, named := map[*spd.Policy]bool{}, map[netip.Addr]bool{}
	one := func(a netip.Addr) {
		if a.IsValid() && !named[a] {
			named[a] = true
			cells.cut(spd.Range{From: a, To: a})
		}
	}
	auth := func(list []spd.Auth) {
		for _, a := range list {
			if a.RemoteID != "" {
				identities[a.RemoteID] = true
			}
		}
	}
	for i := range machines {
		f := &machines[i].Facts
		for _, list := range [][]netip.Addr{f.DNSServers, f.DHCPServers, f.DefaultGateways} {
			for _, a := range list {
				one(a)
			}
		}
		for _, c := range f.Controllers {
			one(c.Addr())
		}
		for _, list := range f.Names {
			for _, a := range list {
				one(a)
			}
		}
		p := machines[i].Rules
		if p == nil || policies[p] {
			continue
		}
		policies[p] = true
		auth(p.DefaultResponse.Auth)
		for _, r := range p.Rules {
			one(r.Tunnel)
			one(r.TunnelLocal)
			auth(r.Auth)
			for _, f := range r.Filters {
				for _, a := range []spd.Address{f.Source, f.Destination} {
					if r, ok := a.Range(); ok {
						cells.cut(r)
					}
				}
			}
		}
	}
	cells.finish()
	names := make([]string, 0, len(identities))
	for name := range identities {
		names = append(names, name)
	}
	slices.Sort(names)
	return cells, names
}

// signature is the same for machines that nothing tells apart.
func signature(m *Machine, cells *addressCells, identities []string) string {
	var b strings.Builder
	e := &m.End
	fmt.Fprintf(&b, "%q %t %t %q %q %q", m.Policy, e.Node, e.NoCertificate, e.Groups, e.Missing, e.Authorities)
	own := make([]int, 0, len(m.Facts.Addresses))
	for _, a := range m.Facts.Addresses {
		own = append(own, cells.of(a)*2)
		if slices.Contains(m.Facts.RemoteAddresses, a) {
			own[len(own)-1]++
		}
	}
	slices.Sort(own)
	fmt.Fprintf(&b, " %v %v %v %v %v %v", slices.Compact(own), m.Facts.DNSServers, m.Facts.DHCPServers, m.Facts.DefaultGateways, m.Facts.Controllers, m.Facts.Names)
	for _, id := range identities {
		if (spd.Auth{RemoteID: id}).IsFor(e.Identity) {
			fmt.Fprintf(&b, " %q", id)
		}
	}
	return b.String()
}

// groupKey is what pairs of one group have in common.
type groupKey struct {
	policies [2]string
	code     Code
	rules    [2]string
	later    bool
}

// pairing is the examination of two kinds of machines.
type pairing struct {
	from, to *known
	policies [2]string
	pairs    int
	groups   map[groupKey]*Pair
	counted  map[groupKey]bool
}

// examine looks at every kind of packet between the two, and reports whether it could.
func (p *pairing) examine() (whole bool) {
	whole, p.counted = true, map[groupKey]bool{}
	for _, a := range p.from.addresses {
		for _, b := range p.to.addresses {
			if a.Is4() == b.Is4() && a != b {
				whole = p.begin(p.from, p.to, a, b, false) && whole
				whole = p.begin(p.to, p.from, b, a, true) && whole
			}
		}
	}
	return whole
}

// begin lets one machine ask the other for everything that its policy wants protected between two addresses.
func (p *pairing) begin(from, to *known, a, b netip.Addr, reversed bool) (whole bool) {
	set := from.between(a, b)
	for i := range set.deciding {
		packet := set.deciding[i].packet
		packet.Source, packet.Destination = a, b
		m := set.deciding[i].match
		t := newTalk(&from.end, &to.end, m, packet)
		if t.n.Elsewhere != "" {
			continue
		}
		t.run()
		if t.n.Made() && (!slices.Equal(t.local, t.n.InitiatorSelectors) || !slices.Equal(t.remote, t.n.ResponderSelectors)) {
			// A part is granted: is there a packet outside of it?
			packets, _ := cellsOf(append(sidesOf(t.n), set.sides...), a, b)
			for _, other := range packets {
				if m := set.few.LookupByAddress(spd.Out, other); m.Filter == set.deciding[i].match.Filter && !t.n.granted(other) {
					packet = other
					t.grants(other)
					break
				}
			}
		}
		p.note(from, to, t.n, packet, reversed)
	}
	return set.whole
}

// decided is what the policy of a machine wants protected between two addresses.
type decided struct {
	few      spd.Set
	sides    []side
	deciding []deciding
	whole    bool
}

// deciding is a filter that decides about a packet.
type deciding struct {
	match  spd.Match
	packet spd.Packet
}

// between finds the filters that want packets protected from an own address to a peer's. It is the same for all peers
// that the same filters are about.
func (k *known) between(a, b netip.Addr) *decided {
	few := k.end.Set.Between(a, b)
	filters := few.Filters()
	key := a.String()
	for i := range filters {
		key += "/" + filters[i].Destination.String() + filters[i].Source.String() + filters[i].FilterID
	}
	if d, ok := k.decided[key]; ok {
		return d
	}
	d := &decided{few: few}
	for i := range filters {
		f := &filters[i]
		if f.Direction == spd.Out && !f.Loopback && !f.Own && (f.Exempt == "" || f.Protocol == spd.ProtocolTCP) {
			d.sides = append(d.sides, sideOf(f))
		}
	}
	packets, whole := cellsOf(d.sides, a, b)
	d.whole = whole
	seen := map[*spd.Specific]bool{}
	for _, p := range packets {
		if m := few.LookupByAddress(spd.Out, p); m.Action == spd.ActionNegotiate && m.Rule != nil && !seen[m.Filter] {
			seen[m.Filter] = true
			d.deciding = append(d.deciding, deciding{m, p})
		}
	}
	if k.decided == nil {
		k.decided = map[string]*decided{}
	}
	k.decided[key] = d
	return d
}

// note keeps a negotiation that is trouble.
func (p *pairing) note(from, to *known, n *Negotiation, packet spd.Packet, reversed bool) {
	mismatch, later := n.Mismatch, false
	if mismatch == nil {
		mismatch, later = n.Later, true
	}
	if mismatch == nil {
		return
	}
	if rule, ok := from.end.Set.Rule(n.InitiatorRule); n.Silent && ok && rule.Action.Fallback.Mode != spd.FallbackNone {
		return // it falls back to clear
	}
	policies := p.policies
	if reversed {
		slices.Reverse(policies[:])
	}
	key := groupKey{policies: policies, code: mismatch.Code, rules: [2]string{n.InitiatorRule, n.ResponderRule}, later: later}
	group, ok := p.groups[key]
	if !ok {
		group = &Pair{
			Policies: policies, Machines: [2]string{n.Initiator, n.Responder}, Rules: key.rules, Packet: packet,
			Code: mismatch.Code, Sentence: mismatch.Sentence, Mismatch: mismatch, Later: later,
			Outcome: Flow(from.end, to.end, packet),
		}
		for _, k := range []*known{from, to} {
			if k.assumed {
				group.Assumed = append(group.Assumed, k.end.Name)
			}
		}
		p.groups[key] = group
	}
	if !p.counted[key] {
		p.counted[key] = true
		group.Pairs += p.pairs
	}
}
