package directory

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseDN(t *testing.T) {
	for _, tc := range []struct{ in, text, parent, name, domain string }{
		{"", "", "", "", ""},
		{"dc=example", "dc=example", "", "example", "example"},
		{"OU=Servers,DC=bank,DC=example", "OU=Servers,DC=bank,DC=example", "DC=bank,DC=example", "Servers", "bank.example"},
		// RFC 4514 section 4.
		{"UID=jsmith,DC=example,DC=net", "UID=jsmith,DC=example,DC=net", "DC=example,DC=net", "jsmith", "example.net"},
		{"OU=Sales+CN=J.  Smith,DC=example,DC=net", "OU=Sales+CN=J.  Smith,DC=example,DC=net", "DC=example,DC=net", "Sales", "example.net"},
		{`CN=James \"Jim\" Smith\, III,DC=example,DC=net`, `CN=James \"Jim\" Smith\, III,DC=example,DC=net`, "DC=example,DC=net", `James "Jim" Smith, III`, "example.net"},
		{`CN=Before\0dAfter,DC=example,DC=net`, `CN=Before\0dAfter,DC=example,DC=net`, "DC=example,DC=net", "Before\rAfter", "example.net"},
		{"1.3.6.1.4.1.1466.0=#04024869", "1.3.6.1.4.1.1466.0=#04024869", "", "#04024869", ""},
		{`CN=Lu\C4\8Di\C4\87`, "CN=Lučić", "", "Lučić", ""},
		{`cn=\#a\ ,dc=x`, `cn=\#a\ ,dc=x`, "dc=x", "#a ", "x"},
		{`cn=\20a\2c,dc=x`, `cn=\ a\,,dc=x`, "dc=x", " a,", "x"},
		{`cn=\\,dc=x`, `cn=\\,dc=x`, "dc=x", `\`, "x"},
		{`cn=a\=b=c,dc=x`, `cn=a=b=c,dc=x`, "dc=x", "a=b=c", "x"},
		{"cn=,dc=x", "cn=,dc=x", "dc=x", "", "x"},
	} {
		dn, err := ParseDN(tc.in)
		if err != nil {
			t.Errorf("ParseDN(%q): %v", tc.in, err)
			continue
		}
		if dn.String() != tc.text || dn.Parent().String() != tc.parent || dn.Name() != tc.name || dn.Domain() != tc.domain {
			t.Errorf("ParseDN(%q) = %q, parent %q, name %q, domain %q; want %q, %q, %q, %q",
				tc.in, dn, dn.Parent(), dn.Name(), dn.Domain(), tc.text, tc.parent, tc.name, tc.domain)
		}
		if !dn.IsZero() && !dn.IsDescendantOf(dn.Parent()) {
			t.Errorf("%q is not below its parent %q", dn, dn.Parent())
		}
	}
}

func TestParseDNRefuses(t *testing.T) {
	for _, tc := range []struct{ in, reason string }{
		{"Servers", `"=" is expected`},
		{"ou", `"=" is expected`},
		{"=x", "an attribute type"},
		{"ou=a,", "an attribute type"},
		{",ou=a", "an attribute type"},
		{"ou=a,,dc=x", "an attribute type"},
		{"ou=a+", "an attribute type"},
		{"ou=a, dc=x", "space before an attribute type"},
		{"ou= a", "space at the start"},
		{"ou=a ,dc=x", "space at the end"},
		{"ou=a;dc=x", "has to be escaped"},
		{`ou="a,b"`, "has to be escaped"},
		{"ou=a<b", "has to be escaped"},
		{"ou=a\x00", "has to be escaped"},
		{`ou=a\`, "not an escape"},
		{`ou=a\x`, "not an escape"},
		{`ou=a\4`, "not an escape"},
		{`ou=\ff`, "not UTF-8"},
		{"ou=\xff", "not UTF-8"},
		{"ou=#", "whole octets"},
		{"ou=#123", "whole octets"},
		{"ou=#zz", "hex digits"},
		{"01.2=a", "an attribute type"},
		{"1=a", "an attribute type"},
		{"1..2=a", "an attribute type"},
		{"-a=b", "an attribute type"},
		{"ou_x=b", `"=" is expected`},
		{"ou=" + strings.Repeat("x", MaxDNLength), "longer than"},
		{"ou=" + strings.Repeat("\x01", 4000), "longer than"},
	} {
		dn, err := ParseDN(tc.in)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || !errors.Is(err, ErrSyntax) || !strings.Contains(syntax.Reason, tc.reason) {
			t.Errorf("ParseDN(%.40q) = %.40q, %v; want an error with %q", tc.in, dn, err, tc.reason)
		}
		if !dn.IsZero() {
			t.Errorf("ParseDN(%.40q) returned %.40q beside its error", tc.in, dn)
		}
	}
}

func TestDNEquality(t *testing.T) {
	for _, tc := range []struct {
		a, b  string
		equal bool
	}{
		{"OU=Servers,DC=Bank", "ou=servers,dc=bank", true},
		{"CN=a+OU=b,DC=x", "ou=B+cn=A,dc=x", true},
		{"cn=a  b", "CN=A B", true},
		{`cn=\ a\ `, "cn=a", true},
		{"2.5.4.3=a", "commonName=A", true},
		{"cn=\u212A", "cn=k", true}, // KELVIN SIGN
		{"cn=STRASSE", "cn=straße", false},
		{"cn=a", "cn=b", false},
		{"cn=a,dc=x", "cn=a", false},
		{`cn=a\,dc=x`, "cn=a,dc=x", false},
		{`cn=\ `, "cn=", false},
		{"cn=#6161", `cn=\#6161`, false},
	} {
		a, b := MustParseDN(tc.a), MustParseDN(tc.b)
		if a.Equal(b) != tc.equal || (a.Key() == b.Key()) != tc.equal {
			t.Errorf("%q equal to %q: %v, want %v", a, b, a.Equal(b), tc.equal)
		}
	}
}

func TestIsDescendantOf(t *testing.T) {
	for _, tc := range []struct {
		d, o string
		want bool
	}{
		{"ou=a,dc=x", "dc=x", true},
		{"cn=m,ou=a,dc=x", "DC=X", true},
		{"dc=x", "dc=x", false},
		{"dc=x", "ou=a,dc=x", false},
		{"dc=xx", "dc=x", false},
		{`ou=a\,dc=x`, "dc=x", false},
		{`ou=a\\,dc=x`, "dc=x", true},
		{`ou=a\\\,dc=x`, "dc=x", false},
		{"dc=x", "", true},
		{"", "", false},
	} {
		if got := MustParseDN(tc.d).IsDescendantOf(MustParseDN(tc.o)); got != tc.want {
			t.Errorf("%q below %q: %v, want %v", tc.d, tc.o, got, tc.want)
		}
	}
}

func TestChild(t *testing.T) {
	base := MustParseDN("dc=bank,dc=example")
	dn, err := base.Child("OU", "Front, Office #1 ")
	if err != nil || dn.String() != `OU=Front\, Office #1\ ,dc=bank,dc=example` || dn.Depth() != 3 {
		t.Errorf("Child = %q (depth %d), %v", dn, dn.Depth(), err)
	}
	for _, bad := range [][2]string{{"", "x"}, {"o u", "x"}, {"ou", "\xff"}, {"ou", strings.Repeat("x", MaxDNLength)}} {
		if dn, err := base.Child(bad[0], bad[1]); !errors.Is(err, ErrSyntax) {
			t.Errorf("Child(%.20q, %.20q) = %.40q, %v; want a syntax error", bad[0], bad[1], dn, err)
		}
	}
}

// TestDNRoundTrip: any names at all, put together and read back, are equal and keep their values.
func TestDNRoundTrip(t *testing.T) {
	types := rapid.SampledFrom([]string{"OU", "cn", "DC", "x-custom", "1.2.840.113556.1.4.1", "uid"})
	value := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ #,+"\\<>;=a-c]{0,8}`))
	rapid.Check(t, func(t *rapid.T) {
		var dn DN
		depth := rapid.IntRange(1, 6).Draw(t, "depth")
		var values []string
		for range depth {
			v := value.Draw(t, "value")
			var err error
			if dn, err = dn.Child(types.Draw(t, "type"), v); err != nil {
				t.Fatalf("Child: %v", err)
			}
			values = append(values, v)
		}
		back, err := ParseDN(dn.String())
		if err != nil || back.text != dn.text || back.key != dn.key {
			t.Fatalf("ParseDN(%q) = %q (%q), %v; want key %q", dn, back, back.key, err, dn.key)
		}
		if back.Depth() != depth {
			t.Fatalf("%q has depth %d, want %d", back, back.Depth(), depth)
		}
		upper, err := ParseDN(strings.ReplaceAll(strings.ReplaceAll(dn.String(), "OU=", "ou="), "cn=", "CN="))
		if err == nil && !upper.Equal(dn) && !strings.Contains(dn.key, `\`) {
			t.Fatalf("%q and %q differ", upper, dn)
		}
		for at, i := back, depth-1; i >= 0; at, i = at.Parent(), i-1 {
			if at.Name() != values[i] {
				t.Fatalf("level %d of %q has value %q, want %q", i, dn, at.Name(), values[i])
			}
		}
	})
}

func FuzzParseDN(f *testing.F) {
	for _, seed := range []string{
		"cn=sql1,OU=SecureServers,dc=bank,dc=example", `CN=James \"Jim\" Smith\, III,DC=example,DC=net`,
		"1.3.6.1.4.1.1466.0=#04024869,DC=example,DC=com", `CN=Lu\C4\8Di\C4\87`, "OU=Sales+CN=J.  Smith,DC=example,DC=net",
		`CN=WS1\0ACNF:6ba7b810-9dad-11d1-80b4-00c04fd430c8,CN=Computers,DC=lab,DC=example`, "cn=\u212A,dc=x", `cn=\ \ ,dc=x`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		dn, err := ParseDN(in)
		if err != nil {
			if !errors.Is(err, ErrSyntax) {
				t.Fatalf("%v is no syntax error", err)
			}
			return
		}
		back, err := ParseDN(dn.String())
		if err != nil || back != dn {
			t.Fatalf("%q reads back as %q, %v", dn, back, err)
		}
		levels := 0
		for at := dn; !at.IsZero(); at = at.Parent() {
			levels++
			if at.RDN() == nil || !at.IsDescendantOf(at.Parent()) {
				t.Fatalf("level %q of %q", at, dn)
			}
		}
		if levels != dn.Depth() {
			t.Fatalf("%q: %d levels, depth %d", dn, levels, dn.Depth())
		}
		dn.Domain()
	})
}
