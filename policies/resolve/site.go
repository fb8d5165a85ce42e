package resolve

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
)

// Locations tells the address from which the node of a machine is connected, or was last; false where none ever was.
type Locations func(machine directory.UUID) (netip.Addr, bool)

// At returns the plan for machines at other places. Without locations, the addresses in the directory count alone.
func (p *Plan) At(where Locations) *Plan {
	out := *p
	out.where = where
	return &out
}

// subnets finds the site of an address. It never changes.
type subnets struct {
	sites   map[netip.Prefix]named
	lengths [2][]int // of the prefixes of IPv4 and IPv6, the longest first
}

// named is a site as links and people know it.
type named struct {
	dn   directory.DN
	name string
}

func newSubnets(sites []policies.Site) subnets {
	s := subnets{sites: map[netip.Prefix]named{}}
	for _, doc := range sites {
		site := named{doc.DN(), doc.Name}
		for _, p := range doc.Subnets {
			s.sites[p] = site
			if f := family(p.Addr()); !slices.Contains(s.lengths[f], p.Bits()) {
				s.lengths[f] = append(s.lengths[f], p.Bits())
			}
		}
	}
	for f := range s.lengths {
		slices.Sort(s.lengths[f])
		slices.Reverse(s.lengths[f])
	}
	return s
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// of returns the site with the most specific subnet that has the address.
func (s subnets) of(a netip.Addr) (named, netip.Prefix, bool) {
	a = a.Unmap().WithZone("")
	for _, n := range s.lengths[family(a)] {
		p, err := a.Prefix(n)
		if err != nil {
			continue
		}
		if site, ok := s.sites[p]; ok {
			return site, p, true
		}
	}
	return named{}, netip.Prefix{}, false
}

// Siting is at which site a machine is, and why.
type Siting struct {
	// Site is the name of the site, empty when the machine is at none; DN is what links name it by.
	Site string
	DN   directory.DN
	// Sentence is the reason in words; empty when there are no sites at all.
	Sentence string
}

// Siting finds the site of a machine. The address of its node counts; where no node ever was, those of the directory do.
func (p *Plan) Siting(m directory.Machine) Siting {
	if len(p.subnets.sites) == 0 {
		return Siting{}
	}
	if len(p.addresses(m)) == 0 {
		return Siting{Sentence: "no node of the machine ever connected and the directory has no address of it, so it is at no site"}
	}
	source := "in the directory"
	if p.where != nil {
		if _, ok := p.where(m.UUID); ok {
			source = "of its node"
		}
	}
	site, subnet, address, ok := p.site(m)
	if !ok {
		return Siting{Sentence: fmt.Sprintf("no site has a subnet with the address %s %s", address, source)}
	}
	return Siting{Site: site.name, DN: site.dn, Sentence: fmt.Sprintf("the address %s %s is in its subnet %s", address, source, subnet)}
}

// addresses are those that tell the site of a machine.
func (p *Plan) addresses(m directory.Machine) []netip.Addr {
	if p.where != nil {
		if a, ok := p.where(m.UUID); ok {
			return []netip.Addr{a}
		}
	}
	return m.Addresses
}

// site is at which site a machine is, by which address and subnet; without one, address is the first that is at none.
func (p *Plan) site(m directory.Machine) (site named, subnet netip.Prefix, address netip.Addr, ok bool) {
	for i, a := range p.addresses(m) {
		if site, subnet, ok = p.subnets.of(a); ok {
			return site, subnet, a, true
		}
		if i == 0 {
			address = a
		}
	}
	return named{}, netip.Prefix{}, address, false
}

// HasSites reports whether there are links to sites, without which nobody's site matters.
func (p *Plan) HasSites() bool { return p.linkedSites }

// SameSite reports whether a machine is at the same site with one address of its node as with another.
func (p *Plan) SameSite(a, b netip.Addr) bool {
	x, _, atX := p.subnets.of(a)
	y, _, atY := p.subnets.of(b)
	return atX == atY && x.name == y.name
}

// sited returns the chain for a machine of a container: where it is at a site with links, that of the container with the links of
// the site on top. Without links there it is the container's own. Chains are made once for each site.
func (p *Plan) sited(c *chain, m directory.Machine) *chain {
	if !p.linkedSites {
		return c
	}
	found, _, _, _ := p.site(m)
	site := found.dn
	links := p.links[site.Key()]
	if site.IsZero() || len(links) == 0 {
		return c
	}
	if known, ok := c.sites[site.Key()]; ok {
		return known
	}
	out := &chain{levels: []level{{dn: site, order: 1, links: links}}, scopes: c.scopes + 1, shared: map[string]*Outcome{}, groups: withGroups(c.groups, links)}
	for _, l := range c.levels {
		if l.order > 0 {
			l.order++
		}
		out.levels = append(out.levels, l)
	}
	c.sites[site.Key()] = out
	return out
}
