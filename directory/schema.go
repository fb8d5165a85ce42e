package directory

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/bailiwick-net/bailiwick/directory/descriptor"
)

// An Attribute is one attribute of an entry as a directory holds it. Values are octet strings.
type Attribute struct {
	Name   string // attribute description without options, in any case
	Values []string
}

// An Entry is an entry as it was read, before it means anything.
type Entry struct {
	DN         string
	Attributes []Attribute
}

// Values returns the values of the named attribute.
func (e Entry) Values(name string) []string {
	for i := range e.Attributes {
		if strings.EqualFold(e.Attributes[i].Name, name) {
			return e.Attributes[i].Values
		}
	}
	return nil
}

func (e Entry) first(names []string) (value string, attribute string) {
	for _, n := range names {
		for _, v := range e.Values(n) {
			if v != "" {
				return v, n
			}
		}
	}
	return "", ""
}

// IdentityForm says where an entry's UUID stands.
type IdentityForm uint8

// The forms of identity.
const (
	// EntryUUID is the text of RFC 4530.
	EntryUUID IdentityForm = iota + 1
	// ObjectGUID is Active Directory's sixteen octets.
	ObjectGUID
	// NSUniqueID is the text of 389 Directory Server: four groups of eight hex digits.
	NSUniqueID
)

// A Schema says which entries of a foreign directory are machines, containers and groups, and which attributes say what
// about them. Names are compared without regard to case; in a list of attributes the first that has a value wins.
// Presets has those that are known; a caller may extend a copy.
type Schema struct {
	Identity IdentityForm
	// DeriveIdentity gives entries without UUID one made of what stays when they move: a machine's or a group's domain
	// and name (which are then unique), a container's DN. For files written by hand; never for a server, where a
	// missing UUID means that the reader may not see it.
	DeriveIdentity bool

	// An entry is a machine when it has one of MachineClasses and none of ExcludedClasses; else a group by
	// GroupClasses; else a container by ContainerClasses; else it is none of ours.
	MachineClasses   []string
	ExcludedClasses  []string
	GroupClasses     []string
	ContainerClasses []string
	// MachineFilter and GroupFilter, each "" or a filter (RFC 4515), narrow the machines and groups that a server is asked
	// for. Map does not evaluate them.
	MachineFilter, GroupFilter string

	MachineName    []string // short host name; a trailing "$" (sAMAccountName) is cut off
	MachineDNSName []string
	MachineAddress []string
	GroupName      []string
	GroupMember    []string // values are DNs; all of these attributes count
	// AccountControl is a userAccountControl bit field, LockFlags are booleans: bit 0x2, or TRUE, is disabled.
	AccountControl []string
	LockFlags      []string
	// PrimaryGroup holds a machine's relative group identifier and SID a group's security identifier; "" for none.
	PrimaryGroup string
	SID          string
}

// OpenLDAP is the schema of OpenLDAP and LDIF files: standard classes, identity by entryUUID.
func OpenLDAP() Schema {
	return Schema{
		Identity:         EntryUUID,
		MachineClasses:   []string{"computer", "device", "ipHost"},
		GroupClasses:     []string{"groupOfNames", "groupOfUniqueNames", "groupOfMembers", "group"},
		ContainerClasses: []string{"domain", "dcObject", "organizationalUnit", "organization", "country", "locality", "container", "nsContainer"},
		MachineName:      []string{"cn", "name"},
		MachineDNSName:   []string{"dNSHostName"},
		MachineAddress:   []string{"ipHostNumber"},
		GroupName:        []string{"cn"},
		GroupMember:      []string{"member", "uniqueMember"},
		AccountControl:   []string{"userAccountControl"},
		LockFlags:        []string{"nsAccountLock"},
	}
}

