package directory

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	uuidText = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
	guid     = "\x10\xb8\xa7\x6b\xad\x9d\xd1\x11\x80\xb4\x00\xc0\x4f\xd4\x30\xc8"
)

func made(dn string, pairs ...string) Entry {
	e := Entry{DN: dn}
	for i := 0; i < len(pairs); i += 2 {
		e.Attributes = append(e.Attributes, Attribute{Name: pairs[i], Values: strings.Split(pairs[i+1], "|")})
	}
	return e
}

func TestMap(t *testing.T) {
	const at = "cn=ws1,OU=Workstations,dc=bank,dc=example"
	u, err := ParseUUID(uuidText)
	if err != nil {
		t.Fatal(err)
	}
	machine := func(edit ...func(*Machine)) Machine {
		m := Machine{UUID: u, DN: MustParseDN(at), Name: "ws1"}
		for _, e := range edit {
			e(&m)
		}
		return m
	}
	disabled := func(m *Machine) { m.Disabled = true }
	ad, ldap := ActiveDirectory(), OpenLDAP()
	for name, tc := range map[string]struct {
		schema   Schema
		entry    Entry
		want     Object
		problems int
	}{
		"a machine": {ldap, made(at, "objectClass", "top|device|Computer", "CN", "ws1", "entryUUID", uuidText, "dnshostname", "WS1.Bank.Example.",
			"ipHostNumber", "2001:DB8::1|192.0.2.1|::ffff:192.0.2.2", "userAccountControl", "4096"),
			machine(func(m *Machine) {
				m.DNSName = "ws1.bank.example"
				m.Addresses = []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
			}), 0},
		"disabled":            {ldap, made(at, "objectClass", "device", "cn", "ws1", "entryUUID", uuidText, "userAccountControl", "4098"), machine(disabled), 0},
		"locked, 389-ds":      {ldap, made(at, "objectClass", "device", "cn", "ws1", "entryUUID", uuidText, "nsAccountLock", "TRUE"), machine(disabled), 0},
		"not locked, 389-ds":  {ldap, made(at, "objectClass", "device", "cn", "ws1", "entryUUID", uuidText, "nsAccountLock", "false"), machine(), 0},
		"unreadable control":  {ldap, made(at, "objectClass", "device", "cn", "ws1", "entryUUID", uuidText, "userAccountControl", "on"), machine(disabled), 1},
		"bad DNS name":        {ldap, made(at, "objectClass", "device", "cn", "ws1", "entryUUID", uuidText, "dNSHostName", "a b"), machine(), 1},
		"bad address":         {ldap, made(at, "objectClass", "device", "cn", "ws1", "entryUUID", uuidText, "ipHostNumber", "192.0.2.256|fe80::1%eth0"), machine(), 2},
		"no name":             {ldap, made(at, "objectClass", "device", "entryUUID", uuidText), nil, 1},
		"name of two words":   {ldap, made(at, "objectClass", "device", "cn", "Laser printer", "entryUUID", uuidText), nil, 1},
		"a person":            {ldap, made("uid=jim,dc=bank,dc=example", "objectClass", "inetOrgPerson", "entryUUID", uuidText), nil, 0},
		"no class":            {ldap, made(at), nil, 0},
		"an OU":               {ldap, made("OU=a,dc=x", "objectClass", "organizationalUnit", "entryUUID", uuidText), Container{u, MustParseDN("OU=a,dc=x"), OrganizationalUnit}, 0},
		"a domain":            {ldap, made("dc=x", "objectClass", "dcObject|organization", "entryUUID", uuidText), Container{u, MustParseDN("dc=x"), Domain}, 0},
		"an organization":     {ldap, made("o=x", "objectClass", "organization", "entryUUID", uuidText), Container{u, MustParseDN("o=x"), Plain}, 0},
		"a group":             {ldap, made("cn=g,dc=x", "objectClass", "groupOfNames", "cn", "g", "entryUUID", uuidText, "member", "cn=a,dc=x||no DN"), Group{UUID: u, DN: MustParseDN("cn=g,dc=x"), Name: "g", Members: []DN{MustParseDN("cn=a,dc=x")}}, 1},
		"an AD computer":      {ad, made(at, "objectClass", "top|person|user|computer", "cn", "WS 1", "sAMAccountName", "ws1$", "objectGUID", guid, "userAccountControl", "4130", "primaryGroupID", "515"), machine(disabled, func(m *Machine) { m.PrimaryGroup = 515 }), 0},
		"an AD service":       {ad, made(at, "objectClass", "top|user|computer|msDS-GroupManagedServiceAccount", "sAMAccountName", "svc$", "objectGUID", guid), nil, 0},
		"an AD group":         {ad, made("CN=Domain Computers,DC=x", "objectClass", "group", "cn", "Domain Computers", "objectGUID", guid, "objectSid", "\x01\x05\x00\x00\x00\x00\x00\x05\x15\x00\x00\x00aaaabbbbcccc\x03\x02\x00\x00"), Group{UUID: u, DN: MustParseDN("CN=Domain Computers,DC=x"), Name: "Domain Computers", RID: 515}, 0},
		"an AD builtin group": {ad, made("CN=Users,CN=Builtin,DC=x", "objectClass", "group", "cn", "Users", "objectGUID", guid, "objectSid", "\x01\x02\x00\x00\x00\x00\x00\x05\x20\x00\x00\x00\x21\x02\x00\x00"), Group{UUID: u, DN: MustParseDN("CN=Users,CN=Builtin,DC=x"), Name: "Users"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, problems, err := tc.schema.Map(tc.entry)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, cmp.Comparer(func(a, b DN) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("object (-want +got):\n%s", diff)
			}
			if len(problems) != tc.problems {
				t.Errorf("problems %v, want %d", problems, tc.problems)
			}
			for _, p := range problems {
				if p.DN != tc.entry.DN || !strings.Contains(p.String(), "left out: ") {
					t.Errorf("problem %q does not name its entry", p)
				}
			}
		})
	}
}

