package plan

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/analyze"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// end is one side of a flow: a machine, or a host outside the fleet, with its addresses.
type end struct {
	analyze.End
	addresses place
}

// verdict is what becomes of a flow.
type verdict struct {
	outcome policies.Outcome
	offer   proposal.ESP
	why     string
}

// court judges flows, each kind between the same two ends once.
type court struct {
	landscape landscape
	terrain   terrain
	known     map[endKey]*end
	verdicts  map[flow]verdict
	budget    int
}

// endKey is everything about a machine that a flow can depend on.
type endKey struct {
	name, identity, groups string
	digest                 compile.Digest
	addresses              place
}

type flow struct {
	client, server *end
	packet         spd.Packet
}

func newCourt(t terrain) *court {
	return &court{landscapeOf(t), t, map[endKey]*end{}, map[flow]verdict{}, maxVerdicts}
}

// end makes a side of a flow out of a machine of a world. The name is for sentences; machines that differ in nothing else
// should have the same one.
func (c *court) end(s *state, digest compile.Digest, m directory.Machine, groups []string, name string, unknown place) (*end, error) {
	if at, named := c.landscape.hosts[m.DNSName]; named {
		unknown = at
	}
	nowhere := unknown
	if !c.landscape.six {
		nowhere[1] = netip.Addr{} // then one family shows it all
	}
	p := home(m.Addresses, nowhere)
	for family, a := range p {
		if a.IsValid() && c.terrain.interval(a) == 0 {
			p[family] = unknown[family] // one address that nobody names is as good as another
		}
	}
	key := endKey{name: name, identity: c.terrain.identity(m), groups: strings.Join(groups, "\n"), digest: digest, addresses: p}
	if e, ok := c.known[key]; ok {
		return e, nil
	}
	set, err := spd.Expand(s.policies[digest], c.landscape.facts(p))
	if err != nil {
		return nil, err
	}
	e := &end{analyze.End{Name: name, Set: set, Node: true, Identity: identityOf(m), Groups: groups}, p}
	c.known[key] = e
	return e, nil
}

// stranger is a host that has never heard of IPsec.
func stranger(name string, p place) *end { return &end{analyze.End{Name: name}, p} }

// identityOf is what the certificate of a machine says (see pki).
func identityOf(m directory.Machine) string {
	if m.DNSName == "" {
		return ""
	}
	return "fqdn:" + m.DNSName
}

// judge tells what becomes of one kind of traffic over one family; false where there is none such.
func (c *court) judge(client, server *end, kind traffic, family int) (verdict, bool) {
	p := kind.packet
	p.Source, p.Destination = client.addresses[family], server.addresses[family]
	if !p.Source.IsValid() || !p.Destination.IsValid() || p.Protocol == [2]uint8{spd.ProtocolICMPv6, spd.ProtocolICMP}[family] {
		return verdict{}, false
	}
	switch p.Protocol {
	case spd.ProtocolICMP:
		p.ICMPType = 8 // echo request, RFC 792
	case spd.ProtocolICMPv6:
		p.ICMPType = 128 // echo request, RFC 4443
	case spd.ProtocolTCP:
		p.Opens = true
	}
	key := flow{client, server, p}
	if v, ok := c.verdicts[key]; ok {
		return v, true
	}
	c.budget--
	v := judge(client, server, p)
	c.verdicts[key] = v
	return v, true
}

func judge(client, server *end, p spd.Packet) verdict {
	o := analyze.Flow(client.End, server.End, p)
	v := verdict{outcome: policies.OutcomeBlocked, why: o.Sentence}
	switch o.Result {
	case analyze.Clear, analyze.Fallback:
		v.outcome = policies.OutcomeClear
	case analyze.IPsec:
		v.outcome = policies.OutcomeIPsec
	case analyze.Blocked:
	}
	if n := o.Negotiation(); v.outcome == policies.OutcomeIPsec && n != nil {
		v.offer = n.ESP
	}
	return v
}

