package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Service is a server that machines cannot do without: the controller, the directory, DNS.
type Service struct {
	Name    string // "directory"
	Traffic policies.Traffic
	// Symbol is the kind of address that policies call it by, AddressAny for none.
	Symbol spd.AddressKind
	// Host is its DNS name, if it has one; a machine of the fleet by that name is judged with its own policy.
	Host string
	// Address is where it is; zero for an address that no filter names.
	Address netip.Addr
	// Exempt tells that packets to it pass the policy of every machine, so that only its own can be in the way.
	Exempt bool
}

// DNS is the name service of every machine.
func DNS() []Service {
	return []Service{
		{Name: "DNS", Traffic: policies.Traffic{Protocol: spd.ProtocolUDP, Ports: spd.PortRange{From: 53, To: 53}}, Symbol: spd.AddressDNSServers},
		{Name: "DNS", Traffic: policies.Traffic{Protocol: spd.ProtocolTCP, Ports: spd.PortRange{From: 53, To: 53}}, Symbol: spd.AddressDNSServers},
	}
}

// String prints "directory tcp/636".
func (s Service) String() string { return s.Name + " " + s.Traffic.String() }

// ServiceChange is machines of one bundle for which a service is another thing to reach than before.
type ServiceChange struct {
	Service       string
	Bundles       Bundles
	Machines      int
	Witness       string
	Before, After policies.Outcome
	Why           string
}

// CutOff tells whether the service was reachable and is not any more.
func (s ServiceChange) CutOff() bool { return s.After == policies.OutcomeBlocked }

// String prints one line.
func (s ServiceChange) String() string {
	return fmt.Sprintf("%s of %s (as %s) to %s: %s => %s", count(s.Machines, "machine"), s.Bundles, s.Witness, s.Service, s.Before, s.After)
}

// services judges the way of every cohort to every service.
func (c *comparison) services(list []Service) []ServiceChange {
	var out []ServiceChange
	for _, s := range list {
		var hosts [2]*end
		for w, st := range []*state{c.before, c.after} {
			hosts[w] = c.host(st, s)
		}
		self, _ := c.after.hostOf(s)
		index := map[ServiceChange]int{}
		for i, group := range c.cohorts {
			clients := [2]ends{c.sides[0][i], c.sides[1][i]}
			if clients[0].client == nil || clients[1].client == nil || hosts[0] == nil || hosts[1] == nil {
				continue
			}
			if group.size == 1 && group.first.after.UUID == self.UUID {
				continue // it reaches itself without the network
			}
			was, ok := c.reachAny(clients[0].client, hosts[0], s, c.before, group.from)
			is, still := c.reachAny(clients[1].client, hosts[1], s, c.after, group.to)
			if !ok || !still || was.outcome == is.outcome {
				continue
			}
			change := ServiceChange{Service: s.String(), Bundles: c.bundles(group), Before: was.outcome, After: is.outcome, Why: is.why}
			at, found := index[change]
			if !found {
				at = len(out)
				index[change] = at
				change.Witness = group.first.name()
				out = append(out, change)
			}
			out[at].Machines += group.size
		}
	}
	slices.SortStableFunc(out, func(a, b ServiceChange) int {
		return cmp.Or(-compareFlags(a.CutOff(), b.CutOff()), cmp.Compare(b.Machines, a.Machines))
	})
	return out
}

// host is the other side: a machine of the fleet with its policy, or a stranger that protects nothing. It is nil for a
// machine that cannot serve, which the change does not alter.
func (c *comparison) host(s *state, service Service) *end {
	if m, ok := s.hostOf(service); ok {
		m = s.located(m)
		groups := c.court.terrain.groupsOf(s.world.Directory, m.DN)
		e, err := c.court.end(s, s.assignment(m.UUID).Digest, m, groups, m.Name, c.court.landscape.server)
		if err != nil || m.Disabled {
			return nil
		}
		return e
	}
	l := c.court.landscape
	p, symbolic := map[spd.AddressKind]place{
		spd.AddressDNSServers: l.dns, spd.AddressDHCPServer: l.dhcp, spd.AddressDefaultGateway: l.gateway,
	}[service.Symbol]
	if !symbolic {
		p = l.server
	}
	if service.Address.IsValid() {
		p = home([]netip.Addr{service.Address}, p)
	}
	return stranger("the "+service.Name+" server", p)
}

// hostOf finds the machine of the directory that serves.
func (s *state) hostOf(service Service) (directory.Machine, bool) {
	if service.Host != "" {
		if m, ok := s.world.Directory.MachineByName(service.Host); ok {
			return m, true
		}
	}
	if service.Address.IsValid() {
		for m := range s.world.Directory.Machines() {
			if slices.Contains(m.Addresses, service.Address) {
				return m, true
			}
		}
	}
	return directory.Machine{}, false
}

// reachAny judges the way to a service at the address that stands for it and, where that is lost, at those by which the
// policy of the client names it: a rule that permits port 53 of 192.0.2.53 says that a DNS server is there.
func (c *comparison) reachAny(client, host *end, s Service, at *state, policy compile.Digest) (verdict, bool) {
	v, ok := c.reach(client, host, s)
	if !ok || v.outcome != policies.OutcomeBlocked || s.Symbol == spd.AddressAny || s.Address.IsValid() || s.Host != "" {
		return v, ok
	}
	for _, address := range named(at.policies[policy], s) {
		there := s
		there.Address = address
		if server := c.host(at, there); server != nil {
			if w, ok := c.reach(client, server, s); ok && w.outcome != policies.OutcomeBlocked {
				return w, true
			}
		}
	}
	return v, true
}

// named are the single addresses whose port of a service, and no other, filters name as destination.
func named(p spd.Policy, s Service) []netip.Addr {
	var out []netip.Addr
	for _, r := range p.Rules {
		for _, f := range r.Filters {
			to, ok := f.Destination.Range()
			if ok && to.Single() && f.Protocol == s.Traffic.Protocol && f.DestinationPort == s.Traffic.Ports && !slices.Contains(out, to.From) {
				out = append(out, to.From)
			}
		}
	}
	return out
}

func (c *comparison) reach(client, host *end, s Service) (verdict, bool) {
	if s.Exempt {
		client = stranger(client.Name, client.addresses)
	}
	t := traffic{what: s.Traffic, packet: spd.Packet{Protocol: s.Traffic.Protocol, SourcePort: ephemeral, DestinationPort: s.Traffic.Ports.From}}
	for family := range 2 {
		if v, ok := c.court.judge(client, host, t, family); ok {
			return v, true
		}
	}
	return verdict{}, false
}

// Refusal is a machine that the controller and its peers no longer accept.
type Refusal struct {
	Machine directory.Machine
	// Reason is "disabled" or "removed".
	Reason string
}

// refusals lists the machines that leave the directory or whose account is disabled.
func refusals(before, after World) []Refusal {
	if before.Directory == after.Directory {
		return nil
	}
	var out []Refusal
	for m := range before.Directory.Machines() {
		switch now, still := after.Directory.Machine(m.UUID); {
		case !still:
			out = append(out, Refusal{m, "removed"})
		case now.Disabled && !m.Disabled:
			out = append(out, Refusal{now, "disabled"})
		}
	}
	slices.SortFunc(out, func(a, b Refusal) int {
		return cmp.Or(strings.Compare(a.Machine.Name, b.Machine.Name), a.Machine.DN.Compare(b.Machine.DN))
	})
	return out
}
