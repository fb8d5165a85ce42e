package plan

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	"github.com/bailiwick-net/bailiwick/policies/resolve"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

// host is a machine of the model.
type host struct {
	in       string // DN of its container
	address  string
	disabled bool
}

// model is a world that can be edited: what a real one is made of, without its indexes.
type model struct {
	containers []string // DNs, parents before children
	hosts      map[string]host
	groups     map[string][]string // names of members
	docs       policies.Documents
}

func (m model) clone() model {
	out := model{slices.Clone(m.containers), maps.Clone(m.hosts), map[string][]string{}, m.docs.Merge(policies.Documents{})}
	for g, members := range m.groups {
		out.groups[g] = slices.Clone(members)
	}
	return out
}

func (m model) world(t failer) World {
	base := directory.MustParseDN("dc=x")
	b := directory.NewBuilder(base)
	b.Add(directory.Container{UUID: uuid("dc=x"), DN: base, Kind: directory.Domain})
	for _, c := range m.containers {
		dn := directory.MustParseDN(c)
		b.Add(directory.Container{UUID: uuid("c " + dn.Name()), DN: dn, Kind: directory.KindOf(dn)})
	}
	at := map[string]directory.DN{}
	for name, h := range m.hosts {
		dn := directory.MustParseDN("cn=" + name + "," + h.in)
		machine := directory.Machine{UUID: uuid(name), DN: dn, Name: name, DNSName: name + ".x", Disabled: h.disabled}
		if h.address != "" {
			machine.Addresses = []netip.Addr{netip.MustParseAddr(h.address)}
		}
		at[name] = dn
		b.Add(machine)
	}
	for name, members := range m.groups {
		g := directory.Group{UUID: uuid("group " + name), DN: directory.MustParseDN("cn=" + name + ",dc=x"), Name: name}
		for _, member := range members {
			if dn, ok := at[member]; ok {
				g.Members = append(g.Members, dn)
			}
		}
		b.Add(g)
	}
	s, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return World{Documents: m.docs, Directory: s}
}

// library are policies that differ in what they ask for, of whom, and for which traffic.
const library = `
apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: mail
filters:
  - {source: me, destination: any, protocol: tcp, destinationPort: 25}
  - {source: any, destination: me, protocol: tcp, destinationPort: 25}
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: lab
filters:
  - {source: me, destination: 10.1.0.0/16}
  - {source: me, destination: "dns:m2.x", protocol: udp, destinationPort: 53}
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: drop
action: block
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: mailers
rules:
  - {name: mail, filterList: mail, filterAction: Require Security}
  - {name: lab, filterList: lab, filterAction: drop}
defaultResponse: {active: true}
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: club
rules:
  - name: members
    filterList: mail
    filterAction: Require Security
    peerGroups: ["cn=g0,dc=x"]
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: silent
rules:
  - {name: mail, filterList: mail, filterAction: drop}
exemptions: {kerberos: true, breakGlassTCP: [22]}
`

func pick[T any](t *rapid.T, label string, list []T) T { return rapid.SampledFrom(list).Draw(t, label) }

func drawModel(t *rapid.T) model {
	d, err := policies.Decode("library", []byte(library))
	if err != nil {
		t.Fatal(err)
	}
	m := model{hosts: map[string]host{}, groups: map[string][]string{"g0": nil, "g1": nil}, docs: predefined.Documents().Merge(d)}
	for i := range rapid.IntRange(1, 4).Draw(t, "containers") {
		parent := pick(t, "parent", append([]string{"dc=x"}, m.containers...))
		m.containers = append(m.containers, fmt.Sprintf("%s=c%d,%s", pick(t, "type", []string{"ou", "ou", "ou", "cn"}), i, parent))
	}
	for i := range rapid.IntRange(2, 6).Draw(t, "hosts") {
		m.hosts[fmt.Sprintf("m%d", i)] = host{in: pick(t, "home", append([]string{"dc=x"}, m.containers...)), address: pick(t, "address", addresses(i))}
	}
	for g := range 2 {
		m.groups[fmt.Sprintf("g%d", g)] = members(t)
	}
	m.docs.Links = []policies.Link{{Policy: pick(t, "domain policy", m.docs.Policies).Name, Container: directory.MustParseDN("dc=x"), Order: 1000}}
	for range rapid.IntRange(0, 8).Draw(t, "edits") {
		m.edit(t)
	}
	return m
}

// addresses that a host may have; no two hosts share one.
func addresses(i int) []string {
	return []string{"", fmt.Sprintf("10.1.0.%d", i+1), fmt.Sprintf("10.9.0.%d", i+1)}
}

