package directory

import (
	"iter"
	"slices"
	"strings"
)

// A Snapshot is one complete, consistent state of the directory. It is immutable and safe for concurrent use; make one
// with a Builder, or with an Edit of another. Machines are ordered by name, containers from the base downwards, groups by
// DN.
type Snapshot struct {
	base         DN
	digest       Digest
	groupsDigest Digest // of the groups alone: equal means that no membership changed by their side
	problems     []Problem

	containers struct{ byUUID, byPlace, byLevel table[*Container] }
	// byDNSName has those that have one.
	machines struct{ byUUID, byPlace, byName, byDNSName table[*machineEntry] }
	// byRID has those that have one.
	groups      struct{ byUUID, byDN, byRID table[*groupEntry] }
	memberships table[membership]
}

// Base returns the DN at the top of the tree.
func (s *Snapshot) Base() DN { return s.base }

// Digest returns the digest of the whole content, problems excepted.
func (s *Snapshot) Digest() Digest { return s.digest }

// Problems returns what was read and could not be used, ordered by DN; the caller must not change it.
func (s *Snapshot) Problems() []Problem { return s.problems }

// Len returns the number of containers, machines and groups.
func (s *Snapshot) Len() (containers, machines, groups int) {
	return s.containers.byUUID.len, s.machines.byUUID.len, s.groups.byUUID.len
}

// Containers yields every container, parents before children.
func (s *Snapshot) Containers() iter.Seq[Container] {
	return func(yield func(Container) bool) {
		for c := range s.containers.byLevel.all() {
			if !yield(*c) {
				return
			}
		}
	}
}

// Machines yields every machine by name.
func (s *Snapshot) Machines() iter.Seq[Machine] {
	return func(yield func(Machine) bool) {
		for m := range s.machines.byName.all() {
			if !yield(m.Machine) {
				return
			}
		}
	}
}

// Groups yields every group by DN.
func (s *Snapshot) Groups() iter.Seq[Group] {
	return func(yield func(Group) bool) {
		for g := range s.groups.byDN.all() {
			if !yield(g.Group) {
				return
			}
		}
	}
}

// Object looks an entry of any kind up by UUID.
func (s *Snapshot) Object(u UUID) (Object, bool) {
	if m := s.machineOf(u); m != nil {
		return m.Machine, true
	}
	if g := s.groupOf(u); g != nil {
		return g.Group, true
	}
	if c := s.containerOf(u); c != nil {
		return *c, true
	}
	return nil, false
}

// ObjectByDN looks an entry of any kind up by name.
func (s *Snapshot) ObjectByDN(dn DN) (Object, bool) {
	if m := s.machineAt(dn.key); m != nil {
		return m.Machine, true
	}
	if g := s.groupAt(dn.key); g != nil {
		return g.Group, true
	}
	if c := s.containerAt(dn.key); c != nil {
		return *c, true
	}
	return nil, false
}

// Machine looks a machine up by UUID.
func (s *Snapshot) Machine(u UUID) (Machine, bool) { return s.machineOf(u).value() }

// MachineByDN looks a machine up by DN.
func (s *Snapshot) MachineByDN(dn DN) (Machine, bool) { return s.machineAt(dn.key).value() }

// MachineByName looks a machine up by its short or its fully qualified name, in either case.
func (s *Snapshot) MachineByName(name string) (Machine, bool) {
	f := fold(name)
	if m, ok := s.machines.byName.find(func(m *machineEntry) int { return strings.Compare(m.folded, f) }); ok {
		return m.Machine, true
	}
	f = strings.TrimSuffix(f, ".")
	m, _ := s.machines.byDNSName.find(func(m *machineEntry) int { return strings.Compare(m.DNSName, f) })
	return m.value()
}

// Container looks a container up by UUID.
func (s *Snapshot) Container(u UUID) (Container, bool) { return containerValue(s.containerOf(u)) }

// ContainerByDN looks a container up by DN.
func (s *Snapshot) ContainerByDN(dn DN) (Container, bool) {
	return containerValue(s.containerAt(dn.key))
}

// Group looks a group up by UUID.
func (s *Snapshot) Group(u UUID) (Group, bool) { return s.groupOf(u).value() }

// GroupByDN looks a group up by DN.
func (s *Snapshot) GroupByDN(dn DN) (Group, bool) { return s.groupAt(dn.key).value() }

func (m *machineEntry) value() (Machine, bool) {
	if m == nil {
		return Machine{}, false
	}
	return m.Machine, true
}

func (g *groupEntry) value() (Group, bool) {
	if g == nil {
		return Group{}, false
	}
	return g.Group, true
}

