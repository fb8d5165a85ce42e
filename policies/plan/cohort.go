package plan

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// cohort is the machines that no policy of the one world nor of the other tells apart: the same bundle, addresses in the
// same of the ranges that filters name, and the same of the groups that rules name, before and after.
type cohort struct {
	from, to compile.Digest
	// absent tells in which of the worlds the directory does not hold the machines, or holds their account disabled.
	absentBefore, absentAfter bool
	// moved tells that the machines are told apart by other things after than before.
	moved       bool
	first, last cohortMember
	size        int
}

// cohortMember is one machine of a cohort in both worlds.
type cohortMember struct {
	before, after directory.Machine
	// groups are those that rules name and the machine belongs to, spelled as rules do.
	groupsBefore, groupsAfter []string
}

func (m cohortMember) name() string {
	if m.after.Name != "" {
		return m.after.Name
	}
	return m.before.Name
}

// terrain is what the policies of a world name and can tell machines apart by.
type terrain struct {
	cuts   []netip.Addr        // the first addresses of the intervals, of IPv4 before IPv6, ascending
	ranges []spd.Range         // what filters name, the whole of a family excepted
	known  []bool              // of each interval: a filter names it
	groups map[string][]string // by DN key: as rules spell them
	// identities are those that rules want of a peer, folded.
	identities map[string]bool
	// hosts are the DNS names that filters name, with their addresses as far as the directory tells them.
	hosts map[string]place
}

// survey collects what the policies of all given states name.
func survey(states ...*state) terrain {
	t := terrain{groups: map[string][]string{}, identities: map[string]bool{}, hosts: map[string]place{}}
	cut := func(a netip.Addr) {
		if a.IsValid() {
			t.cuts = append(t.cuts, a.Unmap())
		}
	}
	span := func(from, to netip.Addr) {
		t.ranges = append(t.ranges, spd.Range{From: from, To: to})
		cut(from)
		cut(to.Next())
	}
	peer := func(auth []spd.Auth) {
		for _, a := range auth {
			t.identities[strings.ToLower(a.RemoteID)] = true
			if text, ok := strings.CutPrefix(a.RemoteID, "ip:"); ok {
				if ip, err := netip.ParseAddr(text); err == nil {
					span(ip.Unmap(), ip.Unmap())
				}
			}
		}
	}
	for _, s := range states {
		for _, p := range s.policies {
			peer(p.DefaultResponse.Auth)
			for _, name := range p.HostNames() {
				m, _ := s.world.Directory.MachineByName(name)
				m = s.located(m)
				if at := home(m.Addresses, t.hosts[name]); m.DNSName == name {
					t.hosts[name] = at
				} else if _, known := t.hosts[name]; !known {
					t.hosts[name] = place{}
				}
			}
			for _, r := range p.Rules {
				for _, g := range r.PeerGroups {
					if dn, err := directory.ParseDN(g); err == nil && !slices.Contains(t.groups[dn.Key()], g) {
						t.groups[dn.Key()] = append(t.groups[dn.Key()], g)
					}
				}
				peer(r.Auth)
				if r.Tunnel.IsValid() {
					span(r.Tunnel, r.Tunnel)
				}
				for _, f := range r.Filters {
					for _, a := range []spd.Address{f.Source, f.Destination} {
						if a.Kind == spd.AddressRange {
							span(a.From, a.To)
						}
						if a.Kind == spd.AddressPrefix && a.Prefix.Bits() > 0 {
							span(a.Prefix.Addr(), lastOf(a.Prefix))
						}
					}
				}
			}
		}
	}
	for _, at := range t.hosts {
		for _, a := range at {
			if a.IsValid() {
				span(a, a)
			}
		}
	}
	slices.SortFunc(t.cuts, netip.Addr.Compare)
	t.cuts = slices.Compact(t.cuts)
	t.known = make([]bool, len(t.cuts)+1)
	for i, first := range t.cuts {
		t.known[i+1] = t.named(first)
	}
	return t
}

func lastOf(p netip.Prefix) netip.Addr {
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(last); bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	to, _ := netip.AddrFromSlice(last)
	return to
}

// named tells whether a filter names the address.
func (t terrain) named(a netip.Addr) bool {
	return slices.ContainsFunc(t.ranges, func(r spd.Range) bool { return r.Contains(a) })
}