func members(t *rapid.T) []string {
	return slices.DeleteFunc([]string{"m0", "m1", "m2", "m3", "m4", "m5"}, func(string) bool { return rapid.Bool().Draw(t, "out") })
}

func (m *model) host(t *rapid.T) string { return pick(t, "host", slices.Sorted(maps.Keys(m.hosts))) }

// edit changes one thing, of the documents or of the directory.
func (m *model) edit(t *rapid.T) {
	scopes := []string{"dc=x"}
	for _, c := range m.containers {
		if c[:2] == "ou" {
			scopes = append(scopes, c)
		}
	}
	link := func() int { return rapid.IntRange(0, len(m.docs.Links)-1).Draw(t, "link") }
	m.docs.Links, m.docs.Containers = slices.Clone(m.docs.Links), slices.Clone(m.docs.Containers)
	switch what := pick(t, "edit", []string{"link", "link", "unlink", "enforce", "disable", "filter", "block", "action", "rename", "move", "move container", "address", "account", "group", "remove"}); what {
	case "link":
		l := policies.Link{
			Meta: policies.Meta{Name: fmt.Sprintf("l%d", len(m.docs.Links))}, Policy: pick(t, "policy", m.docs.Policies).Name,
			Container: directory.MustParseDN(pick(t, "container", scopes)), Order: len(m.docs.Links) + 1, Enforced: rapid.Bool().Draw(t, "enforced"),
		}
		m.docs.Links = append(m.docs.Links, l)
	case "unlink", "enforce", "disable", "filter":
		if len(m.docs.Links) == 0 {
			return
		}
		l := &m.docs.Links[link()]
		switch what {
		case "unlink":
			l.Container = directory.MustParseDN("ou=nowhere,dc=x")
		case "enforce":
			l.Enforced = !l.Enforced
		case "disable":
			l.Disabled = !l.Disabled
		case "filter":
			l.Apply, l.Deny = nil, nil
			groups := []directory.DN{directory.MustParseDN(pick(t, "group", []string{"cn=g0,dc=x", "cn=g1,dc=x"}))}
			if rapid.Bool().Draw(t, "deny") {
				l.Deny = groups
			} else {
				l.Apply = groups
			}
		}
	case "block":
		dn := directory.MustParseDN(pick(t, "container", scopes))
		if i := slices.IndexFunc(m.docs.Containers, func(c policies.Container) bool { return c.DN.Equal(dn) }); i >= 0 {
			m.docs.Containers[i].BlockInheritance = !m.docs.Containers[i].BlockInheritance
		} else {
			m.docs.Containers = append(m.docs.Containers, policies.Container{DN: dn, BlockInheritance: true})
		}
	case "action":
		m.docs.FilterActions = slices.Clone(m.docs.FilterActions)
		for i, a := range m.docs.FilterActions {
			if a.Name == "drop" {
				m.docs.FilterActions[i].Action = pick(t, "action", []spd.Action{spd.ActionBlock, spd.ActionPermit})
			}
		}
	case "rename":
		m.docs.Policies = slices.Clone(m.docs.Policies)
		p := &m.docs.Policies[rapid.IntRange(0, len(m.docs.Policies)-1).Draw(t, "policy")]
		for i := range m.docs.Links {
			if m.docs.Links[i].Policy == p.Name {
				m.docs.Links[i].Policy = p.Name + "'"
			}
		}
		p.Name += "'"
	case "move":
		name := m.host(t)
		h := m.hosts[name]
		h.in = pick(t, "to", append([]string{"dc=x"}, m.containers...))
		m.hosts[name] = h
	case "move container":
		m.moveContainer(t)
	case "address":
		name := m.host(t)
		h := m.hosts[name]
		h.address = pick(t, "address", addresses(int(name[1]-'0')))
		m.hosts[name] = h
	case "account":
		name := m.host(t)
		h := m.hosts[name]
		h.disabled = !h.disabled
		m.hosts[name] = h
	case "group":
		g := pick(t, "group", []string{"g0", "g1"})
		m.groups[g] = members(t)
	case "remove":
		if len(m.hosts) > 2 {
			delete(m.hosts, m.host(t))
		}
	}
}