// ActiveDirectory is the schema of Active Directory and Samba: computer accounts, identity by objectGUID.
func ActiveDirectory() Schema {
	return Schema{
		Identity:       ObjectGUID,
		MachineClasses: []string{"computer"},
		// Managed service accounts derive from computer and are no machines.
		ExcludedClasses:  []string{"msDS-ManagedServiceAccount", "msDS-GroupManagedServiceAccount", "msDS-DelegatedManagedServiceAccount"},
		GroupClasses:     []string{"group"},
		ContainerClasses: []string{"domainDNS", "organizationalUnit", "container", "builtinDomain", "lostAndFound"},
		MachineName:      []string{"sAMAccountName", "cn"},
		MachineDNSName:   []string{"dNSHostName"},
		GroupName:        []string{"cn"},
		GroupMember:      []string{"member"},
		AccountControl:   []string{"userAccountControl"},
		PrimaryGroup:     "primaryGroupID",
		SID:              "objectSid",
	}
}

// Attributes returns the attributes that a reader has to ask for, without duplicates.
func (s Schema) Attributes() []string {
	names := []string{"objectClass", s.IdentityAttribute()}
	for _, list := range [][]string{s.MachineName, s.MachineDNSName, s.MachineAddress, s.GroupName, s.GroupMember, s.AccountControl, s.LockFlags, {s.PrimaryGroup, s.SID}} {
		for _, n := range list {
			if n != "" && !slices.ContainsFunc(names, func(have string) bool { return strings.EqualFold(have, n) }) {
				names = append(names, n)
			}
		}
	}
	return names
}

// Map turns an entry into what it means, which shares no memory with it; nil when it is none of ours. Problems tell what of it cannot be used: an
// attribute, or the entry as a whole, which is then nil too. The error means that the reading itself cannot be trusted
// (a name that does not parse, an identity that cannot be seen), and with it the whole read.
func (s Schema) Map(e Entry) (Object, []Problem, error) {
	classes := e.Values("objectClass")
	has := func(names []string) bool {
		return slices.ContainsFunc(classes, func(c string) bool {
			return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(c, n) })
		})
	}
	machine := has(s.MachineClasses)
	if machine && has(s.ExcludedClasses) {
		return nil, nil, nil
	}
	group := !machine && has(s.GroupClasses)
	if !machine && !group && !has(s.ContainerClasses) {
		return nil, nil, nil
	}
	dn, err := ParseDN(e.DN)
	if err != nil {
		return nil, nil, fmt.Errorf("read entry: %w", err)
	}
	switch {
	case machine:
		return s.machine(e, dn)
	case group:
		return s.group(e, dn)
	}
	u, err := s.identity(e, "container", dn, dn.key)
	if err != nil {
		return nil, nil, err
	}
	return Container{UUID: u, DN: dn, Kind: KindOf(dn)}, nil, nil
}

