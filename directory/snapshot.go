package directory

import (
	"cmp"
	"encoding/hex"
	"iter"
	"slices"
	"strings"
)

// A Digest names the content of a Snapshot: equal content, equal digest, whatever the order it was read in.
type Digest [32]byte

// String returns 64 hex digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first 12 hex digits, enough for a log line.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// MarshalText returns String.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// A Snapshot is one complete, consistent state of the directory. It is immutable and safe for concurrent use; make one
// with a Builder. Machines are ordered by name, containers from the base downwards, groups by DN.
type Snapshot struct {
	base         DN
	digest       Digest
	groupsDigest Digest // of the groups alone: equal means that no membership changed by their side
	problems     []Problem

	containers []Container
	parents    []int32    // of each container, -1 for the base
	scopes     []scope    // of each container: the scopes of management from it upwards
	children   [][2]int32 // of each container: the range of its children in childIndex
	childIndex []int32
	machineIn  []int32    // of each machine: its container
	members    [][2]int32 // of each container: the range of its machines in memberIndex
	memberIdx  []int32
	machines   []Machine
	groups     []Group

	byUUID    map[UUID]ref
	byDN      map[string]ref
	byName    map[string]int32
	byDNSName map[string]int32
	memberOf  map[string][]int32 // DN key -> groups that list it, ascending
	byRID     map[uint32]int32
}

// ref points at an entry of one of the three tables.
type ref struct {
	kind  refKind
	index int32
}

type refKind uint8

const (
	refContainer refKind = iota + 1
	refMachine
	refGroup
)

// Base returns the DN at the top of the tree.
func (s *Snapshot) Base() DN { return s.base }

// Digest returns the digest of the whole content, problems excepted.
func (s *Snapshot) Digest() Digest { return s.digest }

// Problems returns what was read and could not be used, ordered by DN; the caller must not change it.
func (s *Snapshot) Problems() []Problem { return s.problems }

// Len returns the number of containers, machines and groups.
func (s *Snapshot) Len() (containers, machines, groups int) {
	return len(s.containers), len(s.machines), len(s.groups)
}

// Containers yields every container, parents before children.
func (s *Snapshot) Containers() iter.Seq[Container] { return slices.Values(s.containers) }

// Machines yields every machine by name.
func (s *Snapshot) Machines() iter.Seq[Machine] { return slices.Values(s.machines) }

// Groups yields every group by DN.
func (s *Snapshot) Groups() iter.Seq[Group] { return slices.Values(s.groups) }

// Object looks an entry of any kind up by UUID.
func (s *Snapshot) Object(u UUID) (Object, bool) { return s.object(s.byUUID[u]) }

// ObjectByDN looks an entry of any kind up by name.
func (s *Snapshot) ObjectByDN(dn DN) (Object, bool) { return s.object(s.byDN[dn.key]) }

func (s *Snapshot) object(r ref) (Object, bool) {
	switch r.kind {
	case refContainer:
		return s.containers[r.index], true
	case refMachine:
		return s.machines[r.index], true
	case refGroup:
		return s.groups[r.index], true
	}
	return nil, false
}

// Machine looks a machine up by UUID.
func (s *Snapshot) Machine(u UUID) (Machine, bool) { return s.machine(s.byUUID[u]) }

// MachineByDN looks a machine up by DN.
func (s *Snapshot) MachineByDN(dn DN) (Machine, bool) { return s.machine(s.byDN[dn.key]) }

// MachineByName looks a machine up by its short or its fully qualified name, in either case.
func (s *Snapshot) MachineByName(name string) (Machine, bool) {
	f := fold(name)
	if i, ok := s.byName[f]; ok {
		return s.machines[i], true
	}
	if i, ok := s.byDNSName[strings.TrimSuffix(f, ".")]; ok {
		return s.machines[i], true
	}
	return Machine{}, false
}

func (s *Snapshot) machine(r ref) (Machine, bool) {
	if r.kind != refMachine {
		return Machine{}, false
	}
	return s.machines[r.index], true
}

// Container looks a container up by UUID.
func (s *Snapshot) Container(u UUID) (Container, bool) { return s.container(s.byUUID[u]) }

// ContainerByDN looks a container up by DN.
func (s *Snapshot) ContainerByDN(dn DN) (Container, bool) { return s.container(s.byDN[dn.key]) }

