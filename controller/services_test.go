package controller

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/directory/ldap"
	"github.com/bailiwick-net/bailiwick/directory/settings"
)

func TestServicesThatAPlanWatches(t *testing.T) {
	v := validated{
		Config:   Config{Listen: []string{"[::]:7443", "127.0.0.1:0", "nonsense"}},
		dnsNames: []string{"controller.x"}, addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
	}
	for url, want := range map[string]string{
		"ldaps://ldap.x":                "directory tcp/636 ldap.x invalid IP",
		"ldap://192.0.2.9:1389":         "directory tcp/1389  192.0.2.9",
		"ldapi://%2Frun%2Fslapd.socket": "",
	} {
		v.directories.Sources = []settings.CheckedSource{{LDAP: &ldap.Config{URL: url}}}
		var got []string
		for _, s := range v.services() {
			got = append(got, fmt.Sprintf("%s %s %s", s, s.Host, s.Address))
		}
		for _, line := range []string{"DNS udp/53  invalid IP", "DNS tcp/53  invalid IP", "controller tcp/7443 controller.x invalid IP", "controller tcp/7443  192.0.2.1"} {
			if !slices.Contains(got, line) {
				t.Errorf("%s: %q is not among %q", url, line, got)
			}
		}
		if want == "" && len(got) != 4 || want != "" && !slices.Contains(got, want) {
			t.Errorf("%s: wanted %q among %q", url, want, got)
		}
	}
}
