package contentsync

import (
	"strings"
	"testing"
)

// FuzzCookie reads cookies of any form. What is learnt of them is in order: nothing is behind itself, and what was merged is
// behind neither of its parts.
func FuzzCookie(f *testing.F) {
	csn := "20260101000000.000001Z#000000#001#000000"
	other := "20260101000000.000002Z#000000#002#000000"
	f.Add("rid=001,csn="+csn, "rid=001,sid=002,csn="+csn+";"+other)
	f.Add("ldap1:389#cn=reader:dc=bank:(objectClass=*)#14", "ldap1:389#cn=reader:dc=bank:(objectClass=*)#15")
	f.Add("csn=", "rid=,csn=;;"+csn)
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := Cookie(a), Cookie(b)
		if x.Behind(x) || y.Behind(y) {
			t.Fatalf("%q or %q is behind itself", a, b)
		}
		merged := x.merge(y)
		if x.csns() != nil && y.csns() != nil && (merged.Behind(x) || merged.Behind(y)) {
			t.Fatalf("%q merged with %q is %q, which is behind one of them", a, b, merged)
		}
		list := strings.Split(b, ";")
		if of := CookieOf(list); !strings.Contains(b, ",") && of.csns() != nil && !of.Reaches(list) {
			t.Fatalf("the cookie of %q does not reach it", list)
		}
		if n, ok := x.changeNumber(); ok && !x.Reaches([]string{"lastchangenumber=" + a[strings.LastIndexByte(a, '#')+1:]}) {
			t.Fatalf("%q does not reach its own number %d", a, n)
		}
	})
}
