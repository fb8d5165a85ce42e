package directory

import (
	"encoding/hex"
	"fmt"
	"slices"
)

// A Part is one of several directories that make a fleet together.
type Part struct {
	// Name of the source, for people: lower-case letters, digits and hyphens.
	Name     string
	Snapshot *Snapshot
}

// Union joins directories into one, in the order of their precedence. Where two claim the same, the earlier has it, and
// what the later has is kept under another name, so that nobody loses a machine by what another directory holds:
//
//   - the same entry (UUID and name) seen by two: as the earlier sees it
//   - a UUID that is another entry's: the later entry is left out; the machine is there, under the earlier's name
//   - a DN: containers are taken for one; any other entry of the later is named "cn=x+cn=SOURCE"
//   - a machine's short name: the later is called by its DNS name, or with its domain, source or UUID added
//   - a DNS name, which stands in certificates: the later has none
//
// Each but the first is told among the problems. Above the bases stand plain containers, which no policy can be linked to.
// Relative identifiers of groups are those of their own domain: the later ones are replaced by numbers of their own.
//
// The union of one part is the part. The result depends on nothing but the parts and their order.
func Union(parts []Part) (*Snapshot, error) {
	switch len(parts) {
	case 0:
		return nil, fmt.Errorf("%w: a union of no directories", ErrInconsistent)
	case 1:
		return parts[0].Snapshot, nil
	}
	n := 0
	for _, p := range parts {
		_, machines, _ := p.Snapshot.Len()
		n += machines
	}
	u := union{
		b: NewBuilder(DN{}), byUUID: map[UUID]DN{}, byDN: map[string]Object{},
		names: make(map[string]DN, n), dnsNames: make(map[string]DN, n), rids: map[uint32]bool{}, above: map[string]bool{},
	}
	for _, p := range parts {
		for dn := p.Snapshot.base; !dn.IsZero(); {
			dn = dn.Parent()
			u.above[dn.key] = true
		}
	}
	for i, p := range parts {
		u.add(p, i == 0)
	}
	u.roof()
	return u.b.Build()
}

// union is one under construction.
type union struct {
	b        *Builder
	byUUID   map[UUID]DN
	byDN     map[string]Object
	placed   []DN            // the containers
	above    map[string]bool // the names above some base: only containers may have them
	names    map[string]DN   // folded
	dnsNames map[string]DN
	rids     map[uint32]bool
	nextRID  uint32
}

// placing tells where the entries of one part come to stand.
type placing struct {
	part    Part
	renamed map[string]DN     // entries that are named otherwise, by their key
	moved   [][2]DN           // containers that are, with all that is below them
	rids    map[uint32]uint32 // relative identifiers
}

func (u *union) problem(p Part, dn DN, attribute, reason string, args ...any) {
	u.b.AddProblem(Problem{DN: dn.text, Attribute: attribute, Reason: "source " + p.Name + ": " + fmt.Sprintf(reason, args...)})
}

func (u *union) add(p Part, first bool) {
	u.b.AddProblem(p.Snapshot.problems...)
	at := placing{part: p, renamed: map[string]DN{}, rids: map[uint32]uint32{}}
	for c := range p.Snapshot.Containers() {
		u.container(&at, c)
	}
	_, nMachines, nGroups := p.Snapshot.Len()
	machines := make([]Machine, 0, nMachines)
	for m := range p.Snapshot.Machines() {
		if dn, ok := u.leaf(&at, m, m.DN); ok {
			m.DN = dn
			machines = append(machines, m)
		}
	}
	groups := make([]Group, 0, nGroups)
	for g := range p.Snapshot.Groups() {
		if dn, ok := u.leaf(&at, g, g.DN); ok {
			g.DN = dn
			groups = append(groups, g)
		}
		if g.RID != 0 {
			at.rids[g.RID] = u.rid(g.RID, first)
		}
	}
	// A machine's way out must not be the name of another one of the same source.
	own := make(map[string]bool, len(machines))
	for _, m := range machines {
		own[fold(m.Name)] = true
	}
	for i := range machines {
		u.nameMachine(p, &machines[i], own)
	}
	for _, m := range machines {
		if m.PrimaryGroup != 0 && !first {
			// A group that nobody read is nobody else's.
			if _, ok := at.rids[m.PrimaryGroup]; !ok {
				at.rids[m.PrimaryGroup] = u.rid(m.PrimaryGroup, false)
			}
			m.PrimaryGroup = at.rids[m.PrimaryGroup]
		}
		u.b.Add(m)
	}
	for _, g := range groups {
		if g.RID != 0 {
			g.RID = at.rids[g.RID]
		}
		if len(at.renamed)+len(at.moved) > 0 {
			members := make([]DN, len(g.Members))
			for i, m := range g.Members {
				members[i] = at.place(m)
			}
			g.Members = members
		}
		u.b.Add(g)
	}
}

// rid gives a relative identifier that no earlier part has. Real ones stay below 2^31 (MS-SAMR 3.1.1.9.2.1).
func (u *union) rid(own uint32, first bool) uint32 {
	if first || !u.rids[own] {
		u.rids[own] = true
		return own
	}
	for {
		u.nextRID++
		if r := 1<<31 + u.nextRID; !u.rids[r] {
			u.rids[r] = true
			return r
		}
	}
}

// place returns where an entry of the part stands, also one that the part does not hold.
func (a *placing) place(dn DN) DN {
	if to, ok := a.renamed[dn.key]; ok {
		return to
	}
	// The nearest container counts: it was placed last.
	for _, m := range slices.Backward(a.moved) {
		if !dn.IsDescendantOf(m[0]) {
			continue
		}
		if to, err := dn.Replant(m[0], m[1]); err == nil {
			return to
		}
	}
	return dn
}