// moveContainer uses the directory's own Move, which is what plans of moves are made of.
func (m *model) moveContainer(t *rapid.T) {
	from, to := pick(t, "from", m.containers), pick(t, "to", append([]string{"dc=x"}, m.containers...))
	moved, err := m.world(t).Directory.Move(directory.MustParseDN(from), directory.MustParseDN(to))
	if err != nil {
		return // into itself, or to where it is
	}
	m.containers = nil
	for c := range moved.Containers() {
		if !c.DN.Equal(moved.Base()) {
			m.containers = append(m.containers, c.DN.String())
		}
	}
	for machine := range moved.Machines() {
		h := m.hosts[machine.Name]
		h.in = machine.DN.Parent().String()
		m.hosts[machine.Name] = h
	}
}

// naive is what a machine has, resolved alone.
func naive(t *rapid.T, w World, u directory.UUID) (a struct {
	policy, container string
	digest            compile.Digest
}) {
	if _, ok := w.Directory.Machine(u); !ok {
		return a
	}
	o, err := resolve.Prepare(w.Documents).Machine(w.Directory, u)
	if err != nil || o.Err != nil {
		t.Fatal(err, o)
	}
	b, err := compile.Compile(w.Documents, o.Policy)
	if err != nil {
		t.Fatal(err)
	}
	a.policy, a.digest = o.Policy, b.Digest
	if winner, ok := o.Winner(); ok {
		a.container = winner.Container.String()
	}
	return a
}

func everyMachine(worlds ...World) []directory.UUID {
	seen := map[directory.UUID]bool{}
	for _, w := range worlds {
		for m := range w.Directory.Machines() {
			seen[m.UUID] = true
		}
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b directory.UUID) int { return bytes.Compare(a[:], b[:]) })
}

// TestPlanIsTheDifferenceOfTwoWorlds: whatever is edited, the plan lists exactly the machines that resolve otherwise, and
// counts exactly the pairs of them between which some traffic is treated otherwise when each is judged alone; and once the
// change is made there is nothing left to plan.
func TestPlanIsTheDifferenceOfTwoWorlds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		next := m.clone()
		for range rapid.IntRange(1, 3).Draw(t, "steps") {
			next.edit(t)
		}
		before, after := m.world(t), next.world(t)
		p, err := Compare(before, after, DNS())
		if err != nil {
			t.Fatal(err)
		}
		planned := map[directory.UUID][2]Assignment{}
		for _, c := range p.Machines {
			for _, machine := range c.Machines {
				if _, twice := planned[machine.UUID]; twice {
					t.Fatalf("%s is planned twice", machine.Name)
				}
				planned[machine.UUID] = [2]Assignment{c.From, c.To}
			}
		}
		for _, u := range everyMachine(before, after) {
			was, is := naive(t, before, u), naive(t, after, u)
			got, changed := planned[u]
			if changed != (was != is) {
				t.Fatalf("%s: planned %t, was %v, is %v", u, changed, was, is)
			}
			if changed && (got[0].Policy != was.policy || got[0].Digest != was.digest || got[1].Policy != is.policy || got[1].Container != is.container || got[1].Digest != is.digest) {
				t.Fatalf("%s: planned %v, was %v, is %v", u, got, was, is)
			}
		}
		if got, want := pairsOf(p), bruteForce(t, before, after); got != want {
			t.Fatalf("%d pairs are planned to change, and %d do:\n%s", got, want, text(p))
		}
		again, err := Compare(before, after, DNS())
		if err != nil || again.Digest() != p.Digest() {
			t.Fatalf("the same worlds give another plan: %v", err)
		}
		if done, err := Compare(after, next.world(t), DNS()); err != nil || !done.Empty() {
			t.Fatalf("something is left to do: %v\n%s", err, text(done))
		}
	})
}

func pairsOf(p Plan) int {
	n := 0
	for _, c := range p.Pairs {
		n += c.Pairs
	}
	return n
}

