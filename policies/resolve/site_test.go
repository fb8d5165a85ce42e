package resolve

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
)

// TestSiteVectors is the precedence of semantics 3.2: local < site < domain < organizational units, and enforced links
// the other way round. The machine m is in OU=A and at site Main.
func TestSiteVectors(t *testing.T) {
	const tree = "container DC=x\ncontainer OU=A,DC=x%\nmachine CN=m,OU=A,DC=x\ngroup CN=g,DC=x: CN=m,OU=A,DC=x\npolicy S\npolicy D\npolicy O\n"
	const site = "link S 1 cn=main,cn=sites"
	rows := []string{fmt.Sprintf("%-45s | %-6s | links in the order of precedence", "12 site vs domain", "policy")}
	defer func() { t.Logf("\n%s", strings.Join(rows, "\n")) }()
	for _, tt := range []struct{ name, block, links, policy, reasons string }{
		{"site only", "", site, "S", "won"},
		{"the domain overrides the site", "", site + "\nlink D 1 DC=x", "D", "won overridden"},
		{"an organizational unit overrides both", "", site + "\nlink D 1 DC=x\nlink O 1 OU=A,DC=x", "O", "won overridden overridden"},
		{"an enforced site overrides all", "", site + " enforced\nlink D 1 DC=x enforced\nlink O 1 OU=A,DC=x", "S", "won overridden overridden"},
		{"inheritance is blocked", " block", site, "none", "inheritance-blocked"},
		{"enforced through a block", " block", site + " enforced\nlink O 1 OU=A,DC=x", "S", "won overridden"},
		{"disabled", "", site + " enforced disabled", "none", "link-disabled"},
		{"another site", "", "link S 1 cn=Branch,cn=Sites\nlink D 1 DC=x", "D", "won"},
		{"members only", "", site + " apply=CN=g,DC=x", "S", "won"},
		{"members denied", "", site + " deny=CN=g,DC=x", "none", "denied-by-group"},
		{"two links of a site", "", site + "\nlink D 2 cn=Main,cn=Sites", "S", "won overridden"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, d := world(t, strings.ReplaceAll(tree, "%", tt.block)+tt.links)
			d.Sites = []policies.Site{
				{Meta: policies.Meta{Name: "Main"}, Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
				{Meta: policies.Meta{Name: "Branch"}, Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.128/25"), netip.MustParsePrefix("2001:db8::/32")}},
			}
			m, _ := s.MachineByName("m")
			plan := Prepare(d).At(func(directory.UUID) (netip.Addr, bool) { return netip.MustParseAddr("192.0.2.1"), true })
			o, err := plan.Machine(s, m.UUID)
			if err != nil {
				t.Fatal(err)
			}
			if all, _ := plan.All(s).Of(m.UUID); render(all) != render(o) {
				t.Errorf("alone\n%s\nwith all\n%s", render(o), render(all))
			}
			var reasons []string
			for _, e := range o.Entries {
				reasons = append(reasons, e.Reason.String())
			}
			rows = append(rows, fmt.Sprintf("%-45s | %-6s | %s", tt.name, o.Policy, strings.Join(reasons, ", ")))
			if o.Policy != tt.policy || strings.Join(reasons, " ") != tt.reasons {
				t.Errorf("policy %s, reasons %q; wanted %s, %q\n%s", o.Policy, reasons, tt.policy, tt.reasons, render(o))
			}
			if len(o.Entries) > 1 && o.Entries[0].SOMOrder == o.Entries[1].SOMOrder && tt.name != "two links of a site" {
				t.Errorf("two scopes have one place:\n%s", render(o))
			}
		})
	}
}

func TestSiting(t *testing.T) {
	address := func(s string) []netip.Addr {
		if s == "" {
			return nil
		}
		return []netip.Addr{netip.MustParseAddr(s)}
	}
	d := policies.Documents{Sites: []policies.Site{
		{Meta: policies.Meta{Name: "Main"}, Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		{Meta: policies.Meta{Name: "Lab"}, Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.64/26"), netip.MustParsePrefix("2001:db8::/32")}},
	}}
	for _, tt := range []struct{ node, directory, site, sentence string }{
		{"192.0.2.1", "", "Main", "the address 192.0.2.1 of its node is in its subnet 192.0.2.0/24"},
		{"192.0.2.65", "", "Lab", "192.0.2.64/26"},
		{"::ffff:192.0.2.65", "", "Lab", "192.0.2.64/26"},
		{"2001:db8::1", "", "Lab", "2001:db8::/32"},
		{"2001:db8::1", "192.0.2.1", "Lab", "of its node"}, // the node counts
		{"198.51.100.1", "192.0.2.1", "", "no site has a subnet with the address 198.51.100.1 of its node"},
		{"", "192.0.2.1", "Main", "the address 192.0.2.1 in the directory is in its subnet"},
		{"", "", "", "no node of the machine ever connected"},
	} {
		plan := Prepare(d).At(func(directory.UUID) (netip.Addr, bool) {
			if tt.node == "" {
				return netip.Addr{}, false
			}
			return netip.MustParseAddr(tt.node), true
		})
		got := plan.Siting(directory.Machine{Addresses: address(tt.directory)})
		if got.Site != tt.site || !strings.Contains(got.Sentence, tt.sentence) {
			t.Errorf("node %q, directory %q: %+v; wanted site %q because %q", tt.node, tt.directory, got, tt.site, tt.sentence)
		}
	}
	if got := Prepare(policies.Documents{}).Siting(directory.Machine{}); got != (Siting{}) {
		t.Errorf("without sites: %+v", got)
	}
	plan := Prepare(d)
	if a := netip.MustParseAddr("192.0.2.1"); !plan.SameSite(a, a.Next()) || plan.SameSite(a, netip.MustParseAddr("192.0.2.65")) || plan.SameSite(a, netip.MustParseAddr("198.51.100.1")) {
		t.Error("addresses are not told apart by site")
	}
}

// BenchmarkAllAtSites resolves the fleet of BenchmarkAll with its machines at 200 sites, each of which has a policy.
func BenchmarkAllAtSites(b *testing.B) {
	s, d := fleet(b)
	for i := range 200 {
		site := policies.Site{Meta: policies.Meta{Name: fmt.Sprintf("site%d", i)}, Subnets: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16), netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i), 0}), 24),
		}}
		d.Sites = append(d.Sites, site)
		d.Links = append(d.Links, policies.Link{Policy: "client", Order: 1, Container: site.DN()})
	}
	where := func(m directory.UUID) (netip.Addr, bool) {
		return netip.AddrFrom4([4]byte{10, m[15] % 200, m[14], m[13]}), true
	}
	b.ReportAllocs()
	for b.Loop() {
		if a := Prepare(d).At(where).All(s); a.Len() != 100_000 {
			b.Fatal(a.Len())
		}
	}
}
