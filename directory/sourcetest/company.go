package sourcetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/directory"
)

// A Dialect is how a kind of server writes entries. Texts are LDIF (RFC 2849) without the line of the name.
type Dialect struct {
	// Base is the top of the company's tree, which is there already unless Root says how to add it.
	Base string
	Root string
	// Container is a container's class, "organizationalUnit" when empty.
	Container string
	// Machine and Group are the attributes of a new machine and a new group, of which the cn is given by "%[1]s".
	Machine, Group string
	// Rename are the changes that give a renamed machine its new name, beside that of its cn; "" for none.
	Rename string
	// Lock and Unlock are the changes that disable and enable a machine.
	Lock, Unlock string
}

type machine struct {
	cn, dns  string
	ou       string // key of its container
	disabled bool
}

type container struct {
	name, parent string // parent is a key, "" for the base
}

// A Company is what the directory should hold. Keys of its entries never change, whatever they are called.
type Company struct {
	dialect    Dialect
	containers map[string]container
	machines   map[string]machine
	groups     map[string][]string // direct members by key; those that are groups begin with "group "
	seen       map[string]directory.UUID
	text       strings.Builder // changes that were not taken yet
}

// NewCompany is an empty company.
func NewCompany(d Dialect) *Company {
	if d.Container == "" {
		d.Container = "organizationalUnit"
	}
	return &Company{
		dialect: d, containers: map[string]container{}, machines: map[string]machine{}, groups: map[string][]string{},
		seen: map[string]directory.UUID{},
	}
}

func (c *Company) ouDN(key string) string {
	if key == "" {
		return c.dialect.Base
	}
	ou := c.containers[key]
	return "OU=" + ou.name + "," + c.ouDN(ou.parent)
}

func (c *Company) machineDN(key string) string {
	m := c.machines[key]
	return "CN=" + m.cn + "," + c.ouDN(m.ou)
}

func (c *Company) memberDN(key string) string {
	if name, ok := strings.CutPrefix(key, "group "); ok {
		return c.groupDN(name)
	}
	return c.machineDN(key)
}

func (c *Company) groupDN(key string) string { return "CN=" + key + "," + c.dialect.Base }

// take returns the changes that were written since the last call.
func (c *Company) take() string {
	defer c.text.Reset()
	return c.text.String()
}

func (c *Company) change(dn, kind, body string) {
	fmt.Fprintf(&c.text, "dn: %s\nchangetype: %s\n%s\n", dn, kind, strings.TrimRight(body, "\n")+"\n")
}

// root adds the base where the server has none.
func (c *Company) root() {
	if c.dialect.Root != "" {
		c.change(c.dialect.Base, "add", c.dialect.Root)
	}
}

func (c *Company) addOU(key, name, parent string) {
	c.containers[key] = container{name, parent}
	c.change(c.ouDN(key), "add", "objectClass: "+c.dialect.Container+"\nou: "+name)
}

func (c *Company) addMachine(key, ou string) {
	c.machines[key] = machine{cn: key, ou: ou}
	c.change(c.machineDN(key), "add", fmt.Sprintf(c.dialect.Machine, key))
}

func (c *Company) addGroup(key string, members ...string) {
	c.groups[key] = members
	body := fmt.Sprintf(c.dialect.Group, key)
	for _, m := range members {
		body += "\nmember: " + c.memberDN(m)
	}
	c.change(c.groupDN(key), "add", body)
}

func (c *Company) modifyDNS(key, dns string) {
	m := c.machines[key]
	m.dns = dns
	c.machines[key] = m
	c.change(c.machineDN(key), "modify", "replace: dNSHostName\ndNSHostName: "+dns)
}

func (c *Company) disable(key string, disabled bool) {
	m := c.machines[key]
	m.disabled = disabled
	c.machines[key] = m
	body := c.dialect.Unlock
	if disabled {
		body = c.dialect.Lock
	}
	c.change(c.machineDN(key), "modify", body)
}

func (c *Company) moveMachine(key, ou string) {
	from := c.machineDN(key)
	m := c.machines[key]
	m.ou = ou
	c.machines[key] = m
	c.change(from, "modrdn", "newrdn: CN="+m.cn+"\ndeleteoldrdn: 1\nnewsuperior: "+c.ouDN(ou))
}

func (c *Company) renameMachine(key, cn string) {
	from := c.machineDN(key)
	m := c.machines[key]
	m.cn = cn
	c.machines[key] = m
	c.change(from, "modrdn", "newrdn: CN="+cn+"\ndeleteoldrdn: 1")
	if c.dialect.Rename != "" {
		c.change(c.machineDN(key), "modify", fmt.Sprintf(c.dialect.Rename, cn))
	}
}

func (c *Company) moveOU(key, name, parent string) {
	from := c.ouDN(key)
	body := "newrdn: OU=" + name + "\ndeleteoldrdn: 1"
	if c.containers[key].parent != parent {
		body += "\nnewsuperior: " + c.ouDN(parent)
	}
	c.containers[key] = container{name, parent}
	c.change(from, "modrdn", body)
}

func (c *Company) removeMachine(key string) {
	c.change(c.machineDN(key), "delete", "")
	delete(c.machines, key)
}

func (c *Company) removeOU(key string) {
	c.change(c.ouDN(key), "delete", "")
	delete(c.containers, key)
}

func (c *Company) join(group, member string) {
	c.groups[group] = append(c.groups[group], member)
	c.change(c.groupDN(group), "modify", "add: member\nmember: "+c.memberDN(member))
}