func containerValue(c *Container) (Container, bool) {
	if c == nil {
		return Container{}, false
	}
	return *c, true
}

func (s *Snapshot) machineOf(u UUID) *machineEntry {
	m, _ := s.machines.byUUID.find(func(m *machineEntry) int { return compareUUID(m.UUID, u) })
	return m
}

func (s *Snapshot) containerOf(u UUID) *Container {
	c, _ := s.containers.byUUID.find(func(c *Container) int { return compareUUID(c.UUID, u) })
	return c
}

func (s *Snapshot) groupOf(u UUID) *groupEntry {
	g, _ := s.groups.byUUID.find(func(g *groupEntry) int { return compareUUID(g.UUID, u) })
	return g
}

func (s *Snapshot) machineAt(key string) *machineEntry {
	up, own := splitPlace(key)
	m, _ := s.machines.byPlace.find(func(m *machineEntry) int { return -comparePlace(up, own, m.DN.key) })
	return m
}

func (s *Snapshot) containerAt(key string) *Container {
	up, own := splitPlace(key)
	c, _ := s.containers.byPlace.find(func(c *Container) int { return -comparePlace(up, own, c.DN.key) })
	return c
}

func (s *Snapshot) groupAt(key string) *groupEntry {
	g, _ := s.groups.byDN.find(func(g *groupEntry) int { return strings.Compare(g.DN.key, key) })
	return g
}

// Path returns the containers above dn from the base down to its own parent; for a container's DN the container itself
// is last. It is nil when dn is not in the snapshot.
func (s *Snapshot) Path(dn DN) []Container {
	at := s.containerAt(dn.key)
	if at == nil {
		if _, ok := s.ObjectByDN(dn); !ok {
			return nil
		}
		at = s.containerAt(dn.Parent().key)
	}
	var path []Container
	for ; at != nil; at = s.containerAt(at.DN.Parent().key) {
		path = append(path, *at)
		if at.DN.Equal(s.base) {
			break
		}
	}
	slices.Reverse(path)
	return path
}

// containersIn yields the containers directly in the one with the key, by DN.
func (s *Snapshot) containersIn(key string) iter.Seq[*Container] {
	all := s.containers.byPlace.equal(func(c *Container) int {
		up, _ := splitPlace(c.DN.key)
		return compareParents(up, key)
	})
	if key != "" {
		return all
	}
	// The empty name, the top of a union, is its own parent, but not in itself.
	return func(yield func(*Container) bool) {
		for c := range all {
			if !c.DN.IsZero() && !yield(c) {
				return
			}
		}
	}
}

// machinesIn yields the machines directly in the container with the key, by DN.
func (s *Snapshot) machinesIn(key string) iter.Seq[*machineEntry] {
	return s.machines.byPlace.equal(func(m *machineEntry) int {
		up, _ := splitPlace(m.DN.key)
		return compareParents(up, key)
	})
}

// ChildContainers yields the containers directly in the container named dn, by DN; nothing when there is none such.
func (s *Snapshot) ChildContainers(dn DN) iter.Seq[Container] {
	return func(yield func(Container) bool) {
		if s.containerAt(dn.key) == nil {
			return
		}
		for c := range s.containersIn(dn.key) {
			if !yield(*c) {
				return
			}
		}
	}
}

// ChildMachines yields the machines directly in the container named dn, by name; nothing when there is none such.
func (s *Snapshot) ChildMachines(dn DN) iter.Seq[Machine] {
	return func(yield func(Machine) bool) {
		if s.containerAt(dn.key) == nil {
			return
		}
		children := slices.Collect(s.machinesIn(dn.key))
		slices.SortFunc(children, machinesByName.compare)
		for _, m := range children {
			if !yield(m.Machine) {
				return
			}
		}
	}
}

// Below yields every entry below the container named dn, containers before what is in them; groups come last. It yields
// nothing when there is none such.
func (s *Snapshot) Below(dn DN) iter.Seq[Object] {
	return func(yield func(Object) bool) {
		if s.containerAt(dn.key) == nil || !s.below(dn.key, yield) {
			return
		}
		for g := range s.groups.byDN.all() {
			if g.DN.IsDescendantOf(dn) && !yield(g.Group) {
				return
			}
		}
	}
}

func (s *Snapshot) below(key string, yield func(Object) bool) bool {
	for m := range s.machinesIn(key) {
		if !yield(m.Machine) {
			return false
		}
	}
	for c := range s.containersIn(key) {
		if !yield(*c) || !s.below(c.DN.key, yield) {
			return false
		}
	}
	return true
}
