package ldap

import (
	"errors"
	"testing"

	"github.com/bailiwick-net/bailiwick/directory"
)

// FuzzChange reads any entry as a domain controller may tell of it: a change of an identity, or an error of ours.
func FuzzChange(f *testing.F) {
	guid := string([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	sid := string([]byte{1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 3, 2, 0, 0})
	f.Add("CN=sql,DC=x", guid, "computer", "sql$", "", "4096", sid, "515")
	f.Add("CN=Group\\0ADEL:0,CN=Deleted Objects,DC=x", guid, "group", "g", "TRUE", "", sid, "")
	f.Add("OU=A,DC=y", guid, "organizationalUnit", "", "", "", "", "")
	f.Add("", "", "", "", "", "", "", "")
	schema := directory.ActiveDirectory()
	r := &replica{session: &session{target: target{Config: Config{Base: directory.MustParseDN("DC=x"), Schema: &schema, Bind: Anonymous{}}}}}
	f.Fuzz(func(t *testing.T, dn, guid, class, name, deleted, control, sid, primary string) {
		e := directory.Entry{DN: dn, Attributes: []directory.Attribute{
			{Name: "objectGUID", Values: []string{guid}}, {Name: "objectClass", Values: []string{"top", class}}, {Name: "sAMAccountName", Values: []string{name}},
			{Name: "isDeleted", Values: []string{deleted}}, {Name: "userAccountControl", Values: []string{control}},
			{Name: "objectSid", Values: []string{sid}}, {Name: "primaryGroupID", Values: []string{primary}},
		}}
		c, err := r.change(e)
		var known *Error
		switch {
		case err != nil && !errors.As(err, &known):
			t.Errorf("error %v is none of a read", err)
		case err == nil && c.UUID.IsZero():
			t.Error("a change of nothing")
		case err == nil && !c.Gone && c.Item.DN.IsZero():
			t.Error("an entry without a name")
		}
	})
}
