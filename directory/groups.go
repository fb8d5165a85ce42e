package directory

import (
	"cmp"
	"slices"
	"strings"
)

// MemberOf returns the groups that the machine or group named dn belongs to, directly or through other groups, by DN.
// Groups that contain each other are followed once.
func (s *Snapshot) MemberOf(dn DN) []Group {
	entries := s.memberOf(dn.key)
	if len(entries) == 0 {
		return nil
	}
	groups := make([]Group, len(entries))
	for i, g := range entries {
		groups[i] = g.Group
	}
	return groups
}

// IsMember says whether the entry named dn belongs to the group, directly or through other groups.
func (s *Snapshot) IsMember(dn, group DN) bool {
	g := s.groupAt(group.key)
	return g != nil && slices.Contains(s.memberOf(dn.key), g)
}

// memberOf walks upwards from one entry; the groups are ordered by DN.
func (s *Snapshot) memberOf(key string) []*groupEntry {
	reached := s.groupsOf(nil, key)
	if m := s.machineAt(key); m != nil && m.PrimaryGroup != 0 {
		if g := s.groupOfRID(m.PrimaryGroup); g != nil && !slices.Contains(reached, g) {
			reached = append(reached, g)
		}
	}
	if len(reached) == 0 {
		return nil
	}
	var seen map[*groupEntry]bool
	for i := 0; i < len(reached); i++ {
		up := s.groupsOf(nil, reached[i].DN.key)
		if len(up) == 0 {
			continue
		}
		if seen == nil {
			seen = make(map[*groupEntry]bool, len(reached)+len(up))
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
	slices.SortFunc(reached, groupsByDN.compare)
	return reached
}

// groupsOf appends the groups that list a member.
func (s *Snapshot) groupsOf(dst []*groupEntry, member string) []*groupEntry {
	for m := range s.memberships.equal(func(m membership) int { return strings.Compare(m.member, member) }) {
		dst = append(dst, s.groupAt(m.group))
	}
	return dst
}

func (s *Snapshot) groupOfRID(rid uint32) *groupEntry {
	g, _ := s.groups.byRID.find(func(g *groupEntry) int { return cmp.Compare(g.RID, rid) })
	return g
}

// Members returns the machines that belong to the group named dn, directly or through other groups, by name; nothing when
// there is no such group.
func (s *Snapshot) Members(dn DN) []Machine {
	if s.groupAt(dn.key) == nil {
		return nil
	}
	w := newDescent(s)
	w.from(dn.key)
	members := make([]*machineEntry, 0, len(w.machines))
	for m := range w.machines {
		members = append(members, m)
	}
	slices.SortFunc(members, machinesByName.compare)
	out := make([]Machine, len(members))
	for i, m := range members {
		out[i] = m.Machine
	}
	return out
}

// descent walks from groups downwards, in several snapshots as if they were one: to what is in a group in any of them.
type descent struct {
	in       []*Snapshot
	seen     map[string]bool
	rids     map[uint32]bool // groups whose primary members are reached as well
	machines map[*machineEntry]bool
}

func newDescent(in ...*Snapshot) *descent {
	return &descent{in: in, seen: map[string]bool{}, rids: map[uint32]bool{}, machines: map[*machineEntry]bool{}}
}

// from reaches the entry with the key and, where it is a group, all that are in it.
func (d *descent) from(key string) {
	d.walk(key)
	d.primaries()
}

func (d *descent) walk(key string) {
	for stack := []string{key}; len(stack) > 0; {
		key, stack = stack[len(stack)-1], stack[:len(stack)-1]
		if d.seen[key] {
			continue
		}
		d.seen[key] = true
		for _, s := range d.in {
			if g := s.groupAt(key); g != nil {
				if g.RID != 0 {
					d.rids[g.RID] = true
				}
				for _, m := range g.Members {
					stack = append(stack, m.key)
				}
			} else if m := s.machineAt(key); m != nil {
				d.machines[m] = true
			}
		}
	}
}

// primaries reaches the machines whose primary group was. Nothing lists them there, so all machines are looked at.
func (d *descent) primaries() {
	if len(d.rids) == 0 {
		return
	}
	for _, s := range d.in {
		for m := range s.machines.byUUID.all() {
			if m.PrimaryGroup != 0 && d.rids[m.PrimaryGroup] {
				d.machines[m] = true
			}
		}
	}
}