func (c *Company) leave(group, member string) {
	c.groups[group] = slices.DeleteFunc(slices.Clone(c.groups[group]), func(m string) bool { return m == member })
	c.change(c.groupDN(group), "modify", "delete: member\nmember: "+c.memberDN(member))
}

// LDIF is the whole company as a file, for sources that read one.
func (c *Company) LDIF() []byte {
	var b strings.Builder
	entry := func(key, dn, body string) {
		fmt.Fprintf(&b, "dn: %s\nentryUUID: %s\n%s\n\n", dn, fileUUID(key), strings.TrimSpace(body))
	}
	entry("root", c.dialect.Base, c.dialect.Root)
	for depth := range len(c.containers) {
		for _, key := range slices.Sorted(maps.Keys(c.containers)) {
			if strings.Count(c.ouDN(key), "OU=") == depth+1 {
				entry("container "+key, c.ouDN(key), "objectClass: "+c.dialect.Container+"\nou: "+c.containers[key].name)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.machines)) {
		m := c.machines[key]
		body := fmt.Sprintf(c.dialect.Machine, m.cn)
		if m.dns != "" {
			body += "\ndNSHostName: " + m.dns
		}
		if m.disabled {
			body += "\n" + strings.TrimPrefix(c.dialect.Lock, "replace: userAccountControl\n")
		}
		entry("machine "+key, c.machineDN(key), body)
	}
	for _, key := range slices.Sorted(maps.Keys(c.groups)) {
		body := fmt.Sprintf(c.dialect.Group, key)
		for _, m := range c.groups[key] {
			body += "\nmember: " + c.memberDN(m)
		}
		entry("group "+key, c.groupDN(key), body)
	}
	return []byte(b.String())
}

// fileUUID is an identity that a file keeps for an entry.
func fileUUID(key string) string {
	sum := uint64(14695981039346656037) // FNV-1a
	for i := range len(key) {
		sum = (sum ^ uint64(key[i])) * 1099511628211
	}
	return fmt.Sprintf("%08x-%04x-4000-8000-%012x", uint32(sum>>32), uint16(sum>>16), sum&0xffffffffffff)
}

// Check holds a snapshot against the company. Identities are noted when an entry is first seen, and have to stay.
func (c *Company) Check(s *directory.Snapshot) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	identity := func(key string, u directory.UUID) {
		if have, ok := c.seen[key]; ok && have != u {
			wrong("%s is %s and was %s: its identity is lost", key, u, have)
		}
		c.seen[key] = u
	}
	containers, machines, groups := s.Len()
	if containers != len(c.containers)+1 || machines != len(c.machines) || groups != len(c.groups) {
		wrong("%d containers, %d machines, %d groups; want %d, %d and %d", containers, machines, groups, len(c.containers)+1, len(c.machines), len(c.groups))
	}
	for key := range c.containers {
		dn := directory.MustParseDN(c.ouDN(key))
		if o, ok := s.ContainerByDN(dn); ok {
			identity("container "+key, o.UUID)
		} else {
			wrong("there is no container %q", dn)
		}
	}
	for key, want := range c.machines {
		dn := directory.MustParseDN(c.machineDN(key))
		m, ok := s.MachineByDN(dn)
		if !ok {
			wrong("there is no machine %q", dn)
			continue
		}
		identity("machine "+key, m.UUID)
		if !strings.EqualFold(m.Name, want.cn) || m.DNSName != want.dns || m.Disabled != want.disabled {
			wrong("machine %q is %+v, want %+v", dn, m, want)
		}
		for group := range c.groups {
			if got, want := s.IsMember(dn, directory.MustParseDN(c.groupDN(group))), c.member(group, key); got != want {
				wrong("that %q is a member of %s is %v, want %v", dn, group, got, want)
			}
		}
	}
	for key := range c.groups {
		if g, ok := s.GroupByDN(directory.MustParseDN(c.groupDN(key))); ok {
			identity("group "+key, g.UUID)
		} else {
			wrong("there is no group %q", key)
		}
	}
	for _, p := range s.Problems() {
		wrong("problem %v", p)
	}
	return errors.Join(errs...)
}

func (c *Company) member(group, key string) bool {
	return slices.ContainsFunc(c.groups[group], func(m string) bool {
		inner, nested := strings.CutPrefix(m, "group ")
		return m == key || nested && c.member(inner, key)
	})
}

// Standard is the dialect of servers with standard classes and the schema of e2e/lab/slapd, and of files for them.
func Standard() Dialect {
	return Dialect{
		Base: "dc=bank,dc=example", Root: "objectClass: domain\ndc: bank",
		Machine: "objectClass: device\nobjectClass: computer\ncn: %[1]s",
		Group:   "objectClass: groupOfNames\ncn: %[1]s",
		Lock:    "replace: userAccountControl\nuserAccountControl: 4098",
		Unlock:  "replace: userAccountControl\nuserAccountControl: 4096",
	}
}

// ActiveDirectory is the dialect of Active Directory and Samba, with the company in a container of the domain.
func ActiveDirectory(domain string) Dialect {
	return Dialect{
		Base: "OU=Bank," + domain, Root: "objectClass: organizationalUnit\nou: Bank",
		Machine: "objectClass: computer\ncn: %[1]s\nsAMAccountName: %[1]s$\nuserAccountControl: 4096",
		Group:   "objectClass: group\ncn: %[1]s\nsAMAccountName: %[1]s",
		Rename:  "replace: sAMAccountName\nsAMAccountName: %[1]s$",
		Lock:    "replace: userAccountControl\nuserAccountControl: 4098",
		Unlock:  "replace: userAccountControl\nuserAccountControl: 4096",
	}
}
