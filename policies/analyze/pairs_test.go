package analyze_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/policies/analyze"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

// Whatever packet is sent between whichever machines: if they cannot agree, Pairs has said so of their policies.
func TestPairsMissNothing(t *testing.T) {
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		var machines []analyze.Machine
		policies := rapid.SliceOfN(spdtest.Policy(), 1, 3).Draw(t, "policies")
		for i := range rapid.IntRange(2, 6).Draw(t, "machines") {
			k := rapid.IntRange(0, len(policies)-1).Draw(t, "policy")
			f := spdtest.Facts().Draw(t, "facts")
			if len(f.Addresses) == 0 {
				f.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.9")}
			}
			machines = append(machines, analyze.Machine{
				Name: fmt.Sprintf("m%d", i), Policy: fmt.Sprintf("p%d", k), Rules: &policies[k], Facts: f,
				End: analyze.End{Node: true, Identity: fmt.Sprintf("fqdn:m%d.example", i)},
			})
		}
		fleet, err := analyze.Pairs(machines)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			i, k := rapid.IntRange(0, len(machines)-1).Draw(t, "from"), rapid.IntRange(0, len(machines)-1).Draw(t, "to")
			if i == k {
				continue
			}
			p := spdtest.Packet().Draw(t, "packet")
			p.Source = rapid.SampledFrom(machines[i].Facts.Addresses).Draw(t, "source")
			p.Destination = rapid.SampledFrom(machines[k].Facts.Addresses).Draw(t, "destination")
			if p.Loopback || p.Own || p.Source == p.Destination || p.Source.Is4() != p.Destination.Is4() {
				continue
			}
			var ends [2]analyze.End
			for n, m := range []analyze.Machine{machines[i], machines[k]} {
				ends[n] = m.End
				ends[n].Name = m.Name
				if ends[n].Set, err = spd.Expand(*m.Rules, m.Facts); err != nil {
					t.Fatal(err)
				}
			}
			o := analyze.Flow(ends[0], ends[1], p)
			n := o.Negotiation()
			if n == nil || n.Mismatch == nil || p.Protocol != spd.ProtocolTCP && o.Request.Sender.Exempt != "" {
				continue
			}
			found++
			if n.Initiator == o.To { // the answer asked for security
				i, k = k, i
			}
			if !slices.ContainsFunc(fleet.Pairs, func(g analyze.Pair) bool {
				return g.Policies == [2]string{machines[i].Policy, machines[k].Policy} && g.Code == n.Mismatch.Code
			}) {
				t.Fatalf("%s to %s: %+v comes to %s (%s), and Pairs has %+v", o.From, o.To, p, n.Mismatch.Code, n.Mismatch.Sentence, fleet.Pairs)
			}
		}
	})
	if found == 0 {
		t.Error("none of the packets that were drawn shows anything")
	}
}

// fleetOf is a fleet of so many bundles, of some rules each, whose offers often do not fit.
func fleetOf(bundles, rules, machines int) []analyze.Machine {
	suites := proposal.DefaultESP()
	policies := make([]spd.Policy, bundles)
	me, any := spd.Address{Kind: spd.AddressMe}, spd.Address{Kind: spd.AddressAny}
	for i := range policies {
		p := spd.Policy{Name: fmt.Sprintf("policy %d", i), KeyExchange: spd.KeyExchange{Offers: proposal.DefaultIKE()}}
		for r := range rules {
			id := fmt.Sprintf("rule %d", r)
			f := spd.Filter{ID: id + "/f", Source: me, Destination: any, Protocol: spd.ProtocolTCP, DestinationPort: spd.PortRange{From: uint16(1000 + 10*r), To: uint16(1000 + 10*r + i%7)}, Mirrored: true}
			if r%3 == 0 {
				f.Destination = spd.Address{Kind: spd.AddressPrefix, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r), 0, 0}), 16)}
			}
			action := spd.FilterAction{Name: "a", Action: spd.ActionPermit}
			var auth []spd.Auth
			if r%2 == 0 {
				action = spd.FilterAction{Name: "a", Action: spd.ActionNegotiate, Offers: suites[i%3 : i%3+1]}
				auth = []spd.Auth{{Method: spd.AuthCertificate}}
			}
			p.Rules = append(p.Rules, spd.Rule{ID: id, Name: id, Filters: []spd.Filter{f}, Action: action, Auth: auth})
		}
		p.Rules = append(p.Rules, spd.Rule{
			ID: "all", Name: "all", Filters: []spd.Filter{{ID: "all/f", Source: me, Destination: any, Mirrored: true}},
			Action: spd.FilterAction{Name: "n", Action: spd.ActionNegotiate, Offers: suites[i%3 : i%3+1]}, Auth: []spd.Auth{{Method: spd.AuthCertificate}},
		})
		policies[i] = p
	}
	out := make([]analyze.Machine, machines)
	for i := range out {
		p := &policies[i%bundles]
		out[i] = analyze.Machine{
			Name: fmt.Sprintf("m%d", i), Policy: p.Name, Rules: p, End: analyze.End{Node: true, Identity: fmt.Sprintf("fqdn:m%d", i)},
			Facts: spd.Facts{Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i % 4), byte(i >> 10), byte(i >> 2)})}},
		}
	}
	return out
}

func TestPairsAreGroupedByPolicies(t *testing.T) {
	fleet, err := analyze.Pairs(fleetOf(3, 2, 12))
	if err != nil {
		t.Fatal(err)
	}
	if fleet.Bundles != 3 || len(fleet.Pairs) == 0 || len(fleet.Incomplete) > 0 {
		t.Fatalf("got %d bundles, %d groups, incomplete %v", fleet.Bundles, len(fleet.Pairs), fleet.Incomplete)
	}
	for _, p := range fleet.Pairs {
		if p.Policies[0] == p.Policies[1] || p.Code != analyze.CodeESPOffers || len(p.Mismatch.Initiator) != 1 || p.Machines[0] == "" || p.Pairs == 0 || p.Pairs > 16 {
			t.Errorf("got %v %v %s %d pairs: %s", p.Policies, p.Rules, p.Code, p.Pairs, p.Sentence)
		}
	}
}

func BenchmarkPairs(b *testing.B) {
	for _, size := range []struct{ bundles, rules, machines int }{{100, 5, 100}, {100, 20, 100}, {100, 20, 100_000}} {
		machines := fleetOf(size.bundles, size.rules, size.machines)
		b.Run(fmt.Sprintf("bundles=%d/rules=%d/machines=%d", size.bundles, size.rules, size.machines), func(b *testing.B) {
			for b.Loop() {
				if _, err := analyze.Pairs(machines); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
