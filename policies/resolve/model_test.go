package resolve

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
)

// naiveWinner finds the winner without the two lists of the algorithm: of the links that apply it takes the best by
// (enforced, distance, order), straight from the DNs.
func naiveWinner(s *directory.Snapshot, d policies.Documents, machine, site directory.DN) (string, bool) {
	type rank struct{ forced, depth, order int }
	better := func(a, b rank) bool {
		switch {
		case a.forced != b.forced:
			return a.forced > b.forced
		case a.depth != b.depth && a.forced == 1:
			return a.depth < b.depth
		case a.depth != b.depth:
			return a.depth > b.depth
		}
		return a.order < b.order
	}
	above := func(dn directory.DN) bool {
		if policies.IsSite(dn) {
			return dn.Equal(site)
		}
		t := dn.RDNType()
		_, ok := s.ContainerByDN(dn)
		return ok && (t == "ou" || t == "dc") && machine.IsDescendantOf(dn)
	}
	deepestBlock := -1
	for _, c := range d.Containers {
		if c.BlockInheritance && above(c.DN) {
			deepestBlock = max(deepestBlock, c.DN.Depth())
		}
	}
	var best *rank
	policy := ""
	for _, l := range d.Links {
		depth := l.Container.Depth()
		if policies.IsSite(l.Container) {
			depth = 0 // above every domain
		}
		if l.Disabled || !above(l.Container) || !l.Enforced && depth < deepestBlock {
			continue
		}
		member := func(g directory.DN) bool { return naiveMember(s, machine, g, map[string]bool{}) }
		if slices.ContainsFunc(l.Deny, member) || len(l.Apply) > 0 && !slices.ContainsFunc(l.Apply, member) {
			continue
		}
		r := rank{depth: depth, order: l.Order}
		if l.Enforced {
			r.forced = 1
		}
		if best == nil || better(r, *best) {
			best, policy = &r, l.Policy
		}
	}
	return policy, best != nil
}

// naiveMember looks through every list of members again and again.
func naiveMember(s *directory.Snapshot, who, group directory.DN, seen map[string]bool) bool {
	for g := range s.Groups() {
		if !g.DN.Equal(group) || seen[g.DN.String()] {
			continue
		}
		seen[g.DN.String()] = true
		for _, m := range g.Members {
			if m.Equal(who) || naiveMember(s, who, m, seen) {
				return true
			}
		}
	}
	return false
}

// naiveSite looks at every subnet of every site.
func naiveSite(d policies.Documents, a netip.Addr, known bool) (site directory.DN) {
	best := -1
	for _, s := range d.Sites {
		for _, p := range s.Subnets {
			if known && p.Contains(a) && p.Bits() > best {
				best, site = p.Bits(), s.DN()
			}
		}
	}
	return site
}

// drawSites draws sites and where the nodes of machines are. Subnets of sites may be within each other.
func drawSites(t *rapid.T) ([]policies.Site, Locations) {
	var sites []policies.Site
	used := map[netip.Prefix]bool{}
	for i := range rapid.IntRange(0, 4).Draw(t, "sites") {
		s := policies.Site{Meta: policies.Meta{Name: fmt.Sprintf("s%d", i)}}
		for range rapid.IntRange(1, 3).Draw(t, "subnets") {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "octet")}), rapid.IntRange(24, 32).Draw(t, "bits")).Masked()
			if !used[p] {
				used[p] = true
				s.Subnets = append(s.Subnets, p)
			}
		}
		sites = append(sites, s)
	}
	at := map[directory.UUID]netip.Addr{}
	return sites, func(m directory.UUID) (netip.Addr, bool) {
		if _, ok := at[m]; !ok {
			at[m] = netip.Addr{}
			if rapid.IntRange(0, 4).Draw(t, "located") > 0 {
				at[m] = netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "address")})
			}
		}
		return at[m], at[m].IsValid()
	}
}

func TestResolveAgreesWithNaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, d, where := drawWorld(t)
		agrees(t, s, d, where)
	})
}

