package gpipsec_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/descriptor"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/gpipsec"
)

var (
	apply    = descriptor.MustParseGUID("edacfd8f-ffb3-11d1-b41d-00a0c968f939")
	servers  = descriptor.NewSID(5, 21, 1, 2, 3, 1105)
	laptops  = descriptor.NewSID(5, 21, 1, 2, 3, 1106)
	sql1     = descriptor.NewSID(5, 21, 1, 2, 3, 1107)
	stranger = descriptor.NewSID(5, 21, 9, 9, 9, 500)
)

func allow(s descriptor.SID) descriptor.Entry {
	return descriptor.Entry{Type: descriptor.AccessAllowedObject, Mask: descriptor.ControlAccess, Object: apply, Trustee: s}
}

func deny(s descriptor.SID) descriptor.Entry {
	e := allow(s)
	e.Type = descriptor.AccessDeniedObject
	return e
}

func security(entries ...descriptor.Entry) string {
	read := descriptor.Entry{Type: descriptor.AccessAllowed, Mask: descriptor.GenericRead, Trustee: descriptor.Everyone}
	return string(descriptor.Descriptor{Access: &descriptor.List{Revision: 4, Entries: append(entries, read)}}.Append(nil))
}

// native is a domain that assigns one policy by a Group Policy object with the access rights.
func native(rights string) []directory.Entry {
	gpo := "CN={11},CN=Policies,CN=System," + domain
	const ipsec = "[{E437BC1C-AA7D-11D2-A382-00C04F991E27}{DEA8AFA0-CC85-11D0-9CE2-0080C7221EBD}]"
	return []directory.Entry{
		entry(dn("ipsecPolicy", "A"), "ipsecPolicy", "ipsecName", "Secure", "ipsecData", octets(gpipsec.PolicyValue{Polling: 600}), "ipsecNFAReference", dn("ipsecNFA", "R")),
		entry(dn("ipsecNFA", "R"), "ipsecNFA", "ipsecName", "Rule", "ipsecData", octets(gpipsec.RuleValue{Active: true, Interface: 0xFFFFFFFD}),
			"ipsecOwnersReference", dn("ipsecPolicy", "A"), "ipsecNegotiationPolicyReference", dn("ipsecNegotiationPolicy", "P"), "ipsecFilterReference", dn("ipsecFilter", "F")),
		entry(dn("ipsecNegotiationPolicy", "P"), "ipsecNegotiationPolicy", "ipsecName", "Pass", "iPSECNegotiationPolicyType", standard,
			"iPSECNegotiationPolicyAction", permit, "ipsecData", octets(gpipsec.Negotiation{})),
		entry(dn("ipsecFilter", "F"), "ipsecFilter", "ipsecName", "All", "ipsecData", octets(gpipsec.FilterValue{Filters: []gpipsec.Filter1{{SourceMask: all, Protocol: 1, Mirrored: true}}})),
		entry(gpo, "groupPolicyContainer", "displayName", "Isolation", "gPCMachineExtensionNames", ipsec, gpipsec.SecurityAttribute, rights),
		entry("CN=IPSEC,CN=Windows,CN=Microsoft,CN=Machine,"+gpo, "ipsecPolicy", "ipsecOwnersReference", dn("ipsecPolicy", "A")),
		entry("OU=Servers,"+domain, "organizationalUnit", "gPLink", "[LDAP://"+gpo+";2]"),
		entry("CN=Servers,"+domain, "group", "objectSid", string(servers.Append(nil))),
		entry("CN=Laptops,"+domain, "group", "objectSid", string(laptops.Append(nil))),
		entry("CN=sql1,OU=Servers,"+domain, "computer", "objectSid", string(sql1.Append(nil))),
	}
}

