package directory

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"strings"
)

// machineEntry is a machine as a Snapshot holds it.
type machineEntry struct {
	Machine
	folded string // of Name
}

// groupEntry is a group as a Snapshot holds it.
type groupEntry struct {
	Group
	sum Digest // of the whole group: the chunk of a large one is hashed anew with each of its neighbours
}

// membership says that a group lists a member: both by the key of their names.
type membership struct{ member, group string }

// The orders of the tables.
var (
	containersByUUID = order[*Container]{
		compare: func(a, b *Container) int { return compareUUID(a.UUID, b.UUID) },
		prefix:  func(c *Container) uint64 { return binary.BigEndian.Uint64(c.UUID[:]) },
		ends:    func(c *Container) bool { return c.UUID.ends() },
	}
	containersByPlace = order[*Container]{
		compare: func(a, b *Container) int { return comparePlaces(a.DN.key, b.DN.key) },
		prefix:  func(c *Container) uint64 { return placePrefix(c.DN.key) },
		ends:    containersByUUID.ends,
	}
	containersByLevel = order[*Container]{
		compare: func(a, b *Container) int { return compareContainers(*a, *b) },
		prefix:  func(c *Container) uint64 { return uint64(c.DN.Depth()) },
		ends:    containersByUUID.ends,
	}

	machinesByUUID = order[*machineEntry]{
		compare: func(a, b *machineEntry) int { return compareUUID(a.UUID, b.UUID) },
		prefix:  func(m *machineEntry) uint64 { return binary.BigEndian.Uint64(m.UUID[:]) },
		ends:    func(m *machineEntry) bool { return m.UUID.ends() },
	}
	machinesByPlace = order[*machineEntry]{
		compare: func(a, b *machineEntry) int { return comparePlaces(a.DN.key, b.DN.key) },
		prefix:  func(m *machineEntry) uint64 { return placePrefix(m.DN.key) },
		ends:    machinesByUUID.ends,
	}
	machinesByName = order[*machineEntry]{
		compare: func(a, b *machineEntry) int { return strings.Compare(a.folded, b.folded) },
		prefix:  func(m *machineEntry) uint64 { return textPrefix(m.folded) },
		ends:    machinesByUUID.ends,
	}
	machinesByDNSName = order[*machineEntry]{
		compare: func(a, b *machineEntry) int { return strings.Compare(a.DNSName, b.DNSName) },
		prefix:  func(m *machineEntry) uint64 { return textPrefix(m.DNSName) },
		ends:    machinesByUUID.ends,
	}

	groupsByUUID = order[*groupEntry]{
		compare: func(a, b *groupEntry) int { return compareUUID(a.UUID, b.UUID) },
		prefix:  func(g *groupEntry) uint64 { return binary.BigEndian.Uint64(g.UUID[:]) },
		ends:    func(g *groupEntry) bool { return g.UUID.ends() },
	}
	groupsByDN = order[*groupEntry]{
		compare: func(a, b *groupEntry) int { return a.DN.Compare(b.DN) },
		prefix:  func(g *groupEntry) uint64 { return textPrefix(g.DN.key) },
		ends:    groupsByUUID.ends,
	}
	groupsByRID = order[*groupEntry]{
		compare: func(a, b *groupEntry) int { return cmp.Compare(a.RID, b.RID) },
		prefix:  func(g *groupEntry) uint64 { return uint64(g.RID) },
		ends:    groupsByUUID.ends,
	}

	membershipsByMember = order[membership]{
		compare: func(a, b membership) int {
			return cmp.Or(strings.Compare(a.member, b.member), strings.Compare(a.group, b.group))
		},
		prefix: func(m membership) uint64 { return textPrefix(m.member) },
		ends: func(m membership) bool {
			h := fnv.New64a()
			h.Write([]byte(m.member))
			h.Write([]byte(m.group))
			return h.Sum64()%chunkSize == 0
		},
	}
)

func compareUUID(a, b UUID) int { return bytes.Compare(a[:], b[:]) }

// ends says that a chunk ends with the entry of this UUID: one of chunkSize does, by a hash that is the same everywhere,
// because digests depend on it.
func (u UUID) ends() bool {
	x := binary.LittleEndian.Uint64(u[:8])*0x9e3779b97f4a7c15 ^ binary.LittleEndian.Uint64(u[8:])*0xc2b2ae3d27d4eb4f
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9
	return x>>56 == 0
}

// splitPlace splits the key of a name into its container's and its own level.
func splitPlace(key string) (parent, own string) {
	i := separator(key)
	if i < 0 {
		return "", key
	}
	return key[i+1:], key[:i]
}

// comparePlaces orders by container, then by name in it. Containers come in no order that means anything: what is in one
// stands together, and is told from the rest by a number nearly always.
func comparePlaces(a, b string) int {
	up, own := splitPlace(a)
	return comparePlace(up, own, b)
}

// comparePlace is comparePlaces with the first key split already.
func comparePlace(up, own, b string) int {
	upB, ownB := splitPlace(b)
	if up == upB {
		return strings.Compare(own, ownB)
	}
	return compareParents(up, upB)
}

// compareParents is comparePlaces for the containers alone.
func compareParents(a, b string) int {
	if x, y := scatter(a), scatter(b); x != y {
		return cmp.Compare(x, y)
	}
	return strings.Compare(a, b)
}

// scatter makes a number of the beginning of a text.
func scatter(s string) uint64 {
	x := textPrefix(s) * 0x9e3779b97f4a7c15
	if len(s) > 8 {
		x = (x ^ x>>32 ^ textPrefix(s[8:])) * 0xc2b2ae3d27d4eb4f
	}
	return x
}

// textPrefix returns the first eight bytes, in an order that is that of the texts.
func textPrefix(s string) uint64 {
	if len(s) >= 8 {
		return uint64(s[0])<<56 | uint64(s[1])<<48 | uint64(s[2])<<40 | uint64(s[3])<<32 | uint64(s[4])<<24 | uint64(s[5])<<16 | uint64(s[6])<<8 | uint64(s[7])
	}
	var x uint64
	for i := range len(s) {
		x |= uint64(s[i]) << (56 - 8*i)
	}
	return x
}

func placePrefix(key string) uint64 {
	up, _ := splitPlace(key)
	return scatter(up)
}

func compareContainers(a, b Container) int {
	return cmp.Or(cmp.Compare(a.DN.Depth(), b.DN.Depth()), a.DN.Compare(b.DN))
}
