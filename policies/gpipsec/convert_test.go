package gpipsec_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/gpipsec"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

const (
	domain = "DC=bank,DC=example"
	store  = "CN=IP Security,CN=System," + domain

	block     = "{3F91A819-7647-11D1-864D-D46A00000000}"
	inpass    = "{3F91A81A-7647-11D1-864D-D46A00000000}"
	permit    = "{8A171DD2-77E3-11D1-8659-A04F00000000}"
	negotiate = "{8A171DD3-77E3-11D1-8659-A04F00000000}"
	standard  = "{62F49E10-6C37-11D1-864C-14A300000000}"
	response  = "{62F49E13-6C37-11D1-864C-14A300000000}"
)

// dn names the object of a class by a letter or word.
func dn(class, id string) string { return "CN=" + class + "{" + id + "}," + store }

// entry makes an entry of name and value pairs; an empty value is left away.
func entry(name string, class string, pairs ...string) directory.Entry {
	e := directory.Entry{DN: name, Attributes: []directory.Attribute{{Name: "objectClass", Values: []string{"top", class}}}}
	for p := range slices.Chunk(pairs, 2) {
		if p[1] != "" {
			i := slices.IndexFunc(e.Attributes, func(a directory.Attribute) bool { return a.Name == p[0] })
			if i < 0 {
				e.Attributes = append(e.Attributes, directory.Attribute{Name: p[0]})
				i = len(e.Attributes) - 1
			}
			e.Attributes[i].Values = append(e.Attributes[i].Values, p[1])
		}
	}
	return e
}

func octets(v appender) string { return string(v.Append(nil)) }

func addr(s string) (a [4]byte) { return netip.MustParseAddr(s).As4() }

var (
	none, all = [4]byte{}, [4]byte{255, 255, 255, 255}
	tripleDES = gpipsec.QuickOffer{Seconds: 3600, Kilobytes: 100000, PFS: true, Algorithms: []gpipsec.Algorithm{{Algorithm: 3, Integrity: 2, Kind: 2}}}
	ahAndESP  = gpipsec.QuickOffer{Algorithms: []gpipsec.Algorithm{{Algorithm: 2, Kind: 1}, {Algorithm: 0, Integrity: 2, Kind: 2}}}
	soft      = gpipsec.QuickOffer{}
)

const key = "Bonbon-4711"

