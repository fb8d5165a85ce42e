package gpipsec

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/descriptor"
	"github.com/bailiwick-net/bailiwick/policies"
)

// extension is what a GPO must list for clients to look for an IPsec policy in it (MS-GPIPSEC 1.9).
const extension = "{E437BC1C-AA7D-11D2-A382-00C04F991E27}"

// Bits of a link's options and of a GPO's flags (MS-GPOL 2.2.2, 2.2.4).
const (
	linkDisabled        = 1
	linkEnforced        = 2
	gpoComputerDisabled = 2
)

// links makes a Link of every link of a GPO that names a policy, and a Container of every one that blocks inheritance.
func (c *converter) links() {
	linked := map[string]bool{}
	for _, o := range sorted(c.containers) {
		container, site := c.siteNames[o.dn.Key()]
		if !site {
			container = o.dn
		}
		// A site stands above all others: there is nothing that it could block.
		if _, ok := c.sites[o.dn.Key()]; o.value("gPOptions") == "1" && !ok {
			c.result.Documents.Containers = append(c.result.Documents.Containers, policies.Container{DN: o.dn, BlockInheritance: true})
		}
		if _, ok := c.sites[o.dn.Key()]; ok && !site {
			continue // makeSites told
		}
		if kind := directory.KindOf(o.dn); kind == directory.Plain && !site {
			if o.value("gPLink") != "" {
				c.note("", "the links of %q are left out: policies are linked to domains and organizational units", o.dn)
			}
			continue
		}
		order := 0
		places := gpLinks(o.value("gPLink"))
		// The rightmost link of the attribute is the one of order 1.
		for i := len(places) - 1; i >= 0; i-- {
			gpo, err := directory.ParseDN(places[i].dn)
			if err != nil {
				c.note("", "a link of %q names %.200q, which is no DN: left out", o.dn, places[i].dn)
				continue
			}
			linked[gpo.Key()] = true
			if l, ok := c.link(o, gpo, places[i].options); ok {
				order++
				l.Order, l.Container = order, container
				l.Description = fmt.Sprintf("link %d of the Group Policy object %s %s", len(places)-i, c.gpoName(gpo), gpo.Name())
				c.result.Documents.Links = append(c.result.Documents.Links, l)
			}
		}
	}
	for _, pointer := range sorted(c.pointers) {
		if !linked[pointer.dn.Key()] {
			c.note("", "the Group Policy object %s names an IPsec policy, but no link to it was found", c.gpoName(pointer.dn))
		}
	}
	if len(c.result.Documents.Links) > 0 && c.unfiltered {
		c.note("", "which machines may apply a Group Policy object (its security filtering) stands in access rights that are not read: "+
			"where only some may, name their groups in groups.apply of the link")
	}
}

// gpLink is one link of an attribute gPLink: [LDAP://DN;options].
type gpLink struct {
	dn      string
	options uint64
}

func gpLinks(s string) []gpLink {
	var out []gpLink
	for part := range strings.SplitSeq(s, "[") {
		part, _, ok := strings.Cut(part, "]")
		if !ok {
			continue
		}
		at := strings.LastIndexByte(part, ';')
		if at < 0 {
			continue
		}
		options, err := strconv.ParseUint(part[at+1:], 10, 32)
		if err != nil {
			continue
		}
		dn := part[:at]
		if i := strings.Index(dn, "://"); i >= 0 {
			dn = dn[i+3:]
		}
		out = append(out, gpLink{dn, options})
	}
	return out
}

// gpoName names a GPO for people.
func (c *converter) gpoName(dn directory.DN) string {
	if g, ok := c.gpos[dn.Key()]; ok {
		return g.called()
	}
	return object{dn: dn}.called()
}

