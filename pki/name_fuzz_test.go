package pki

import (
	"strings"
	"testing"
)

// FuzzNames reads any text as every kind of name. What is accepted has one spelling, which is accepted as well.
func FuzzNames(f *testing.F) {
	for _, s := range []string{
		"6BA7B810-9dad-11d1-80b4-00c04fd430c8", "SQL1.bank.example", "xn--bcher-kva.example", "a_b.example", "192.0.2.1", "*.example", "a..b",
		"admin@bank.example", "-x", strings.Repeat("ab", 32), "K.example",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := ParseUUID(s); err == nil {
			if again, err := ParseUUID(u.String()); err != nil || again != u || !strings.EqualFold(u.String(), s) {
				t.Errorf("UUID %q is read as %s, %v", s, u, err)
			}
		}
		if name, err := ParseDNSName(s); err == nil {
			if again, err := ParseDNSName(name); err != nil || again != name || len(name) != len(s) {
				t.Errorf("DNS name %q is read as %q, %v", s, name, err)
			}
		}
		if id, err := ParseKeyID(s); err == nil && id.String() != s {
			t.Errorf("key id %q is read as %s", s, id)
		}
		if parseAccount(s) == nil && (len(s) > maxAccount || strings.ContainsAny(s, " /:\n\x00")) {
			t.Errorf("%q is the name of an administrator", s)
		}
	})
}