// bank is a domain with everything that administrators made: a preshared key, an authority, a tunnel, links of every kind,
// filters of both kinds, and references that lead nowhere.
func bank() []directory.Entry {
	rule := func(id, name, action string, lists []string, v gpipsec.RuleValue) directory.Entry {
		e := entry(dn("ipsecNFA", id), "ipsecNFA", "ipsecName", name, "ipsecData", octets(v), "ipsecOwnersReference", dn("ipsecPolicy", "A"),
			"ipsecNegotiationPolicyReference", dn("ipsecNegotiationPolicy", action))
		if len(lists) > 0 {
			e.Attributes = append(e.Attributes, directory.Attribute{Name: "ipsecFilterReference", Values: []string{dn("ipsecFilter", lists[0])}})
		}
		return e
	}
	action := func(id, name, typ, what string, offers ...gpipsec.QuickOffer) directory.Entry {
		return entry(dn("ipsecNegotiationPolicy", id), "ipsecNegotiationPolicy", "ipsecName", name, "iPSECNegotiationPolicyType", typ,
			"iPSECNegotiationPolicyAction", what, "ipsecData", octets(gpipsec.Negotiation{Offers: offers}))
	}
	list := func(id, name string, v gpipsec.FilterValue, owners ...string) directory.Entry {
		e := entry(dn("ipsecFilter", id), "ipsecFilter", "ipsecName", name, "ipsecData", octets(v))
		for _, o := range owners {
			e.Attributes = append(e.Attributes, directory.Attribute{Name: "ipsecOwnersReference", Values: []string{dn("ipsecNFA", o)}})
		}
		return e
	}
	v4 := func(s string) (a [16]byte) { copy(a[:], netip.MustParseAddr(s).AsSlice()); return a }
	gpo := func(id, name, flags, extension, wmi, policy string) []directory.Entry {
		d := "CN={" + id + "},CN=Policies,CN=System," + domain
		return []directory.Entry{
			entry(d, "groupPolicyContainer", "displayName", name, "flags", flags, "gPCMachineExtensionNames", extension, "gPCWQLFilter", wmi),
			entry("CN=IPSEC,CN=Windows,CN=Microsoft,CN=Machine,"+d, "ipsecPolicy", "ipsecOwnersReference", dn("ipsecPolicy", policy)),
		}
	}
	const ipsec = "[{E437BC1C-AA7D-11D2-A382-00C04F991E27}{DEA8AFA0-CC85-11D0-9CE2-0080C7221EBD}]"
	link := func(id string, options int) string {
		return fmt.Sprintf("[LDAP://cn={%s},cn=policies,cn=system,%s;%d]", id, domain, options)
	}
	psk := gpipsec.AuthMethod{Type: 1, Key: gpipsec.NewKey(key)}
	entries := []directory.Entry{
		entry(dn("ipsecPolicy", "A"), "ipsecPolicy", "ipsecName", "Branch", "description", "Made by hand.\r\nTwice.", "ipsecData", octets(gpipsec.PolicyValue{Polling: 600}),
			"ipsecISAKMPReference", dn("ipsecISAKMPPolicy", "A"), "ipsecNFAReference", dn("ipsecNFA", "IRC"), "ipsecNFAReference", dn("ipsecNFA", "GONE")),
		entry(dn("ipsecISAKMPPolicy", "A"), "ipsecISAKMPPolicy", "ipsecData", octets(gpipsec.MainMode{
			MasterPFS: true, Options: 2, NewDH: [4]uint8{4}, Lifetime: 3600, Methods: []gpipsec.Method{{Encryption: 3, Hash: 2, Group: 2, Kilobytes: 5000}},
		})),
		rule("IRC", "IRC", "SECURE", []string{"IRC"}, gpipsec.RuleValue{Active: true, Interface: 0xFFFFFFFE, Methods: []gpipsec.AuthMethod{
			{Type: 3, CA: `C=US, S=WA, O="Partner, Inc.", CN=Partner CA`, Flags: 1}, {Type: 5}, psk,
		}}),
		rule("OUT", "To the branch", "TUNNEL", []string{"OUT"}, gpipsec.RuleValue{Active: true, Interface: 0xFFFFFFFD, Tunnel: netip.MustParseAddr("198.51.100.1"), Methods: []gpipsec.AuthMethod{psk}}),
		rule("IN", "To us", "TUNNEL", []string{"IN"}, gpipsec.RuleValue{Active: true, Interface: 0xFFFFFFFD, Tunnel: netip.MustParseAddr("192.0.2.1"), Methods: []gpipsec.AuthMethod{psk}}),
		rule("SERVERS", "Servers", "PERMIT", []string{"SERVERS"}, gpipsec.RuleValue{Interface: 0xFFFFFFFD, Methods: []gpipsec.AuthMethod{{Type: 5}}}),
		rule("LOST", "Lost", "GONE", []string{"IRC"}, gpipsec.RuleValue{Active: true, Interface: 0xFFFFFFFD}),
		rule("EMPTY", "Empty", "PERMIT", []string{"GONE"}, gpipsec.RuleValue{Active: true, Interface: 0xFFFFFFFD}),
		rule("RESPONSE", "", "RESPONSE", nil, gpipsec.RuleValue{Active: true, Interface: 0xFFFFFFFD, Methods: []gpipsec.AuthMethod{{Type: 5}}}),
		rule("RANGES", "Ranges", "STRANGE", []string{"RANGES"}, gpipsec.RuleValue{Active: true, Interface: 0xFFFFFFFD}),
		action("SECURE", "Encrypt", standard, inpass, tripleDES, soft),
		action("TUNNEL", "In the tunnel", standard, inpass, ahAndESP),
		action("PERMIT", "Pass", standard, permit),
		action("UNUSED", "Drop", standard, block),
		action("STRANGE", "Something new", standard, "{00000000-0000-0000-0000-000000000000}"),
		action("RESPONSE", "", response, negotiate),
		list("IRC", "IRC", gpipsec.FilterValue{Filters: []gpipsec.Filter1{
			{SourceMask: all, Destination: addr("10.0.0.0"), DestinationMask: addr("255.0.0.0"), Protocol: 6, DestinationPort: 6667, Mirrored: true},
			{SourceMask: all, Destination: addr("10.0.0.0"), DestinationMask: addr("255.0.255.0"), Protocol: 6, Mirrored: true},
			{SourceMask: all, Destination: addr("239.1.2.3"), DestinationMask: all, Mirrored: true, Description: "Everybody"},
		}}, "IRC"),
		list("MORE", "Also IRC", gpipsec.FilterValue{Filters: []gpipsec.Filter1{
			{SourceMask: all, Protocol: 6, DestinationPort: 6668, Mirrored: true, Destination: addr("10.9.9.9"), DestinationMask: all, DestinationName: "irc.bank.example"},
		}}, "IRC"),
		list("OUT", "A to B", gpipsec.FilterValue{Filters: []gpipsec.Filter1{
			{Source: addr("10.1.0.0"), SourceMask: addr("255.255.0.0"), Destination: addr("10.2.0.0"), DestinationMask: addr("255.255.0.0")},
		}}),
		list("IN", "B to A", gpipsec.FilterValue{Filters: []gpipsec.Filter1{
			{Source: addr("10.2.0.0"), SourceMask: addr("255.255.0.0"), Destination: addr("10.1.0.0"), DestinationMask: addr("255.255.0.0")},
		}}),
		list("SERVERS", "Servers", gpipsec.FilterValue{Filters: []gpipsec.Filter1{
			{SourceMask: all, DestinationMask: none, Special: 0x81, Mirrored: true}, {SourceMask: all, Special: 0x82, Mirrored: true},
			{SourceMask: all, Special: 0x83, Mirrored: true}, {SourceMask: all, Special: 0x84, Mirrored: true}, {SourceMask: all, Protocol: 1, Mirrored: true},
		}}),
		list("RANGES", "Ranges", gpipsec.FilterValue{
			Filters: []gpipsec.Filter1{{SourceMask: all, Destination: addr("10.3.0.0"), DestinationMask: addr("255.255.255.254"), Protocol: 17}},
			Filters2: []gpipsec.Filter2{
				{Source: gpipsec.Address2{Type: 8, Version: 3}, Destination: gpipsec.Address2{Type: 2, Version: 1, First: v4("10.3.0.0"), Second: v4("10.3.0.9")}, Protocol: 17, Flags: 8},
				{Source: gpipsec.Address2{Type: 4, Version: 2, First: v4("2001:db8::"), Second: [16]byte{32}}, Destination: gpipsec.Address2{Type: 1, Version: 2, First: v4("2001:db8:1::1")},
					Protocol: 6, DestinationPort: gpipsec.Port2{Type: 2, From: 8000, To: 8099}, Mirrored: true},
			},
		}),
		entry("OU=Branches,"+domain, "organizationalUnit", "gPOptions", "1", "gPLink", link("11", 0)+link("22", 2)+link("33", 1)+link("99", 0)),
		entry(domain, "domainDNS", "gPLink", link("44", 0)+link("55", 0)+link("66", 0)),
		entry("CN=Sites,CN=Configuration,"+domain, "site", "gPLink", link("11", 0)),
	}
	entries = append(entries, gpo("11", "Branch policy", "0", ipsec, "", "A")...)
	entries = append(entries, gpo("22", "Enforced", "0", ipsec, "", "A")...)
	entries = append(entries, gpo("33", "Link off", "0", ipsec, "", "A")...)
	entries = append(entries, gpo("44", "Switched off", "3", ipsec, "", "A")...)
	entries = append(entries, gpo("55", "Without extension", "0", "", "", "A")...)
	entries = append(entries, gpo("66", "Dangling", "0", ipsec, "", "GONE")...)
	return append(entries, gpo("77", "Nowhere", "0", ipsec, "", "A")...)
}

