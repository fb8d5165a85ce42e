package policies

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/bailiwick-net/bailiwick/directory"
)

// Site is a place in the network, which the addresses of machines tell. Links name it as a container,
// "cn=NAME,cn=Sites", and stand above those of the domain.
type Site struct {
	Meta
	// Subnets are those of the site. A machine is at the site that has the most specific subnet with its address.
	Subnets []netip.Prefix
}

// KindSite names the kind of a Site.
const KindSite Kind = "Site"

// Kind returns KindSite.
func (Site) Kind() Kind { return KindSite }

func (s Site) add(d *Documents) { d.Sites = append(d.Sites, s) }

// siteContainers is the container that the containers of sites stand in. No directory has entries of that name at its top.
var siteContainers = directory.MustParseDN("cn=Sites")

// DN is what links name the site by.
func (s Site) DN() directory.DN {
	dn, err := siteContainers.Child("cn", s.Name)
	if err != nil {
		return directory.DN{} // checkName accepts no such name
	}
	return dn
}

// IsSite reports whether a DN is that of a site, there being one or not.
func IsSite(dn directory.DN) bool {
	return !dn.IsZero() && dn.Parent().Equal(siteContainers) && strings.EqualFold(dn.RDNType(), "cn")
}

// maxSubnets bounds Site.Subnets.
const maxSubnets = 10_000

func parseSubnet(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a subnet, as 192.0.2.0/24 or 2001:db8::/32", printable(s))
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 subnet in the form of IPv6; write it as IPv4", printable(s))
	}
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("%q has bits behind its length; %s would be that subnet", printable(s), p.Masked())
	}
	return p, nil
}

func (r *reader) site(n ast.Node) Site {
	m := r.object(n, &siteObject)
	s := Site{Meta: m.meta(), Subnets: texts(m, "subnets", parseSubnet)}
	if m.has("subnets") && (len(s.Subnets) == 0 || len(s.Subnets) > maxSubnets) {
		m.report("subnets", "has %d elements; a site has 1 to %d subnets", len(s.Subnets), maxSubnets)
	}
	return s
}

func (s Site) write(w *writer) {
	w.meta(s.Meta)
	scalars(w, "subnets", s.Subnets, netip.Prefix.String)
}

var siteObject = object{
	name: string(KindSite), doc: "A place in the network. Links name it as container `cn=NAME,cn=Sites`; they come before those of the domain, so that these win unless the link to the site is enforced. A machine is at the site that has the most specific subnet with the address from which its node is connected or was last, and where no node ever was, with an address of its entry in the directory. A machine without an address is at no site.",
	fields: []fieldRow{
		rowName, rowDescription,
		{name: "subnets", kind: listOf1(typeSubnet), required: true, doc: "No other site may have the same one; one within another is fine."},
	},
}

var typeSubnet = text("subnet, as `192.0.2.0/24`", fragment{"pattern": `^[0-9A-Fa-f.:]+/[0-9]+$`})

// sites reports subnets of two sites, and sites whose links nobody could tell apart.
func (v *validator) sites() {
	first, names := map[netip.Prefix]Site{}, map[string]Site{}
	for _, s := range v.docs.Sites {
		if f, ok := names[s.DN().Key()]; ok && !strings.EqualFold(f.Name, s.Name) { // the same name is found with the duplicates
			v.find(Error, CodeDuplicate, s.At, s, "links cannot tell its name from that of %q", f.Name)
		}
		names[s.DN().Key()] = s
		for i, p := range s.Subnets {
			switch f, ok := first[p]; {
			case ok && f.Name != s.Name:
				v.find(Error, CodeDuplicate, s.At, s, "has the subnet %s, as has site %q", p, f.Name)
			case ok && slices.Contains(s.Subnets[:i], p):
				v.find(Error, CodeDuplicate, s.At, s, "has the subnet %s twice", p)
			default:
				first[p] = s
			}
		}
	}
}

// linked reports a link to a container that has none: neither a site that exists, nor OU= or DC=.
func (v *validator) linked(l Link) {
	if !IsSite(l.Container) {
		v.scope(l, l.Container)
		return
	}
	if !slices.ContainsFunc(v.docs.Sites, func(s Site) bool { return s.DN().Equal(l.Container) }) {
		v.find(Error, CodeDangling, l.At, l, "links to the site %s, which does not exist%s", l.Container, suggestion(l.Container.Name(), v.docs.Sites))
	}
}