func (s Schema) machine(e Entry, dn DN) (Object, []Problem, error) {
	var problems []Problem
	problem := func(attribute, reason string, args ...any) {
		problems = append(problems, Problem{DN: strings.Clone(e.DN), Attribute: attribute, Reason: fmt.Sprintf(reason, args...)})
	}
	name, attribute := e.first(s.MachineName)
	name = strings.TrimSuffix(name, "$")
	if !validHostName(name) {
		if name == "" {
			problem("", "a machine needs a name in %s", strings.Join(s.MachineName, " or "))
		} else {
			problem("", "%s %q cannot be a host name", attribute, shorten(name))
		}
		return nil, problems, nil
	}
	u, err := s.identity(e, "machine", dn, name)
	if err != nil {
		return nil, nil, err
	}
	m := Machine{UUID: u, DN: dn, Name: dn.part(name)}
	if dns, attribute := e.first(s.MachineDNSName); dns != "" {
		if validHostName(strings.TrimSuffix(dns, ".")) {
			m.DNSName = strings.Clone(strings.TrimSuffix(fold(dns), "."))
		} else {
			problem(attribute, "%q is not a DNS name", shorten(dns))
		}
	}
	for _, n := range s.MachineAddress {
		for _, v := range e.Values(n) {
			addr, err := netip.ParseAddr(v)
			if err != nil || addr.Zone() != "" {
				problem(n, "%q is not an IP address", shorten(v))
				continue
			}
			m.Addresses = append(m.Addresses, addr.Unmap())
		}
	}
	for _, n := range s.AccountControl {
		for _, v := range e.Values(n) {
			flags, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				// Unreadable is not enabled: an account whose state cannot be told is refused until it can.
				problem(n, "%q is not a number; the machine counts as disabled", shorten(v))
				m.Disabled = true
			}
			m.Disabled = m.Disabled || flags&2 != 0 // ADS_UF_ACCOUNTDISABLE, MS-ADTS 2.2.16
		}
	}
	for _, n := range s.LockFlags {
		for _, v := range e.Values(n) {
			m.Disabled = m.Disabled || !strings.EqualFold(v, "false")
		}
	}
	if v := e.Values(s.PrimaryGroup); s.PrimaryGroup != "" && len(v) > 0 {
		rid, err := strconv.ParseUint(v[0], 10, 32)
		if err != nil {
			problem(s.PrimaryGroup, "%q is not a relative identifier", shorten(v[0]))
		}
		m.PrimaryGroup = uint32(rid)
	}
	return m, problems, nil
}

func (s Schema) group(e Entry, dn DN) (Object, []Problem, error) {
	name, _ := e.first(s.GroupName)
	if name == "" {
		name = dn.Name()
	}
	u, err := s.identity(e, "group", dn, name)
	if err != nil {
		return nil, nil, err
	}
	g := Group{UUID: u, DN: dn, Name: dn.part(name)}
	var problems []Problem
	for _, n := range s.GroupMember {
		for _, v := range e.Values(n) {
			if v == "" {
				continue // groupOfNames must have a member: an empty DN is how an empty group is written
			}
			member, err := ParseDN(v)
			if err != nil {
				problems = append(problems, Problem{DN: strings.Clone(e.DN), Attribute: n, Reason: err.Error()})
				continue
			}
			g.Members = append(g.Members, member)
		}
	}
	if v := e.Values(s.SID); s.SID != "" && len(v) > 0 {
		// The built-in groups of S-1-5-32 have identifiers of their own, which no account refers to.
		if sid, err := descriptor.ParseSID([]byte(v[0])); err != nil {
			problems = append(problems, Problem{DN: e.DN, Attribute: s.SID, Reason: err.Error()})
		} else if _, ok := sid.Domain(); ok {
			g.RID = sid.RID()
		}
	}
	return g, problems, nil
}

func (s Schema) identity(e Entry, kind string, dn DN, name string) (UUID, error) {
	attribute := s.IdentityAttribute()
	values := e.Values(attribute)
	switch {
	case len(values) == 0 && s.DeriveIdentity:
		return deriveUUID(kind, dn.Domain(), name), nil
	case len(values) != 1:
		return UUID{}, fmt.Errorf("%w: entry %q has %d values of %s, it needs one: check that the reader may see this attribute", ErrInconsistent, e.DN, len(values), attribute)
	}
	var u UUID
	var err error
	switch s.Identity {
	case ObjectGUID:
		u, err = UUIDFromObjectGUID([]byte(values[0]))
	case NSUniqueID:
		u, err = UUIDFromNSUniqueID(values[0])
	default:
		u, err = ParseUUID(values[0])
	}
	if err != nil {
		return UUID{}, fmt.Errorf("%s of entry %q: %w", attribute, e.DN, err)
	}
	return u, nil
}

// validHostName accepts what RFC 1123 2.1 accepts and the underscore that directories are full of.
func validHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := 0; i < len(label); i++ {
			if c := label[i]; !isAlpha(c) && !isDigit(c) && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}