func TestConvertTheBank(t *testing.T) {
	r := convert(t, bank(), gpipsec.Options{Prefix: "Old "})
	golden(t, "testdata/bank.yaml", r.YAML())
	if n := len(r.Secrets); n != 1 || len(r.Secrets[0].Used) != 4 {
		t.Errorf("secrets %+v, want one that four rules use", r.Secrets)
	}
	shown := fmt.Sprintf("%s %+v %#v", r.YAML(), r, r)
	if strings.Contains(shown, key) {
		t.Error("the preshared key is shown")
	}
	// The joined tunnel means what the two rules did.
	p, err := r.Documents.Effective("Old Branch")
	if err != nil {
		t.Fatal(err)
	}
	set, err := spd.Expand(p, spd.Facts{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []struct {
		direction spd.Direction
		from, to  string
	}{{spd.Out, "10.1.0.1", "10.2.0.1"}, {spd.In, "10.2.0.1", "10.1.0.1"}} {
		m := set.Lookup(way.direction, spd.Packet{Source: netip.MustParseAddr(way.from), Destination: netip.MustParseAddr(way.to), Protocol: 6})
		if m.Action != spd.ActionNegotiate || m.Rule == nil || m.Rule.Tunnel != netip.MustParseAddr("198.51.100.1") || m.Rule.TunnelLocal != netip.MustParseAddr("192.0.2.1") {
			t.Errorf("%s to %s: %+v by rule %+v, want the tunnel", way.from, way.to, m, m.Rule)
		}
	}
}

func TestConvertNothing(t *testing.T) {
	for _, entries := range [][]directory.Entry{nil, {entry(domain, "domainDNS")}, {entry(dn("ipsecFilter", "A"), "ipsecFilter")}} {
		if _, err := gpipsec.Convert(entries, gpipsec.Options{}); !errors.Is(err, gpipsec.ErrNothing) {
			t.Errorf("%d entries: %v", len(entries), err)
		}
	}
}

// TestConvertIsIndependentOfOrder shuffles entries and values, which LDAP returns in any order.
func TestConvertIsIndependentOfOrder(t *testing.T) {
	want := string(convert(t, bank(), gpipsec.Options{}).YAML())
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.Permutation(bank()).Draw(t, "entries")
		for _, e := range entries {
			for i, a := range e.Attributes {
				e.Attributes[i].Values = rapid.Permutation(a.Values).Draw(t, "values")
			}
		}
		r, err := gpipsec.Convert(entries, gpipsec.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := string(r.YAML()); got != want {
			t.Fatalf("another order gives other documents:\n%s\nwant\n%s", got, want)
		}
	})
}

// TestConvertAnything makes random objects with random references and names: the documents are valid whatever comes, and
// no key is in them.
func TestConvertAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.SampledFrom([]string{"1", "2", "3", "GONE"})
		name := rapid.OneOf(rapid.SampledFrom([]string{"", "One", "one", "none", "a\nb", "# x", strings.Repeat("long ", 100)}), rapid.String())
		actions := rapid.SampledFrom([]string{block, inpass, permit, negotiate, negotiate, inpass, "", "x"})
		var entries []directory.Entry
		n := func(most int) int { return rapid.IntRange(1, most).Draw(t, "number") }
		for i := range n(3) {
			entries = append(entries, entry(dn("ipsecPolicy", fmt.Sprint(i+1)), "ipsecPolicy", "ipsecName", name.Draw(t, "name"), "description", name.Draw(t, "description"),
				"ipsecData", octets(policyValue().Draw(t, "policy")), "ipsecISAKMPReference", dn("ipsecISAKMPPolicy", id.Draw(t, "main mode"))))
			entries = append(entries, entry(dn("ipsecISAKMPPolicy", fmt.Sprint(i+1)), "ipsecISAKMPPolicy", "ipsecData", octets(mainMode().Draw(t, "main mode"))))
		}
		for i := range n(6) {
			entries = append(entries, entry(dn("ipsecNFA", fmt.Sprint(i+1)), "ipsecNFA", "ipsecName", name.Draw(t, "name"), "ipsecData", octets(ruleValue().Draw(t, "rule")),
				"ipsecOwnersReference", dn("ipsecPolicy", id.Draw(t, "policy")), "ipsecFilterReference", dn("ipsecFilter", id.Draw(t, "filter")),
				"ipsecNegotiationPolicyReference", dn("ipsecNegotiationPolicy", id.Draw(t, "action"))))
		}
		for i := range 3 {
			entries = append(entries, entry(dn("ipsecNegotiationPolicy", fmt.Sprint(i+1)), "ipsecNegotiationPolicy", "ipsecName", name.Draw(t, "name"),
				"iPSECNegotiationPolicyType", rapid.SampledFrom([]string{standard, standard, response}).Draw(t, "type"),
				"iPSECNegotiationPolicyAction", actions.Draw(t, "action"), "ipsecData", octets(negotiation().Draw(t, "offers"))))
			entries = append(entries, entry(dn("ipsecFilter", fmt.Sprint(i+1)), "ipsecFilter", "ipsecName", name.Draw(t, "name"),
				"ipsecData", octets(filterValue().Draw(t, "filters"))))
		}
		r := convertAnything(t, entries)
		if strings.Contains(string(r.YAML()), "PSK") {
			t.Fatalf("a preshared key is shown:\n%s", r.YAML())
		}
	})
}