// drawWorld draws a directory with links, and where its machines are.
func drawWorld(t *rapid.T) (*directory.Snapshot, policies.Documents, Locations) {
	containers := []directory.DN{directory.MustParseDN("DC=x")}
	for i := range rapid.IntRange(0, 8).Draw(t, "containers") {
		typ := rapid.SampledFrom([]string{"OU", "OU", "OU", "CN", "DC"}).Draw(t, "type")
		parent := rapid.SampledFrom(containers).Draw(t, "parent")
		dn, err := parent.Child(typ, fmt.Sprintf("c%d", i))
		if err != nil {
			t.Fatal(err)
		}
		containers = append(containers, dn)
	}
	var d policies.Documents
	var machines, groups []directory.DN
	for i := range rapid.IntRange(1, 6).Draw(t, "machines") {
		dn, err := rapid.SampledFrom(containers).Draw(t, "home").Child("CN", fmt.Sprintf("m%d", i))
		if err != nil {
			t.Fatal(err)
		}
		machines = append(machines, dn)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "groups") {
		groups = append(groups, directory.MustParseDN(fmt.Sprintf("CN=g%d,DC=x", i)))
	}
	members := make([][]directory.DN, len(groups))
	for i := range groups {
		members[i] = slices.DeleteFunc(slices.Concat(machines, groups), func(directory.DN) bool {
			return rapid.Bool().Draw(t, "member")
		})
	}
	sites, where := drawSites(t)
	d.Sites = sites
	linkable := slices.Clone(containers)
	for _, s := range sites {
		linkable = append(linkable, s.DN())
	}
	for _, c := range linkable {
		if !policies.IsSite(c) && rapid.IntRange(0, 3).Draw(t, "block") == 0 {
			d.Containers = append(d.Containers, policies.Container{DN: c, BlockInheritance: true})
		}
		for order := range rapid.IntRange(0, 3).Draw(t, "links") {
			name := fmt.Sprintf("p%d", len(d.Links))
			l := policies.Link{
				Policy: name, Container: c, Order: order + 1, Enforced: rapid.IntRange(0, 2).Draw(t, "enforced") == 0,
				Disabled: rapid.IntRange(0, 4).Draw(t, "disabled") == 0,
			}
			if len(groups) > 0 && rapid.Bool().Draw(t, "filtered") {
				pick := func(label string) []directory.DN {
					return slices.DeleteFunc(slices.Clone(groups), func(directory.DN) bool { return rapid.IntRange(0, 2).Draw(t, label) > 0 })
				}
				l.Apply, l.Deny = pick("apply"), pick("deny")
			}
			d.Links = append(d.Links, l)
			d.Policies = append(d.Policies, policies.Policy{Meta: policies.Meta{Name: name}})
		}
	}
	d.Links = rapid.Permutation(d.Links).Draw(t, "links")
	return snapshot(t, containers, machines, groups, members), d, where
}

// agrees compares what is resolved with the naive model, for every machine.
func agrees(t *rapid.T, s *directory.Snapshot, d policies.Documents, where Locations) {
	plan := Prepare(d).At(where)
	all := plan.All(s)
	for m := range s.Machines() {
		address, known := where(m.UUID)
		site := naiveSite(d, address, known)
		if got := plan.Siting(m); !got.DN.Equal(site) || len(d.Sites) > 0 && got.Sentence == "" {
			t.Fatalf("%s at %v is at %+v, want %s", m.DN, address, got, site)
		}
		want, found := naiveWinner(s, d, m.DN, site)
		if !found {
			want = policies.NoneName
		}
		got, ok := all.Of(m.UUID)
		if !ok || got.Err != nil || got.Policy != want {
			t.Fatalf("%s: got %+v, want %s", m.DN, got, want)
		}
		one, err := plan.Machine(s, m.UUID)
		if err != nil || render(one) != render(got) {
			t.Fatalf("%s: alone %v %v, with all others %v", m.DN, one, err, got)
		}
		consider(t, got, d, m.DN, site)
	}
}

// consider checks that the entries are complete and consistent.
func consider(t *rapid.T, o *Outcome, d policies.Documents, machine, site directory.DN) {
	n := 0
	for _, l := range d.Links {
		if machine.IsDescendantOf(l.Container) || !site.IsZero() && l.Container.Equal(site) {
			n++
		}
	}
	if n != len(o.Entries) {
		t.Fatalf("%s: %d links above the machine, %d entries", machine, n, len(o.Entries))
	}
	for i, e := range o.Entries {
		applied := e.Reason == Won || e.Reason == Overridden
		if e.Sentence == "" || applied != (e.Precedence == i+1) || applied != (e.AppliedOrder > 0) || (e.Reason == Won) != (e.Precedence == 1) {
			t.Fatalf("%s: entry %d is inconsistent: %+v", machine, i, e)
		}
	}
}

