package gpipsec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/descriptor"
)

// Classes are the classes of the objects that hold IPsec policies.
func Classes() []string {
	return []string{"ipsecPolicy", "ipsecISAKMPPolicy", "ipsecNFA", "ipsecNegotiationPolicy", "ipsecFilter"}
}

// SearchFilter finds, below a domain, everything that Convert has a use for.
func SearchFilter() string {
	terms := ""
	for _, c := range Classes() {
		terms += "(objectClass=" + c + ")"
	}
	return "(|" + terms + "(objectClass=groupPolicyContainer)(gPLink=*)(gPOptions=1))"
}

// Attributes are those that Convert has a use for.
func Attributes() []string {
	return []string{
		"objectClass", "cn", "displayName", "description", "ipsecName", "ipsecID", "ipsecData", "ipsecOwnersReference", "ipsecNFAReference",
		"ipsecISAKMPReference", "ipsecNegotiationPolicyReference", "ipsecFilterReference", "iPSECNegotiationPolicyType",
		"iPSECNegotiationPolicyAction", "gPLink", "gPOptions", "flags", "gPCMachineExtensionNames", "gPCWQLFilter",
	}
}

// object is one entry of the directory with what is common to all.
type object struct {
	dn          directory.DN
	entry       directory.Entry
	name        string // ipsecName, or displayName of a GPO
	description string
}

func (o object) value(attribute string) string {
	if v := o.entry.Values(attribute); len(v) > 0 {
		return v[0]
	}
	return ""
}

// called names the object for people.
func (o object) called() string {
	if o.name != "" {
		return fmt.Sprintf("%q", o.name)
	}
	return fmt.Sprintf("%q", o.dn.Name())
}

// objects are the entries by class and, within, by the normal form of their DN.
type objects struct {
	policies, mainModes, rules, negotiations, filters map[string]object
	gpos, containers                                  map[string]object
	pointers                                          map[string]object // of GPOs, by the normal form of the GPO's DN
	sites, subnets                                    map[string]object
	named                                             map[descriptor.SID]directory.DN // groups and machines
}

// sort puts every entry into its place. Entries of other kinds are passed over.
func (c *converter) sort(entries []directory.Entry) {
	c.objects = objects{
		policies: map[string]object{}, mainModes: map[string]object{}, rules: map[string]object{}, negotiations: map[string]object{},
		filters: map[string]object{}, gpos: map[string]object{}, containers: map[string]object{}, pointers: map[string]object{},
		sites: map[string]object{}, subnets: map[string]object{}, named: map[descriptor.SID]directory.DN{},
	}
	byClass := map[string]map[string]object{
		"ipsecpolicy": c.policies, "ipsecisakmppolicy": c.mainModes, "ipsecnfa": c.rules, "ipsecnegotiationpolicy": c.negotiations,
		"ipsecfilter": c.filters, "grouppolicycontainer": c.gpos, "site": c.sites, "subnet": c.subnets,
	}
	for _, e := range entries {
		o := object{entry: e}
		var err error
		if o.dn, err = directory.ParseDN(e.DN); err != nil || o.dn.IsZero() {
			c.note("", "an entry named %.200q is passed over: its name is no DN", e.DN)
			continue
		}
		o.name, o.description = cleanName(o.value("ipsecName")), cleanDescription(o.value("description"))
		if o.name == "" {
			o.name = cleanName(o.value("displayName"))
		}
		if sid, err := descriptor.ParseSID([]byte(o.value("objectSid"))); err == nil {
			c.named[sid] = o.dn
		}
		if len(e.Values("gPLink")) > 0 || o.value("gPOptions") == "1" {
			c.containers[o.dn.Key()] = o
		}
		for _, class := range e.Values("objectClass") {
			place, ok := byClass[strings.ToLower(class)]
			if gpo, pointer := pointerOf(o.dn); ok && pointer {
				place, o.dn = c.pointers, gpo
			}
			if ok {
				place[o.dn.Key()] = o
				break
			}
		}
	}
}

// pointerOf returns the GPO of CN=IPSEC,CN=Windows,CN=Microsoft,CN=Machine,CN={GPO},..., the object by which a GPO names
// its policy.
func pointerOf(dn directory.DN) (gpo directory.DN, ok bool) {
	for _, name := range []string{"IPSEC", "Windows", "Microsoft", "Machine"} {
		if !strings.EqualFold(dn.Name(), name) || dn.RDNType() != "cn" {
			return directory.DN{}, false
		}
		dn = dn.Parent()
	}
	return dn, !dn.IsZero()
}

// sorted returns the objects by name and DN: an LDAP server returns entries and values in any order.
func sorted(m map[string]object) []object {
	out := make([]object, 0, len(m))
	for _, o := range m {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b object) int {
		return cmp.Or(cmp.Compare(a.name, b.name), a.dn.Compare(b.dn))
	})
	return out
}

// refer follows one reference. The sentence tells why there is nothing, for a note.
func refer(in map[string]object, dn string) (object, string) {
	parsed, err := directory.ParseDN(dn)
	if err != nil {
		return object{}, fmt.Sprintf("%.200q, which is no DN", dn)
	}
	o, ok := in[parsed.Key()]
	if !ok {
		return object{}, fmt.Sprintf("%q, which does not exist", parsed)
	}
	return o, ""
}

// data returns the value of the object; more than one makes no sense.
func (o object) data() []byte { return []byte(o.value("ipsecData")) }