// landscape gives machines whose addresses the directory does not tell, and servers outside the fleet, addresses that no
// filter names.
type landscape struct {
	client, server, dns, dhcp, gateway place
	hosts                              map[string]place // by the DNS names that filters name
	six                                bool             // filters name addresses of IPv6
}

// place is one host's addresses, of IPv4 and IPv6.
type place [2]netip.Addr

func (p place) list() []netip.Addr {
	return slices.DeleteFunc(p[:], func(a netip.Addr) bool { return !a.IsValid() })
}

// quiet are blocks for documentation, benchmarks and private use in which hosts without an address are put, the first
// that no filter names (RFC 2544, RFC 5737, RFC 6598, RFC 1918; RFC 3849, RFC 4193).
var quiet = [2][]string{
	{"198.18.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "100.127.255.1", "10.255.254.1", "172.31.254.1", "192.168.254.1"},
	{"2001:db8:ffff::1", "fdff:ffff:ffff::1", "2001:db8::1", "fd00::1"},
}

// landscapeOf finds room in what the policies of some states leave unnamed.
func landscapeOf(t terrain) landscape {
	l := landscape{hosts: map[string]place{}, six: slices.ContainsFunc(t.ranges, func(r spd.Range) bool { return !r.Is4() })}
	for family, blocks := range quiet {
		next := netip.MustParseAddr(blocks[0])
		for _, b := range blocks {
			if a := netip.MustParseAddr(b); !t.named(a) {
				next = a
				break
			}
		}
		for _, p := range []*place{&l.client, &l.server, &l.dns, &l.dhcp, &l.gateway} {
			p[family] = next
			next = next.Next()
		}
		for _, name := range slices.Sorted(maps.Keys(t.hosts)) {
			at, known := l.hosts[name]
			if t.hosts[name] == (place{}) && (family == 0 || l.six) {
				at[family] = next
				next = next.Next()
			} else if !known {
				at = t.hosts[name]
			}
			l.hosts[name] = at
		}
	}
	return l
}

// facts are what a machine of the fleet knows of itself, as far as this package knows it.
func (l landscape) facts(p place) spd.Facts {
	f := spd.Facts{Addresses: p.list(), DNSServers: l.dns[:], DHCPServers: l.dhcp[:1], DefaultGateways: l.gateway[:], Names: map[string][]netip.Addr{}}
	for name, at := range l.hosts {
		f.Names[name] = at.list()
	}
	return f
}

// home is where a machine is: its addresses in the directory, one of each family, or the place for those that have none.
func home(addresses []netip.Addr, unknown place) place {
	var p place
	for _, a := range addresses {
		if a = a.Unmap(); usable(a) && !p[a.BitLen()>>7].IsValid() {
			p[a.BitLen()>>7] = a
		}
	}
	if p == (place{}) {
		return unknown
	}
	return p
}

// ends are the two roles of a cohort in one world: a machine of it as a client, and another one as a server.
type ends struct {
	client, server *end // nil where the machines are not there
}

func (c *court) ends(s *state, g *cohort, after bool) (ends, error) {
	digest, absent := g.from, g.absentBefore
	if after {
		digest, absent = g.to, g.absentAfter
	}
	if absent {
		return ends{}, nil
	}
	name := "a machine with " + s.policies[digest].Name
	var out ends
	for _, role := range []struct {
		end     **end
		member  cohortMember
		unknown place
	}{{&out.client, g.first, c.landscape.client}, {&out.server, g.last, c.landscape.server}} {
		m, groups := role.member.before, role.member.groupsBefore
		if after {
			m, groups = role.member.after, role.member.groupsAfter
		}
		var err error
		if *role.end, err = c.end(s, digest, m, groups, name, role.unknown); err != nil {
			return ends{}, err
		}
	}
	return out, nil
}