// taken tells whether an entry is left out because its identity is known already.
func (u *union) taken(p Part, id UUID, dn, placed DN) bool {
	other, ok := u.byUUID[id]
	if !ok {
		return false
	}
	if !other.Equal(placed) {
		u.problem(p, dn, "", "the UUID %s is that of %q, which an earlier source has; that one counts", id, other)
	}
	return true
}

func (u *union) container(at *placing, c Container) {
	placed := at.place(c.DN)
	if u.taken(at.part, c.UUID, c.DN, placed) {
		other := u.byUUID[c.UUID]
		if _, isContainer := u.byDN[other.key].(Container); !isContainer {
			u.second(at, c, c.DN, placed)
		} else if !other.Equal(placed) {
			// What is below it stands where the earlier source has it.
			at.moved = append(at.moved, [2]DN{c.DN, other}) // after that of what it is in
			at.renamed[c.DN.key] = other
		}
		return
	}
	switch u.byDN[placed.key].(type) {
	case nil:
		c.DN = placed
		u.keep(c)
		return
	case Container:
		u.problem(at.part, c.DN, "", "the container is taken for the one of that name which an earlier source has")
		return
	}
	u.second(at, c, c.DN, placed)
}

// second gives a container whose name is not free one of its own, with everything below it.
func (u *union) second(at *placing, c Container, was, placed DN) {
	to := u.free(placed, at.part.Name)
	at.moved = append(at.moved, [2]DN{was, to})
	at.renamed[was.key] = to
	u.problem(at.part, was, "", "an earlier source has another entry of that name; this one is called %q", to)
	if _, known := u.byUUID[c.UUID]; known {
		c.UUID = deriveUUID("union container", at.part.Name, was.key)
	}
	c.DN, c.Kind = to, KindOf(to)
	u.keep(c)
}

func (u *union) keep(c Container) {
	u.byUUID[c.UUID], u.byDN[c.DN.key] = c.DN, c
	u.placed = append(u.placed, c.DN)
	u.b.Add(c)
}

// leaf finds the place of a machine or group; false when it is left out.
func (u *union) leaf(at *placing, o Object, dn DN) (DN, bool) {
	id, _ := o.Identity()
	placed := at.place(dn)
	if u.taken(at.part, id, dn, placed) {
		at.renamed[dn.key] = u.byUUID[id]
		return DN{}, false
	}
	if _, occupied := u.byDN[placed.key]; occupied || u.above[placed.key] {
		placed = u.free(placed, at.part.Name)
		u.problem(at.part, dn, "", "an earlier source has another entry of that name; this one is called %q", placed)
	}
	if !placed.Equal(dn) {
		at.renamed[dn.key] = placed
	}
	u.byUUID[id], u.byDN[placed.key] = placed, o
	return placed, true
}

// free adds the source to an RDN until nobody has the name.
func (u *union) free(dn DN, source string) DN {
	text, rest := dn.text, ""
	if i := separator(dn.text); i >= 0 {
		text, rest = dn.text[:i], dn.text[i:]
	}
	for n := 1; ; n++ {
		suffix := source
		if n > 1 {
			suffix = fmt.Sprintf("%s-%d", source, n)
		}
		next, err := ParseDN(text + "+cn=" + suffix + rest)
		if err != nil {
			// Too long for a name: the end of it is what its identity makes of it.
			sum := deriveUUID("union name", suffix, dn.key)
			next = MustParseDN("cn=" + hex.EncodeToString(sum[:]))
			if p := dn.Parent(); !p.IsZero() {
				if below, err := next.under(p); err == nil {
					next = below
				}
			}
		}
		if _, occupied := u.byDN[next.key]; !occupied {
			return next
		}
	}
}

// nameMachine gives a machine names that no machine of an earlier source has.
func (u *union) nameMachine(p Part, m *Machine, own map[string]bool) {
	if m.DNSName != "" {
		if other, ok := u.dnsNames[m.DNSName]; ok {
			u.problem(p, m.DN, "", "the DNS name %s is that of %q, which an earlier source has; this machine counts without it", m.DNSName, other)
			m.DNSName = ""
		} else {
			u.dnsNames[m.DNSName] = m.DN
		}
	}
	if other, ok := u.names[fold(m.Name)]; ok {
		was := m.Name
		m.Name = u.freeName(p, *m, own)
		u.problem(p, m.DN, "", "the name %s is that of %q, which an earlier source has; this machine is called %s", was, other, m.Name)
	}
	u.names[fold(m.Name)] = m.DN
}

func (u *union) freeName(p Part, m Machine, own map[string]bool) string {
	free := func(name string) bool {
		key := fold(name)
		_, occupied := u.names[key]
		_, called := u.dnsNames[key] // a machine is found by either name
		return !occupied && !own[key] && (!called || key == m.DNSName) && validHostName(name)
	}
	for _, name := range []string{m.DNSName, m.Name + "." + p.Snapshot.base.Domain(), m.Name + "." + p.Name} {
		if free(name) {
			return name
		}
	}
	// A UUID is nobody else's, and short enough for a name; but anybody can call a machine so.
	name := "machine-" + m.UUID.String()
	for n := 2; !free(name); n++ {
		name = fmt.Sprintf("machine-%s-%d", m.UUID, n)
	}
	return name
}

// roof puts plain containers above the bases, so that there is one tree: up to the empty name.
func (u *union) roof() {
	for _, dn := range slices.Clone(u.placed) {
		for !dn.IsZero() {
			dn = dn.Parent()
			if _, there := u.byDN[dn.key]; there {
				break
			}
			u.keep(Container{UUID: deriveUUID("union roof", "", dn.key), DN: dn, Kind: Plain})
		}
	}
}
