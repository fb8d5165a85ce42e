package directory

import (
	"fmt"
	"net/netip"
)

// An Object is an entry that Bailiwick cares about: a Container, a Machine or a Group.
type Object interface {
	// Identity returns the lasting identity and the present name.
	Identity() (UUID, DN)
	object()
}

// ContainerKind says what a container is, and with it whether policy can be linked to it.
type ContainerKind uint8

// The kinds of container.
const (
	// Plain containers only structure the tree (CN=Computers, o=, c=): policy cannot be linked to them.
	Plain ContainerKind = iota + 1
	// Domain containers are named by DC.
	Domain
	// OrganizationalUnit containers are named by OU.
	OrganizationalUnit
)

func (k ContainerKind) String() string {
	switch k {
	case Plain:
		return "container"
	case Domain:
		return "domain"
	case OrganizationalUnit:
		return "organizational unit"
	}
	return fmt.Sprintf("container kind %d", uint8(k))
}

// KindOf returns the kind that a container's own RDN gives it: only OU= and DC= are scopes of management (MS-GPOL
// 3.2.5.1.3).
func KindOf(dn DN) ContainerKind {
	switch dn.RDNType() {
	case "dc":
		return Domain
	case "ou":
		return OrganizationalUnit
	}
	return Plain
}

// A Container is an inner node of the tree.
type Container struct {
	UUID UUID
	DN   DN
	Kind ContainerKind
}

// Name returns the value of the container's RDN.
func (c Container) Name() string { return c.DN.Name() }

// LinksPolicy says whether policy can be linked to the container.
func (c Container) LinksPolicy() bool { return c.Kind == Domain || c.Kind == OrganizationalUnit }

// A Machine is a computer account. Values share their Addresses slice with the Snapshot: do not change it.
type Machine struct {
	UUID UUID
	DN   DN
	// Name is the short host name ("sql1"), unique in a Snapshot without regard to case.
	Name string
	// DNSName is the fully qualified name in lower case ("sql1.bank.example"), unique when set; "" when unknown.
	DNSName string
	// Addresses are what the directory says about the machine's addresses; often nothing. Sorted, without duplicates.
	Addresses []netip.Addr
	// Disabled machines keep their place in the tree and are refused everywhere.
	Disabled bool
	// PrimaryGroup is the relative identifier of Active Directory's primary group, whose members are not listed in the
	// group itself; 0 when there is none.
	PrimaryGroup uint32
}

// A Group names its members; they may be machines, groups, or entries that the Snapshot does not hold (people). Values
// share their Members slice with the Snapshot: do not change it.
type Group struct {
	UUID UUID
	DN   DN
	// Name is the group's cn.
	Name string
	// Members are the direct members, sorted by DN, without duplicates.
	Members []DN
	// RID is the relative identifier that Machine.PrimaryGroup refers to; 0 when there is none.
	RID uint32
}

// Identity returns the container's UUID and DN.
func (c Container) Identity() (UUID, DN) { return c.UUID, c.DN }

// Identity returns the machine's UUID and DN.
func (m Machine) Identity() (UUID, DN) { return m.UUID, m.DN }

// Identity returns the group's UUID and DN.
func (g Group) Identity() (UUID, DN) { return g.UUID, g.DN }

func (Container) object() {}
func (Machine) object()   {}
func (Group) object()     {}

// A Problem is one entry, or one attribute of it, that was read but could not be used. It does not make a read
// incomplete: whoever may write one entry must not be able to stop the whole directory.
type Problem struct {
	DN        string // as read
	Attribute string // "" when the entry as a whole is refused
	Reason    string
}

func (p Problem) String() string {
	if p.Attribute == "" {
		return fmt.Sprintf("%s: entry left out: %s", p.DN, p.Reason)
	}
	return fmt.Sprintf("%s: %s left out: %s", p.DN, p.Attribute, p.Reason)
}