// bruteForce judges every pair of machines by itself.
func bruteForce(t *rapid.T, before, after World) int {
	worlds := [2]*state{}
	for i, w := range []World{before, after} {
		var err error
		if worlds[i], err = evaluate(w); err != nil {
			t.Fatal(err)
		}
	}
	court := newCourt(survey(worlds[0], worlds[1]))
	side := func(w int, u directory.UUID, unknown place) *end {
		m, ok := worlds[w].world.Directory.Machine(u)
		if !ok || m.Disabled {
			return nil
		}
		e, err := court.end(worlds[w], worlds[w].assignment(u).Digest, m, court.terrain.groupsOf(worlds[w].world.Directory, m.DN), m.Name, unknown)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	n := 0
	machines := everyMachine(before, after)
	for _, a := range machines {
		for _, b := range machines {
			if a == b {
				continue
			}
			from := [2]*end{side(0, a, court.landscape.client), side(1, a, court.landscape.client)}
			to := [2]*end{side(0, b, court.landscape.server), side(1, b, court.landscape.server)}
			if from[0] == nil || from[1] == nil || to[0] == nil || to[1] == nil {
				continue
			}
			var all []spd.Policy
			for _, e := range []*end{from[0], from[1], to[0], to[1]} {
				all = append(all, e.Set.Policy())
			}
			differs := false
			for _, kind := range distinguish(all) {
				for family := range 2 {
					was, ok := court.judge(from[0], to[0], kind, family)
					is, still := court.judge(from[1], to[1], kind, family)
					differs = differs || ok && still && was.outcome != is.outcome
				}
			}
			if differs {
				n++
			}
		}
	}
	return n
}

// TestKindsStandForTheirTraffic: whatever two policies say, a packet fares as the one that stands for its kind.
func TestKindsStandForTheirTraffic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := spdtest.Policy().Draw(t, "client"), spdtest.Policy().Draw(t, "server")
		kinds := distinguish([]spd.Policy{a, b})
		end := func(p spd.Policy, label string, at place) *end {
			f := spdtest.Facts().Draw(t, label)
			f.Addresses, f.RemoteAddresses, f.RemoteInterfaces, f.Controllers = at.list(), nil, nil, nil // no plan knows these of a machine
			set, err := spd.Expand(p, f)
			if err != nil {
				t.Fatal(err)
			}
			e := stranger(label, at)
			e.Set, e.Node = set, true
			return e
		}
		address := func(label string) netip.Addr {
			return netip.MustParseAddr(pick(t, label, []string{"192.0.2.1", "192.0.2.77", "198.51.100.9", "10.0.0.1"}))
		}
		from, to := end(a, "client facts", place{address("client address")}), end(b, "server facts", place{address("server address")})
		if from.addresses == to.addresses {
			return
		}
		p := spdtest.Packet().Draw(t, "packet")
		p = spd.Packet{Protocol: p.Protocol, SourcePort: ephemeral, DestinationPort: p.DestinationPort}
		if !spd.HasPorts(p.Protocol) {
			p.SourcePort, p.DestinationPort = 0, 0
		}
		if p.Protocol == spd.ProtocolUDP && slices.Contains([]uint16{67, 68, 500, 546, 547, 4500}, p.DestinationPort) || p.Protocol == spd.ProtocolESP || p.Protocol == 0 ||
			spd.HasPorts(p.Protocol) && p.DestinationPort == 0 || p.Protocol == spd.ProtocolICMPv6 {
			return // always exempt, or never on the wire
		}
		c := newCourt(terrain{})
		for _, kind := range kinds {
			if !stands(kind, p, kinds) {
				continue
			}
			want, _ := c.judge(from, to, kind, 0)
			kind.packet.SourcePort, kind.packet.DestinationPort, kind.packet.Protocol = p.SourcePort, p.DestinationPort, p.Protocol
			if kind.sourcePort == 0 {
				kind.packet.SourcePort = clientPortOf(kinds, p)
			}
			got, _ := c.judge(from, to, kind, 0)
			if got.outcome != want.outcome {
				t.Fatalf("%v is %v (%s), and %v that stands for it %v (%s)", p, got.outcome, got.why, kind, want.outcome, want.why)
			}
			return
		}
		t.Fatalf("no kind of %v stands for %v", kinds, p)
	})
}

// clientPortOf is the port that the kinds of a protocol take for a client that chooses none.
func clientPortOf(kinds []traffic, p spd.Packet) uint16 {
	for _, k := range kinds {
		if k.packet.Protocol == p.Protocol && k.sourcePort == 0 {
			return k.packet.SourcePort
		}
	}
	return p.SourcePort
}

// stands tells whether a kind is the one of a packet from an ephemeral port.
func stands(k traffic, p spd.Packet, all []traffic) bool {
	switch {
	case k.sourcePort != 0:
		return false
	case k.other && k.what.Protocol == 0:
		return !slices.ContainsFunc(all, func(o traffic) bool { return o.what.Protocol == p.Protocol })
	case k.what.Protocol != p.Protocol:
		return false
	case k.other:
		return !slices.ContainsFunc(all, func(o traffic) bool {
			return o.what.Protocol == p.Protocol && !o.other && o.sourcePort == 0 && o.what.Ports.Contains(p.DestinationPort)
		})
	}
	return k.what.Ports.Contains(p.DestinationPort)
}
