package directory

import (
	"errors"
	"strings"
	"testing"
)

func TestPresets(t *testing.T) {
	for _, p := range Presets() {
		s, ok := PresetNamed(p.Name)
		if !ok || len(s.MachineClasses) == 0 || len(s.ContainerClasses) == 0 || len(s.GroupClasses) == 0 || s.DeriveIdentity {
			t.Errorf("preset %s is %+v", p.Name, s)
		}
		if !strings.Contains(PresetNames(), p.Name) {
			t.Errorf("%q does not name %s", PresetNames(), p.Name)
		}
	}
	if _, ok := PresetNamed("novell"); ok {
		t.Error("there is a preset that nobody made")
	}
	if s, ok := PresetNamed(""); !ok || s.Identity != EntryUUID {
		t.Error("the default is not the schema of OpenLDAP")
	}
}

func TestHostOfFreeIPA(t *testing.T) {
	s := FreeIPA()
	entry := Entry{DN: "fqdn=sql1.bank.example,cn=computers,cn=accounts,dc=bank,dc=example", Attributes: []Attribute{
		{Name: "objectClass", Values: []string{"top", "ipaObject", "ipaHost", "nsHost"}}, {Name: "cn", Values: []string{"sql1.bank.example"}},
		{Name: "serverHostName", Values: []string{"sql1"}}, {Name: "fqdn", Values: []string{"sql1.bank.example"}},
		{Name: "nsuniqueid", Values: []string{"3afa9301-1dd211b2-8014f7b6-dbf79d1f"}}, {Name: "nsAccountLock", Values: []string{"TRUE"}},
	}}
	o, problems, err := s.Map(entry)
	m, ok := o.(Machine)
	if err != nil || len(problems) > 0 || !ok || m.Name != "sql1" || m.DNSName != "sql1.bank.example" || !m.Disabled ||
		m.UUID.String() != "3afa9301-1dd2-11b2-8014-f7b6dbf79d1f" {
		t.Errorf("mapped as %+v, problems %v, error %v", o, problems, err)
	}
	entry.Attributes[4].Values = nil
	if _, _, err := s.Map(entry); !errors.Is(err, ErrInconsistent) {
		t.Errorf("without nsUniqueId: %v, wanted ErrInconsistent", err)
	}
}

func TestNSUniqueIDRefuses(t *testing.T) {
	for _, bad := range []string{
		"", "3afa9301", "3afa9301-1dd211b2-8014f7b6", "3afa9301-1dd211b2-8014f7b6-dbf79d1", "3afa9301-1dd211b2-8014f7b6-dbf79d1g",
		"00000000-00000000-00000000-00000000", "3afa9301-1dd211b2-8014f7b6-dbf79d1f-",
	} {
		if _, err := UUIDFromNSUniqueID(bad); !errors.Is(err, ErrSyntax) {
			t.Errorf("%q gave %v, wanted ErrSyntax", bad, err)
		}
	}
}

func FuzzNSUniqueID(f *testing.F) {
	f.Add("3afa9301-1dd211b2-8014f7b6-dbf79d1f")
	f.Add("---")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := UUIDFromNSUniqueID(text)
		if err == nil && strings.ReplaceAll(u.String(), "-", "") != strings.ToLower(strings.ReplaceAll(text, "-", "")) {
			t.Errorf("%q is %s", text, u)
		}
	})
}

func TestFilterOfFilters(t *testing.T) {
	s := Schema{MachineClasses: []string{"device"}, GroupClasses: []string{"group"}, ContainerClasses: []string{"ou"}}
	if got, want := s.Filter(), "(|(objectClass=ou)(objectClass=device)(objectClass=group))"; got != want {
		t.Errorf("without filters %s, wanted %s", got, want)
	}
	s.MachineFilter = "(cn=a*)"
	want := "(|(&(|(objectClass=device))(cn=a*))(&(|(objectClass=group))(!(|(objectClass=device))))(&(|(objectClass=ou))(!(|(objectClass=device)(objectClass=group)))))"
	if got := s.Filter(); got != want {
		t.Errorf("with a filter %s, wanted %s", got, want)
	}
}