func TestMapRefusesTheRead(t *testing.T) {
	for name, tc := range map[string]struct {
		schema Schema
		entry  Entry
		kind   error
	}{
		"bad DN":        {OpenLDAP(), made("nonsense", "objectClass", "device", "cn", "a", "entryUUID", uuidText), ErrSyntax},
		"no UUID":       {OpenLDAP(), made("cn=a,dc=x", "objectClass", "device", "cn", "a"), ErrInconsistent},
		"two UUIDs":     {OpenLDAP(), made("cn=a,dc=x", "objectClass", "device", "cn", "a", "entryUUID", uuidText+"|"+uuidText), ErrInconsistent},
		"bad UUID":      {OpenLDAP(), made("cn=a,dc=x", "objectClass", "device", "cn", "a", "entryUUID", "a"), ErrSyntax},
		"bad GUID":      {ActiveDirectory(), made("cn=a,dc=x", "objectClass", "computer", "cn", "a", "objectGUID", uuidText), ErrSyntax},
		"OU, no UUID":   {OpenLDAP(), made("ou=a,dc=x", "objectClass", "organizationalUnit"), ErrInconsistent},
		"group, no one": {OpenLDAP(), made("cn=a,dc=x", "objectClass", "groupOfNames"), ErrInconsistent},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := tc.schema.Map(tc.entry)
			if got != nil || !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.entry.DN) {
				t.Errorf("Map = %v, %v; want %v naming the entry", got, err, tc.kind)
			}
		})
	}
}

func TestDerivedIdentitySurvivesAMove(t *testing.T) {
	s := OpenLDAP()
	s.DeriveIdentity = true
	identity := func(e Entry) UUID {
		t.Helper()
		o, _, err := s.Map(e)
		if err != nil {
			t.Fatal(err)
		}
		u, _ := o.Identity()
		return u
	}
	a := identity(made("cn=ws1,OU=A,dc=bank,dc=example", "objectClass", "device", "cn", "ws1"))
	if b := identity(made("CN=WS1,OU=B,DC=BANK,dc=example", "objectClass", "device", "cn", "WS1")); a != b {
		t.Error("the moved machine has another identity")
	}
	if b := identity(made("cn=ws1,OU=A,dc=bank,dc=org", "objectClass", "device", "cn", "ws1")); a == b {
		t.Error("machines of two domains have one identity")
	}
	if b := identity(made("cn=ws1,OU=A,dc=bank,dc=example", "objectClass", "device", "cn", "ws1", "entryUUID", uuidText)); b.String() != uuidText {
		t.Error("an entryUUID is not honoured")
	}
}

func TestSchemaAsksForWhatItMaps(t *testing.T) {
	for _, want := range []string{"objectClass", "entryUUID", "cn", "dNSHostName", "ipHostNumber", "member", "userAccountControl"} {
		if n := slices.Index(OpenLDAP().Attributes(), want); n < 0 {
			t.Errorf("%s is not asked for", want)
		}
	}
	attributes := ActiveDirectory().Attributes()
	for _, want := range []string{"objectGUID", "sAMAccountName", "primaryGroupID", "objectSid", "cn"} {
		if n := slices.Index(attributes, want); n < 0 {
			t.Errorf("%s is not asked for", want)
		}
	}
	slices.Sort(attributes)
	if len(slices.Compact(attributes)) != len(ActiveDirectory().Attributes()) {
		t.Error("an attribute is asked for twice")
	}
	if f := ActiveDirectory().Filter(); !strings.HasPrefix(f, "(|(objectClass=domainDNS)") || strings.Contains(f, "GroupManaged") {
		t.Errorf("filter %s", f)
	}
}
