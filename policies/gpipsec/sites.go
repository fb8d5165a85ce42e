package gpipsec

import (
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
)

// SiteFilter finds, below CN=Sites of the configuration, the sites and their subnets (MS-ADTS 6.1.1.2.2), and SiteAttributes
// are those that Convert has a use for.
func SiteFilter() string { return "(|(objectClass=site)(objectClass=subnet))" }

// SiteAttributes are those that Convert has a use for of what SiteFilter finds.
func SiteAttributes() []string {
	return []string{"objectClass", "cn", "description", "siteObject", "gPLink", "gPOptions"}
}

// Sites makes documents of the sites among entries, without anything that is linked to them.
func Sites(entries []directory.Entry) ([]policies.Site, []Note) {
	c := newConverter(Options{})
	c.sort(entries)
	c.makeSites()
	return c.result.Documents.Sites, c.result.Notes
}

// makeSites makes a Site of every site that has subnets.
func (c *converter) makeSites() {
	subnets := map[string][]netip.Prefix{} // by the DN of the site
	for _, o := range sorted(c.subnets) {
		p, err := netip.ParsePrefix(o.dn.Name())
		if err != nil || p.Masked() != p || p.Addr().Is4In6() {
			c.note("", "the subnet %q is left out: its name is no subnet", o.dn.Name())
			continue
		}
		site, err := directory.ParseDN(o.value("siteObject"))
		if err != nil || o.value("siteObject") == "" {
			continue // one without a site is of no use, and common
		}
		subnets[site.Key()] = append(subnets[site.Key()], p)
	}
	for _, o := range sorted(c.sites) {
		list := subnets[o.dn.Key()]
		slices.SortFunc(list, netip.Prefix.Compare)
		list = slices.Compact(list)
		if len(list) == 0 {
			if o.value("gPLink") != "" {
				c.note("", "the links of site %q are left out: no subnet is of the site, so that no machine can be there", o.dn.Name())
			}
			continue
		}
		name := c.unique(policies.KindSite, cleanName(o.dn.Name()))
		site := policies.Site{Meta: policies.Meta{Name: name, Description: o.description}, Subnets: list}
		c.siteNames[o.dn.Key()] = site.DN()
		c.result.Documents.Sites = append(c.result.Documents.Sites, site)
	}
}