func snapshot(t interface{ Fatalf(string, ...any) }, containers, machines, groups []directory.DN, members [][]directory.DN) *directory.Snapshot {
	b := directory.NewBuilder(containers[0])
	serial := 0
	next := func() directory.UUID {
		serial++
		id, err := directory.ParseUUID(fmt.Sprintf("00000000-0000-4000-8000-%012d", serial))
		if err != nil {
			t.Fatalf("%v", err)
		}
		return id
	}
	for _, dn := range containers {
		b.Add(directory.Container{UUID: next(), DN: dn, Kind: directory.KindOf(dn)})
	}
	for _, dn := range machines {
		b.Add(directory.Machine{UUID: next(), DN: dn, Name: dn.Name()})
	}
	for i, dn := range groups {
		b.Add(directory.Group{UUID: next(), DN: dn, Name: dn.Name(), Members: members[i]})
	}
	s, err := b.Build()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

// fleet is 100,000 machines in 1,000 organizational units of three levels, with groups, blocks and enforced links.
func fleet(tb testing.TB) (*directory.Snapshot, policies.Documents) {
	tb.Helper()
	base := directory.MustParseDN("DC=bank,DC=example")
	containers := []directory.DN{base}
	child := func(parent directory.DN, typ, name string) directory.DN {
		dn, err := parent.Child(typ, name)
		if err != nil {
			tb.Fatal(err)
		}
		return dn
	}
	var leaves []directory.DN
	for i := range 9 {
		top := child(base, "OU", fmt.Sprintf("region%d", i))
		containers = append(containers, top)
		for j := range 10 {
			mid := child(top, "OU", fmt.Sprintf("site%d", j))
			containers = append(containers, mid)
			for k := range 10 {
				leaf := child(mid, "OU", fmt.Sprintf("role%d", k))
				containers, leaves = append(containers, leaf), append(leaves, leaf)
			}
		}
	}
	var machines []directory.DN
	for i := range 100_000 {
		machines = append(machines, child(leaves[i%len(leaves)], "CN", fmt.Sprintf("host%06d", i)))
	}
	groups := []directory.DN{child(base, "CN", "quarantine"), child(base, "CN", "pilot")}
	members := [][]directory.DN{machines[:5000], machines[2500:20000]}
	var d policies.Documents
	link := func(policy string, order int, c directory.DN, change func(l *policies.Link)) {
		l := policies.Link{Policy: policy, Order: order, Container: c}
		change(&l)
		d.Links = append(d.Links, l)
	}
	plain := func(*policies.Link) {}
	for _, p := range []string{"client", "server", "secure", "pilot", "quarantine"} {
		d.Policies = append(d.Policies, policies.Policy{Meta: policies.Meta{Name: p}})
	}
	link("client", 2, base, plain)
	link("quarantine", 1, base, func(l *policies.Link) { l.Enforced, l.Apply = true, groups[:1] })
	for i, c := range containers[1:] {
		switch i % 5 {
		case 0:
			link("server", 1, c, plain)
		case 1:
			link("secure", 1, c, func(l *policies.Link) { l.Deny = groups[1:] })
			link("pilot", 2, c, func(l *policies.Link) { l.Apply = groups[1:] })
		case 2:
			d.Containers = append(d.Containers, policies.Container{DN: c, BlockInheritance: true})
		}
	}
	return snapshot(tb, containers, machines, groups, members), d
}

func BenchmarkAll(b *testing.B) {
	s, d := fleet(b)
	b.ReportAllocs()
	for b.Loop() {
		if a := Prepare(d).All(s); a.Len() != 100_000 {
			b.Fatal(a.Len())
		}
	}
}

func BenchmarkMachine(b *testing.B) {
	s, d := fleet(b)
	plan := Prepare(d)
	m, ok := s.MachineByName("host003000")
	if !ok {
		b.Fatal("no machine")
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := plan.Machine(s, m.UUID); err != nil {
			b.Fatal(err)
		}
	}
}