// link makes the Link of one link of a GPO; false if the GPO says nothing of IPsec.
func (c *converter) link(container object, dn directory.DN, options uint64) (policies.Link, bool) {
	pointer, ok := c.pointers[dn.Key()]
	gpo, known := c.gpos[dn.Key()]
	disabled := options&linkDisabled != 0
	if !known && !disabled {
		// It was deleted and the link forgotten, or we may not see it; machines that it is for may.
		c.lack("%q links the Group Policy object %q, which cannot be seen: delete the link, or let the reader see the object", container.dn, dn)
	}
	if known && !ok && !disabled && c.listsExtension(gpo) {
		c.lack("the Group Policy object %s, linked to %q, lists the extension for IPsec but its object CN=IPSEC,CN=Windows,CN=Microsoft,CN=Machine cannot be seen", c.gpoName(dn), container.dn)
	}
	if !ok {
		return policies.Link{}, false
	}
	reference := pointer.value("ipsecOwnersReference")
	target, missing := refer(c.policies, reference)
	if missing != "" {
		// Windows leaves the pointer of a deleted policy behind. Machines keep what they have then, they do not take the next.
		if !disabled {
			c.lack("the Group Policy object %s, linked to %q, names the IPsec policy %s", c.gpoName(dn), container.dn, missing)
		}
		c.note("", "the Group Policy object %s, linked to %q, names the IPsec policy %s: left out", c.gpoName(dn), container.dn, missing)
		return policies.Link{}, false
	}
	name := gpo.name
	if name == "" {
		name = dn.Name()
	}
	name = "GPO " + name + " on " + container.dn.Name()
	if c.options.Native {
		name = c.options.Prefix + name
	}
	name = c.unique(policies.KindLink, cleanName(name))
	l := policies.Link{
		Meta: policies.Meta{Name: name}, Policy: c.policyNames[target.dn.Key()], Container: container.dn,
		Disabled: disabled, Enforced: options&linkEnforced != 0,
	}
	doc := named(policies.KindLink, name)
	if !known {
		c.note(doc, "its Group Policy object is not among the entries: whether it is switched off is not known")
	}
	flags, _ := strconv.ParseUint(gpo.value("flags"), 10, 32)
	switch {
	case flags&gpoComputerDisabled != 0:
		l.Disabled = true
		c.note(doc, "is disabled: the Group Policy object is switched off for computers")
	case known && !c.listsExtension(gpo):
		l.Disabled = true
		c.note(doc, "is disabled: the Group Policy object does not list the extension for IPsec, so that Windows passes over it")
	case gpo.value("gPCWQLFilter") != "":
		l.Disabled = true
		c.note(doc, "is disabled: a WMI filter chooses the machines of the Group Policy object; name their groups in groups.apply instead, and enable it")
	}
	c.filter(&l, gpo)
	if c.options.Native && !l.Disabled {
		c.unknown = append(c.unknown, c.gaps[target.dn.Key()]...)
		delete(c.gaps, target.dn.Key()) // told once
	}
	return l, true
}

// filter limits a link to the machines that may apply its GPO.
func (c *converter) filter(l *policies.Link, gpo object) {
	doc := named(policies.KindLink, l.Name)
	text := gpo.value(SecurityAttribute)
	if text == "" {
		c.unfiltered = true
		if !l.Disabled {
			c.lack("the access rights of the Group Policy object %s cannot be read", gpo.called())
		}
		return
	}
	d, err := descriptor.Parse([]byte(text))
	if err != nil {
		l.Disabled = true
		c.note(doc, "is disabled: the access rights of the Group Policy object: %v", err)
		c.lack("the access rights of the Group Policy object %s: %w", gpo.called(), err)
		return
	}
	a := c.audience(d)
	for _, n := range a.notes {
		c.note(doc, "%s", n)
	}
	if a.unfound != "" && !l.Disabled {
		// Without the denial it would be for too many machines, and disabled it would leave those in clear that it protects.
		c.lack("the security filtering of the Group Policy object %s denies it to %s, which was not found: delete that entry, or let the reader see whom it names", gpo.called(), a.unfound)
	}
	l.Apply, l.Deny = a.apply, a.deny
	if a.nobody != "" {
		l.Disabled = true
		c.note(doc, "is disabled: %s", a.nobody)
	}
}

// lack notes what makes native assignment impossible.
func (c *converter) lack(format string, args ...any) {
	if c.options.Native {
		c.unknown = append(c.unknown, fmt.Errorf(format, args...))
	}
}

func (c *converter) listsExtension(gpo object) bool {
	return strings.Contains(strings.ToUpper(gpo.value("gPCMachineExtensionNames")), extension)
}
