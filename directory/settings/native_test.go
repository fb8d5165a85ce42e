package settings_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/directory/settings"
)

func TestNativeIsForActiveDirectory(t *testing.T) {
	for _, test := range []struct {
		schema, assignment, sites string
		wantAssignment, wantSites bool
		wrong                     string
	}{
		{"active-directory", "", "", false, false, ""},
		{"active-directory", "bailiwick", "bailiwick", false, false, ""},
		{"active-directory", "bailiwick", "native", false, true, ""},
		{"active-directory", "native", "", true, true, ""},
		{"active-directory", "yes", "", false, false, `directory.ldap.assignment: "yes", wanted native or bailiwick`},
		{"openldap", "native", "", false, false, "directory.ldap.assignment: native is for Active Directory"},
		{"openldap", "", "native", false, false, "directory.ldap.sites: native is for Active Directory"},
	} {
		c, err := settings.Directory{LDAP: &settings.LDAP{
			URL: "ldaps://dc1.bank.example", Base: "DC=bank,DC=example", Schema: test.schema, Assignment: test.assignment, Sites: test.sites,
		}}.Check()
		if test.wrong != "" {
			if !errors.Is(err, settings.ErrInvalid) || !strings.Contains(err.Error(), test.wrong) {
				t.Errorf("%+v: error %v", test, err)
			}
			continue
		}
		if err != nil || c.Sources[0].NativeAssignment != test.wantAssignment || c.Sources[0].NativeSites != test.wantSites {
			t.Errorf("%+v: %+v, %v", test, c, err)
		}
	}
}
