package directory

import (
	"encoding/hex"
	"slices"
	"strings"
)

// A Preset is a Schema by the name that a configuration gives it.
type Preset struct {
	Name string
	// About is a sentence for people.
	About  string
	Schema func() Schema
}

// Presets are the schemas that are known, the default first.
func Presets() []Preset {
	return []Preset{
		{"openldap", "OpenLDAP and any server with standard classes and entryUUID", OpenLDAP},
		{"389ds", "389 Directory Server: standard classes, identity by nsUniqueId", DirectoryServer389},
		{"freeipa", "FreeIPA: hosts and host groups, identity by nsUniqueId", FreeIPA},
		{"active-directory", "Active Directory: computer accounts, identity by objectGUID", ActiveDirectory},
		{"samba", "Samba as a domain controller, which is as Active Directory", ActiveDirectory},
	}
}

// PresetNames lists the names of Presets for a sentence.
func PresetNames() string {
	var names []string
	for _, p := range Presets() {
		names = append(names, p.Name)
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// PresetNamed returns the schema of a preset; "" is the first.
func PresetNamed(name string) (Schema, bool) {
	all := Presets()
	if name == "" {
		return all[0].Schema(), true
	}
	i := slices.IndexFunc(all, func(p Preset) bool { return p.Name == name })
	if i < 0 {
		return Schema{}, false
	}
	return all[i].Schema(), true
}

// DirectoryServer389 is the schema of 389 Directory Server, whose entries have had a nsUniqueId always and an entryUUID
// only where a plugin gives them one.
func DirectoryServer389() Schema {
	s := OpenLDAP()
	s.Identity = NSUniqueID
	return s
}

// FreeIPA is the schema of FreeIPA: a host's cn is its DNS name, and the short one stands in serverHostName.
func FreeIPA() Schema {
	return Schema{
		Identity:         NSUniqueID,
		MachineClasses:   []string{"ipaHost"},
		GroupClasses:     []string{"ipaHostGroup", "groupOfNames", "nestedGroup"},
		ContainerClasses: []string{"domain", "nsContainer", "organizationalUnit", "organization"},
		MachineName:      []string{"serverHostName", "fqdn", "cn"},
		MachineDNSName:   []string{"fqdn"},
		GroupName:        []string{"cn"},
		GroupMember:      []string{"member"},
		LockFlags:        []string{"nsAccountLock"},
	}
}

// IdentityAttribute is the attribute that holds an entry's UUID.
func (s Schema) IdentityAttribute() string {
	switch s.Identity {
	case ObjectGUID:
		return "objectGUID"
	case NSUniqueID:
		return "nsUniqueId"
	case EntryUUID:
	}
	return "entryUUID"
}

// UUIDFromNSUniqueID reads the four groups of eight hex digits of 389 Directory Server's nsUniqueId.
func UUIDFromNSUniqueID(text string) (UUID, error) {
	wrong := func(reason string) (UUID, error) {
		return UUID{}, &SyntaxError{What: "nsUniqueId", Input: shorten(text), Reason: reason}
	}
	groups := strings.Split(text, "-")
	if len(groups) != 4 || slices.ContainsFunc(groups, func(g string) bool { return len(g) != 8 }) {
		return wrong("four groups of eight hex digits are expected, as in 3afa9301-1dd211b2-8014f7b6-dbf79d1f")
	}
	b, err := hex.DecodeString(strings.Join(groups, ""))
	if err != nil {
		return wrong("hex digits are expected")
	}
	u := UUID(b)
	if u.IsZero() {
		return wrong("the nil identifier identifies nothing")
	}
	return u, nil
}

// anyClass returns the filter (RFC 4515) of entries with one of the classes.
func anyClass(classes []string) string {
	var b strings.Builder
	for _, class := range classes {
		b.WriteString("(objectClass=" + class + ")")
	}
	return b.String()
}

// GroupsFilter returns the LDAP filter (RFC 4515) of every entry that Map takes for a group and GroupFilter does not leave
// aside.
func (s Schema) GroupsFilter() string {
	return "(&(|" + anyClass(s.GroupClasses) + ")(!(|" + anyClass(s.MachineClasses) + "))" + s.GroupFilter + ")"
}

// Filter returns the LDAP filter (RFC 4515) of every entry that Map would not leave aside for its class, or that one of
// the schema's own filters leaves aside.
func (s Schema) Filter() string {
	machines, groups, containers := anyClass(s.MachineClasses), anyClass(s.GroupClasses), anyClass(s.ContainerClasses)
	if s.MachineFilter == "" && s.GroupFilter == "" {
		return "(|" + containers + machines + groups + ")"
	}
	// An entry that its filter leaves aside must not come back as one of another kind: Map looks for machines first, then
	// for groups.
	return "(|(&(|" + machines + ")" + s.MachineFilter + ")" +
		s.GroupsFilter() +
		"(&(|" + containers + ")(!(|" + machines + groups + "))))"
}