// interval numbers the interval that an address lies in; 0 is all that no filter names.
func (t terrain) interval(a netip.Addr) int {
	i, exact := slices.BinarySearchFunc(t.cuts, a.Unmap(), netip.Addr.Compare)
	if exact {
		i++
	}
	if i >= len(t.known) || !t.known[i] {
		return 0
	}
	return i
}

// signature says in which intervals the addresses of a machine lie, of which family, and in which groups it is.
func (t terrain) signature(dst []byte, m directory.Machine, groups []string) []byte {
	var places []uint32
	for _, a := range m.Addresses {
		if usable(a) {
			places = append(places, uint32(t.interval(a))<<1|uint32(a.Unmap().BitLen()>>7))
		}
	}
	slices.Sort(places)
	for _, p := range slices.Compact(places) {
		dst = binary.AppendUvarint(dst, uint64(p)+1)
	}
	dst = append(dst, 0)
	for _, g := range groups {
		dst = append(append(dst, g...), 0)
	}
	dst = append(append(dst, t.identity(m)...), 0)
	if _, named := t.hosts[m.DNSName]; named {
		dst = append(dst, m.DNSName...)
	}
	return append(dst, 0)
}

// identity is what rules can tell the machine by; empty if none does.
func (t terrain) identity(m directory.Machine) string {
	if len(t.identities) == 0 {
		return ""
	}
	if id := strings.ToLower(identityOf(m)); t.identities[id] {
		return id
	}
	return ""
}

// usable tells whether an address of the directory can be that of a machine (spd.Facts).
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsLoopback() && !a.IsMulticast() && !a.IsUnspecified() && a.Zone() == ""
}

func (t terrain) groupsOf(s *directory.Snapshot, dn directory.DN) []string {
	if len(t.groups) == 0 {
		return nil
	}
	var out []string
	for _, g := range s.MemberOf(dn) {
		out = append(out, t.groups[g.DN.Key()]...)
	}
	return out
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// cohorts sorts every machine of both worlds, the largest cohort first.
func cohorts(before, after *state, t terrain) []*cohort {
	index := map[string]*cohort{}
	var out []*cohort
	var was, is, key []byte
	add := func(old, now directory.Machine, from, to *Assignment) {
		had, has := from != nil, to != nil
		old, now = before.located(old), after.located(now)
		member := cohortMember{before: old, after: now}
		c := cohort{absentBefore: !had || old.Disabled, absentAfter: !has || now.Disabled}
		was, is = append(was[:0], flag(c.absentBefore)), append(is[:0], flag(c.absentAfter))
		if had {
			c.from, member.groupsBefore = from.Digest, t.groupsOf(before.world.Directory, old.DN)
			was = t.signature(append(was, c.from[:]...), old, member.groupsBefore)
		}
		if has {
			c.to, member.groupsAfter = to.Digest, t.groupsOf(after.world.Directory, now.DN)
			is = t.signature(append(is, c.to[:]...), now, member.groupsAfter)
		}
		key = append(append(append(key[:0], was...), '/'), is...)
		group, known := index[string(key)]
		if !known {
			group = &c
			c.moved, c.first = !bytes.Equal(was, is), member
			index[string(key)] = group
			out = append(out, group)
		}
		group.last = member
		group.size++
	}
	i := 0
	for m := range after.world.Directory.Machines() {
		var old directory.Machine
		var from *Assignment
		if before.same(after) {
			old, from = m, before.machines[i]
		} else if was, known := before.world.Directory.Machine(m.UUID); known {
			outcome, _ := before.outcomes.Of(m.UUID)
			old, from = was, before.assigned[outcome]
		}
		add(old, m, from, after.machines[i])
		i++
	}
	i = 0
	for m := range before.world.Directory.Machines() {
		if before.same(after) {
			break
		}
		if _, still := after.world.Directory.Machine(m.UUID); !still {
			add(m, directory.Machine{}, before.machines[i], nil)
		}
		i++
	}
	slices.SortStableFunc(out, func(a, b *cohort) int {
		return cmp.Or(cmp.Compare(b.size, a.size), strings.Compare(a.first.name(), b.first.name()))
	})
	return out
}
