package policies_test

import (
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies"
)

func site(name, subnets string) string {
	return "---\napiVersion: bailiwick.net/v1alpha1\nkind: Site\nname: " + name + "\nsubnets: " + subnets + "\n"
}

func siteLink(container string) string {
	return "---\napiVersion: bailiwick.net/v1alpha1\nkind: Link\npolicy: P\ncontainer: " + container + "\norder: 1\n---\napiVersion: bailiwick.net/v1alpha1\nkind: Policy\nname: P\nrules: []\n"
}

func TestSites(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"good", site("Main", "[192.0.2.0/24, 2001:db8::/32]") + site("Lab", "[192.0.2.64/26]") + siteLink("cn=main,cn=Sites"), ""},
		{"a name with a comma", site(`"Main, old"`, "[192.0.2.0/24]") + siteLink(`"cn=Main\\, old,cn=Sites"`), ""},
		{"no subnet", site("Main", "[192.0.2.0]"), "is not a subnet"},
		{"bits behind", site("Main", "[192.0.2.1/24]"), "192.0.2.0/24 would be that subnet"},
		{"IPv4 in IPv6", site("Main", `["::ffff:192.0.2.0/120"]`), "write it as IPv4"},
		{"empty", site("Main", "[]"), "1 to 10000 subnets"},
		{"the same subnet", site("Main", "[192.0.2.0/24]") + site("Lab", "[192.0.2.0/24]"), `has the subnet 192.0.2.0/24, as has site "Main"`},
		{"twice", site("Main", "[192.0.2.0/24, 192.0.2.0/24]"), "twice"},
		{"the same name", site("Main", "[192.0.2.0/24]") + site("main", "[198.51.100.0/24]"), `as "Main"`},
		{"a site that is not there", site("Main", "[192.0.2.0/24]") + siteLink("cn=Mian,cn=Sites"), `did you mean "Main"?`},
		{"not the place of sites", siteLink("cn=Main,cn=Sites,dc=x"), "only these have links"},
	} {
		text := strings.TrimPrefix(tt.text, "---\n")
		d, err := policies.Decode("f.yaml", []byte(text))
		if err == nil {
			err = policies.Check(policies.Validate(d))
		}
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "f.yaml:")) {
			t.Errorf("%s: %v, wanted %q with its place", tt.name, err, tt.want)
		}
	}
}