func (s *Snapshot) container(r ref) (Container, bool) {
	if r.kind != refContainer {
		return Container{}, false
	}
	return s.containers[r.index], true
}

// Group looks a group up by UUID.
func (s *Snapshot) Group(u UUID) (Group, bool) { return s.group(s.byUUID[u]) }

// GroupByDN looks a group up by DN.
func (s *Snapshot) GroupByDN(dn DN) (Group, bool) { return s.group(s.byDN[dn.key]) }

func (s *Snapshot) group(r ref) (Group, bool) {
	if r.kind != refGroup {
		return Group{}, false
	}
	return s.groups[r.index], true
}

// Path returns the containers above dn from the base down to its own parent; for a container's DN the container itself
// is last. It is nil when dn is not in the snapshot.
func (s *Snapshot) Path(dn DN) []Container {
	r := s.byDN[dn.key]
	var at int32
	switch r.kind {
	case refContainer:
		at = r.index
	case refMachine:
		at = s.machineIn[r.index]
	case refGroup:
		at = s.byDN[dn.Parent().key].index
	default:
		return nil
	}
	var path []Container
	for ; at >= 0; at = s.parents[at] {
		path = append(path, s.containers[at])
	}
	slices.Reverse(path)
	return path
}

// ChildContainers yields the containers directly in the container named dn, by DN; nothing when there is none such.
func (s *Snapshot) ChildContainers(dn DN) iter.Seq[Container] {
	return func(yield func(Container) bool) {
		r := s.byDN[dn.key]
		if r.kind != refContainer {
			return
		}
		span := s.children[r.index]
		for _, i := range s.childIndex[span[0]:span[1]] {
			if !yield(s.containers[i]) {
				return
			}
		}
	}
}

// ChildMachines yields the machines directly in the container named dn, by name; nothing when there is none such.
func (s *Snapshot) ChildMachines(dn DN) iter.Seq[Machine] {
	return func(yield func(Machine) bool) {
		r := s.byDN[dn.key]
		if r.kind != refContainer {
			return
		}
		span := s.members[r.index]
		for _, i := range s.memberIdx[span[0]:span[1]] {
			if !yield(s.machines[i]) {
				return
			}
		}
	}
}

// MemberOf returns the groups that the machine or group named dn belongs to, directly or through other groups, by DN.
// Groups that contain each other are followed once.
func (s *Snapshot) MemberOf(dn DN) []Group {
	indexes := s.memberOfIndexes(dn.key)
	if len(indexes) == 0 {
		return nil
	}
	groups := make([]Group, len(indexes))
	for i, g := range indexes {
		groups[i] = s.groups[g]
	}
	return groups
}

// IsMember says whether the entry named dn belongs to the group, directly or through other groups.
func (s *Snapshot) IsMember(dn, group DN) bool {
	r := s.byDN[group.key]
	if r.kind != refGroup {
		return false
	}
	_, found := slices.BinarySearch(s.memberOfIndexes(dn.key), r.index)
	return found
}

// memberOfIndexes walks upwards from one entry; the indexes ascend, and groups are sorted by DN.
func (s *Snapshot) memberOfIndexes(key string) []int32 {
	reached := slices.Clone(s.memberOf[key])
	if r := s.byDN[key]; r.kind == refMachine {
		if rid := s.machines[r.index].PrimaryGroup; rid != 0 {
			if g, ok := s.byRID[rid]; ok && !slices.Contains(reached, g) {
				reached = append(reached, g)
			}
		}
	}
	if len(reached) == 0 {
		return nil
	}
	var seen map[int32]bool
	for i := 0; i < len(reached); i++ {
		up := s.memberOf[s.groups[reached[i]].DN.key]
		if len(up) == 0 {
			continue
		}
		if seen == nil {
			seen = make(map[int32]bool, len(reached)+len(up))
			for _, g := range reached {
				seen[g] = true
			}
		}
		for _, g := range up {
			if !seen[g] {
				seen[g] = true
				reached = append(reached, g)
			}
		}
	}
	slices.Sort(reached)
	return reached
}

func compareContainers(a, b Container) int {
	return cmp.Or(cmp.Compare(a.DN.Depth(), b.DN.Depth()), a.DN.Compare(b.DN))
}