func names(list []directory.DN) string {
	var out []string
	for _, dn := range list {
		out = append(out, dn.Name())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestSecurityFiltering(t *testing.T) {
	for name, test := range map[string]struct {
		rights      string
		apply, deny string
		disabled    bool
		note        string
	}{
		"everybody":              {security(allow(descriptor.AuthenticatedUsers)), "", "", false, ""},
		"everybody and a group":  {security(allow(servers), allow(descriptor.AuthenticatedUsers)), "", "", false, ""},
		"two groups":             {security(allow(servers), allow(laptops)), "Laptops Servers", "", false, ""},
		"one machine":            {security(allow(sql1)), "sql1", "", false, ""},
		"all but a group":        {security(deny(laptops), allow(descriptor.AuthenticatedUsers)), "", "Laptops", false, ""},
		"nobody":                 {security(), "", "", true, "lets no machine apply it"},
		"denied to everybody":    {security(deny(descriptor.Everyone), allow(servers)), "", "", true, "denies it to every machine"},
		"a stranger":             {security(allow(stranger)), "", "", true, "names nobody who was found"},
		"a group and a stranger": {security(allow(servers), allow(stranger)), "Servers", "", false, "S-1-5-21-9-9-9-500, which was not found"},
	} {
		t.Run(name, func(t *testing.T) {
			r := convert(t, native(test.rights), gpipsec.Options{Native: true})
			if len(r.Documents.Links) != 1 {
				t.Fatalf("%d links, want 1", len(r.Documents.Links))
			}
			l := r.Documents.Links[0]
			if names(l.Apply) != test.apply || names(l.Deny) != test.deny || l.Disabled != test.disabled || !l.Enforced {
				t.Errorf("applies to %q, not to %q, disabled %t, enforced %t", names(l.Apply), names(l.Deny), l.Disabled, l.Enforced)
			}
			if want := `link 1 of the Group Policy object "Isolation" {11}`; l.Description != want {
				t.Errorf("description %q, want %q", l.Description, want)
			}
			if test.note != "" && !strings.Contains(fmt.Sprint(r.Notes), test.note) {
				t.Errorf("notes %v, want one with %q", r.Notes, test.note)
			}
		})
	}
}

func TestNamesOf(t *testing.T) {
	filter, _, ok := gpipsec.NamesOf(native(security(deny(laptops), allow(servers), allow(descriptor.AuthenticatedUsers))))
	want := `(|(objectSid=\01\05\00\00\00\00\00\05\15\00\00\00\01\00\00\00\02\00\00\00\03\00\00\00\51\04\00\00)` +
		`(objectSid=\01\05\00\00\00\00\00\05\15\00\00\00\01\00\00\00\02\00\00\00\03\00\00\00\52\04\00\00))`
	if !ok || filter != want {
		t.Errorf("filter %s, want %s", filter, want)
	}
	if _, _, ok := gpipsec.NamesOf(native(security(allow(descriptor.AuthenticatedUsers)))); ok {
		t.Error("there is somebody to be found for everybody")
	}
}

// TestNativeAssignmentIsWholeOrNot leaves away what a reader may not see: the importer tells, native assignment fails.
func TestNativeAssignmentIsWholeOrNot(t *testing.T) {
	good := security(allow(descriptor.AuthenticatedUsers))
	without := func(prefix string) []directory.Entry {
		return slices.DeleteFunc(native(good), func(e directory.Entry) bool { return strings.HasPrefix(e.DN, prefix) })
	}
	dangling := native(good)
	dangling[5].Attributes[1].Values = []string{dn("ipsecPolicy", "GONE")}
	unreadable := native(good)
	unreadable[3].Attributes[2].Values = []string{"nonsense"}
	// Rules and the policy's list of them may be hidden each by itself, or both.
	unlisted := native(good)
	unlisted[0].Attributes = unlisted[0].Attributes[:3]
	unruled := slices.Delete(slices.Clone(unlisted), 1, 2)
	for name, entries := range map[string][]directory.Entry{
		"no rule":                 without("CN=ipsecNFA"),
		"no filter action":        without("CN=ipsecNegotiationPolicy"),
		"no filter list":          without("CN=ipsecFilter"),
		"malformed filter list":   unreadable,
		"no access rights":        native(""),
		"malformed access rights": native("nonsense"),
		"no object":               without("CN={11}"),
		"denied to a stranger":    native(security(deny(stranger), allow(servers))),
		"no rule to be seen":      unruled,
		"no list of rules":        unlisted,
		"no pointer":              without("CN=IPSEC"),
		"dangling pointer":        dangling,
	} {
		if _, err := gpipsec.Convert(entries, gpipsec.Options{Native: true}); !errors.Is(err, gpipsec.ErrUnknown) {
			t.Errorf("%s: error %v, want ErrUnknown", name, err)
		}
		convert(t, entries, gpipsec.Options{})
	}
}

// TestDeniedStrangerIsTold: whoever imports sees a link that is disabled, and why; native assignment keeps what it had.
func TestDeniedStrangerIsTold(t *testing.T) {
	entries := native(security(deny(stranger), allow(servers)))
	_, err := gpipsec.Convert(entries, gpipsec.Options{Native: true})
	if !errors.Is(err, gpipsec.ErrUnknown) || !strings.Contains(err.Error(), "denies it to S-1-5-21-9-9-9-500") {
		t.Errorf("error %v, want one that names the stranger", err)
	}
	r := convert(t, entries, gpipsec.Options{})
	if l := r.Documents.Links[0]; !l.Disabled || !strings.Contains(fmt.Sprint(r.Notes), "denies it to S-1-5-21-9-9-9-500") {
		t.Errorf("imported as disabled %t with notes %v", l.Disabled, r.Notes)
	}
	// A link that is switched off anyway says nothing of any machine.
	entries[6].Attributes[1].Values = []string{strings.Replace(entries[6].Attributes[1].Values[0], ";2]", ";1]", 1)}
	convert(t, entries, gpipsec.Options{Native: true})
}

// TestNativeAssignmentOfOtherPolicies: what a policy lacks that no machine has makes no difference.
func TestNativeAssignmentOfOtherPolicies(t *testing.T) {
	entries := append(native(security(allow(descriptor.AuthenticatedUsers))),
		entry(dn("ipsecPolicy", "B"), "ipsecPolicy", "ipsecName", "Unused", "ipsecData", octets(gpipsec.PolicyValue{}), "ipsecNFAReference", dn("ipsecNFA", "GONE")))
	if r := convert(t, entries, gpipsec.Options{Native: true}); len(r.Documents.Links) != 1 {
		t.Errorf("links %+v", r.Documents.Links)
	}
}

func TestSites(t *testing.T) {
	const configuration = "CN=Configuration," + domain
	gpo := "CN={11},CN=Policies,CN=System," + domain
	site := "CN=Vienna,CN=Sites," + configuration
	subnet := func(name, site string) directory.Entry {
		return entry("CN="+name+",CN=Subnets,CN=Sites,"+configuration, "subnet", "siteObject", site)
	}
	r := convert(t, append(native(security(allow(descriptor.AuthenticatedUsers))),
		entry(site, "site", "gPLink", "[LDAP://"+gpo+";0]", "gPOptions", "1"),
		entry("CN=Empty,CN=Sites,"+configuration, "site", "gPLink", "[LDAP://"+gpo+";0]"),
		subnet("10.1.0.0/16", site), subnet("2001:db8:1::/48", site), subnet("10.9.0.1/16", site), subnet("nonsense", site), subnet("10.2.0.0/16", ""),
	), gpipsec.Options{Native: true})
	if len(r.Documents.Sites) != 1 || r.Documents.Sites[0].Name != "Vienna" || fmt.Sprint(r.Documents.Sites[0].Subnets) != "[10.1.0.0/16 2001:db8:1::/48]" {
		t.Errorf("sites %+v", r.Documents.Sites)
	}
	at := slices.IndexFunc(r.Documents.Links, func(l policies.Link) bool { return policies.IsSite(l.Container) })
	if at < 0 || !r.Documents.Links[at].Container.Equal(r.Documents.Sites[0].DN()) || len(r.Documents.Links) != 2 || len(r.Documents.Containers) != 0 {
		t.Errorf("links %+v, containers %+v", r.Documents.Links, r.Documents.Containers)
	}
}

// FuzzNative reads any links and access rights: documents are valid, or there are none.
func FuzzNative(f *testing.F) {
	gpo := "CN={11},CN=Policies,CN=System," + domain
	f.Add("[LDAP://"+gpo+";0][LDAP://CN={22},CN=Policies,CN=System,"+domain+";2]", security(deny(laptops), allow(servers)), "10.0.0.0/8")
	f.Add("[LDAP://"+gpo+";3]", "", "::/0")
	f.Add(" ", security(), "x")
	f.Fuzz(func(t *testing.T, links, rights, subnet string) {
		entries := native(rights)
		entries[6].Attributes[1].Values = []string{links}
		site := "CN=V,CN=Sites,CN=Configuration," + domain
		entries = append(entries, entry(site, "site", "gPLink", links), directory.Entry{DN: "CN=" + subnet, Attributes: []directory.Attribute{
			{Name: "objectClass", Values: []string{"subnet"}}, {Name: "siteObject", Values: []string{site}},
		}})
		for _, native := range []bool{false, true} {
			r, err := gpipsec.Convert(entries, gpipsec.Options{Native: native})
			if err != nil {
				if !native || !errors.Is(err, gpipsec.ErrUnknown) {
					t.Fatal(err)
				}
				continue
			}
			check(t, r)
		}
	})
}
