package gpipsec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/descriptor"
)

// applyGroupPolicy is the extended right that a machine needs on a GPO (MS-GPOL 3.2.5.1.6, MS-ADTS 5.1.3.2.1).
var applyGroupPolicy = descriptor.MustParseGUID("edacfd8f-ffb3-11d1-b41d-00a0c968f939")

// SecurityAttribute holds the security descriptor of an entry.
const SecurityAttribute = "nTSecurityDescriptor"

// NamesOf returns a filter for the entries that the access rights of GPOs among the entries are about, and the attributes
// that Convert wants of them; ok is false when there is nobody to be found.
func NamesOf(entries []directory.Entry) (filter string, attributes []string, ok bool) {
	var sids []descriptor.SID
	for _, e := range entries {
		for _, v := range e.Values(SecurityAttribute) {
			d, err := descriptor.Parse([]byte(v))
			if err != nil {
				continue // Convert tells
			}
			granted, denied, _ := d.Extended(applyGroupPolicy)
			for _, s := range slices.Concat(granted, denied) {
				if !everyMachine(s) && !slices.Contains(sids, s) {
					sids = append(sids, s)
				}
			}
		}
	}
	if len(sids) == 0 {
		return "", nil, false
	}
	var b strings.Builder
	b.WriteString("(|")
	for _, s := range sids {
		b.WriteString("(objectSid=")
		for _, o := range s.Append(nil) {
			fmt.Fprintf(&b, `\%02x`, o)
		}
		b.WriteString(")")
	}
	b.WriteString(")")
	return b.String(), []string{"objectClass", "objectSid"}, true
}

// everyMachine says whether every computer account is meant.
func everyMachine(s descriptor.SID) bool {
	return s == descriptor.Everyone || s == descriptor.AuthenticatedUsers
}

// audience is which machines a GPO is for.
type audience struct {
	apply, deny []directory.DN // empty apply means all
	nobody      string         // why it is for none; "" when it is for some
	unfound     string         // who is denied it and was not found; "" when everybody was
	notes       []string
}

// audience reads who may apply the GPO. Where a right is denied and granted at once, it is denied: that is the order in which
// Windows keeps the entries.
func (c *converter) audience(d descriptor.Descriptor) audience {
	var a audience
	granted, denied, everybody := d.Extended(applyGroupPolicy)
	unknown := false
	for _, s := range denied {
		if everyMachine(s) {
			return audience{nobody: "its security filtering denies it to every machine"}
		}
		dn, ok := c.named[s]
		if !ok {
			// Who is denied and cannot be named is not let in by leaving the entry out.
			return audience{nobody: fmt.Sprintf("its security filtering denies it to %s, which was not found", s), unfound: s.String()}
		}
		a.deny = append(a.deny, dn)
	}
	for _, s := range granted {
		if everyMachine(s) {
			everybody = true
			continue
		}
		dn, ok := c.named[s]
		if !ok {
			unknown = true
			a.notes = append(a.notes, fmt.Sprintf("its security filtering names %s, which was not found: left out", s))
			continue
		}
		a.apply = append(a.apply, dn)
	}
	slices.SortFunc(a.deny, directory.DN.Compare)
	slices.SortFunc(a.apply, directory.DN.Compare)
	switch {
	case everybody:
		a.apply, a.notes = nil, nil
	case len(a.apply) == 0 && unknown:
		a.nobody = "its security filtering names nobody who was found"
	case len(a.apply) == 0:
		a.nobody = "its security filtering lets no machine apply it"
	}
	return a
}
