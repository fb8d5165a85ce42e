package directory

import (
	"slices"
	"testing"
)

// FuzzMap reads any values of an entry, as either schema. What becomes an object has an identity and a name that a
// directory can be built with.
func FuzzMap(f *testing.F) {
	const at = "cn=ws1,OU=Workstations,dc=bank,dc=example"
	f.Add(at, "device", uuidText, "ws1", "WS1.Bank.Example.", "192.0.2.1", "4096", "cn=x,dc=bank,dc=example", "515", "S")
	f.Add(at, "computer", guid, "WS1$", "a b", "fe80::1%eth0", "4098", "", "x",
		"\x01\x05\x00\x00\x00\x00\x00\x05\x15\x00\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x03\x02\x00\x00")
	f.Add("OU=Servers,dc=bank,dc=example", "organizationalUnit", uuidText, "Servers", "", "", "", "", "", "")
	f.Add("cn=g,dc=bank,dc=example", "group", guid, "g", "", "", "", "cn=a,dc=bank,dc=example", "", "\x01")
	f.Fuzz(func(t *testing.T, dn, class, identity, name, dns, address, control, member, primary, sid string) {
		e := made(dn)
		for _, a := range []Attribute{
			{"objectClass", []string{"top", class}}, {"entryUUID", []string{identity}}, {"objectGUID", []string{identity}},
			{"cn", []string{name}}, {"sAMAccountName", []string{name}}, {"dNSHostName", []string{dns}}, {"ipHostNumber", []string{address}},
			{"userAccountControl", []string{control}}, {"member", []string{member}}, {"primaryGroupID", []string{primary}}, {"objectSid", []string{sid}},
		} {
			if !slices.Equal(a.Values, []string{""}) {
				e.Attributes = append(e.Attributes, a)
			}
		}
		for _, s := range []Schema{OpenLDAP(), ActiveDirectory()} {
			object, _, err := s.Map(e)
			if err != nil || object == nil {
				continue
			}
			id, read := object.Identity()
			if id.IsZero() {
				t.Fatalf("%+v has no identity", object)
			}
			if again, err := ParseUUID(id.String()); err != nil || again != id {
				t.Fatalf("identity %s is read as %s, %v", id, again, err)
			}
			if m, ok := object.(Machine); ok && (!validHostName(m.Name) || m.DNSName != "" && !validHostName(m.DNSName)) {
				t.Fatalf("%+v has a name that no host has", m)
			}
			b := NewBuilder(DN{})
			b.Add(object)
			if _, err := b.Build(); err != nil && KindOf(read) == Domain {
				t.Logf("%+v: %v", object, err)
			}
		}
	})
}
