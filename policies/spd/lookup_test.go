package spd_test

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

// answer is what the naive model finds: no Set, no expansion, no sorting.
type answer struct {
	found        bool
	key          []int // greater is heavier; the last ones break ties
	rule, filter string
	action       spd.Action
}

// naive looks at every filter of every rule in both orientations and keeps the best, straight from the policy with its
// symbols. It knows no exemptions.
func naive(p spd.Policy, f spd.Facts, d spd.Direction, k spd.Packet) answer {
	var best answer
	for _, r := range p.Rules {
		if r.Interfaces == spd.InterfacesLAN && k.Interfaces == spd.InterfacesRemoteAccess ||
			r.Interfaces == spd.InterfacesRemoteAccess && k.Interfaces != spd.InterfacesRemoteAccess {
			continue
		}
		for _, filter := range r.Filters {
			for _, reversed := range []bool{false, true} {
				if !naiveDirection(r, filter, d, reversed) {
					continue
				}
				packet := k
				if reversed {
					packet = k.Reverse()
				}
				a, ok := naiveFilter(r, filter, f, packet)
				if ok && (!best.found || naiveBetter(a, best)) {
					best = a
				}
			}
		}
	}
	return best
}

func naiveDirection(r spd.Rule, f spd.Filter, d spd.Direction, reversed bool) bool {
	if r.Tunnel.IsValid() {
		return reversed == (d == spd.In)
	}
	if reversed && !f.Mirrored {
		return false
	}
	fromMe, toMe := f.Source.Kind == spd.AddressMe, f.Destination.Kind == spd.AddressMe
	if fromMe == toMe {
		return true
	}
	return fromMe == ((d == spd.Out) != reversed)
}

func naiveFilter(r spd.Rule, filter spd.Filter, f spd.Facts, k spd.Packet) (answer, bool) {
	source, ok1 := naiveAddress(filter.Source, f, k.Source)
	destination, ok2 := naiveAddress(filter.Destination, f, k.Destination)
	if !ok1 || !ok2 || filter.Protocol != 0 && filter.Protocol != k.Protocol {
		return answer{}, false
	}
	protocol, named, open := 0, 0, 0
	if filter.Protocol != 0 {
		protocol = 1
	}
	for _, x := range []struct {
		r    spd.PortRange
		port uint16
	}{{filter.SourcePort, k.SourcePort}, {filter.DestinationPort, k.DestinationPort}} {
		if x.r == (spd.PortRange{}) {
			open += 65536
			continue
		}
		if x.port < x.r.From || x.port > x.r.To {
			return answer{}, false
		}
		named++
		open += int(x.r.To) - int(x.r.From) + 1
	}
	action := map[spd.Action]int{spd.ActionBlock: 3, spd.ActionPermit: 2, spd.ActionNegotiate: 1}[r.Action.Action]
	return answer{
		found: true, rule: r.ID, filter: filter.ID, action: r.Action.Action,
		key: []int{source + destination, max(source, destination), protocol, named, -open, action},
	}, true
}

func naiveBetter(a, b answer) bool {
	return cmp.Or(slices.Compare(a.key, b.key), strings.Compare(b.rule, a.rule), strings.Compare(b.filter, a.filter)) > 0
}

// naiveAddress returns the prefix length that an address matches with.
func naiveAddress(a spd.Address, f spd.Facts, k netip.Addr) (int, bool) {
	list := map[spd.AddressKind][]netip.Addr{
		spd.AddressMe: f.Addresses, spd.AddressDNSServers: f.DNSServers, spd.AddressDHCPServer: f.DHCPServers,
		spd.AddressDefaultGateway: f.DefaultGateways,
	}
	switch a.Kind {
	case spd.AddressAny:
		return 0, true
	case spd.AddressName:
		return k.BitLen(), slices.Contains(f.Names[a.Name], k)
	case spd.AddressPrefix:
		return a.Prefix.Bits(), a.Prefix.Contains(k)
	case spd.AddressRange:
		in := k.Is4() == a.From.Is4() && !k.Less(a.From) && !a.To.Less(k)
		return k.BitLen() - naiveWidth(a.From, a.To), in
	default:
		return k.BitLen(), slices.Contains(list[a.Kind], k)
	}
}

// naiveWidth finds how many bits count from..to, by the highest octet pair that differs after subtraction in 32-bit
// digits.
func naiveWidth(from, to netip.Addr) int {
	a, b := from.As16(), to.As16()
	borrow, width := uint32(0), 0
	for i := 3; i >= 0; i-- {
		digit := func(o [16]byte) uint32 {
			return uint32(o[4*i])<<24 | uint32(o[4*i+1])<<16 | uint32(o[4*i+2])<<8 | uint32(o[4*i+3])
		}
		var d uint32
		d, borrow = bits.Sub32(digit(b), digit(a), borrow)
		if d != 0 {
			width = 32*(3-i) + bits.Len32(d)
		}
	}
	return width
}

func TestLookupAgreesWithNaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, f := spdtest.Policy().Draw(t, "policy"), spdtest.Facts().Draw(t, "facts")
		set, err := spd.Expand(p, f)
		if err != nil {
			t.Fatalf("expand: %v", err)
		}
		for range 20 {
			k := spdtest.Packet().Draw(t, "packet")
			d := rapid.SampledFrom([]spd.Direction{spd.Out, spd.In}).Draw(t, "direction")
			got := set.Lookup(d, k)
			if got.Exempt != "" {
				if got.Action != spd.ActionPermit || got.Rule != nil {
					t.Fatalf("exempt packet %+v is not simply permitted: %+v", k, got)
				}
				continue
			}
			want := naive(p, f, d, k)
			if !want.found {
				if got.Filter != nil || got.Action != spd.ActionPermit {
					t.Fatalf("%s %+v: got %v, want no filter and permit", d, k, got.Filter)
				}
				continue
			}
			if got.Filter == nil || got.Rule == nil {
				t.Fatalf("%s %+v: got no filter, want %s %s", d, k, want.rule, want.filter)
			}
			if got.Filter.RuleID != want.rule || got.Filter.FilterID != want.filter || got.Action != want.action || got.Rule.ID != want.rule {
				t.Fatalf("%s %+v: got %v, want %s %s", d, k, got.Filter, want.rule, want.filter)
			}
		}
	})
}

func TestOrderOfInsertionHasNoEffect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, f := spdtest.Policy().Draw(t, "policy"), spdtest.Facts().Draw(t, "facts")
		want, err := spd.Expand(p, f)
		if err != nil {
			t.Fatalf("expand: %v", err)
		}
		p.Rules = rapid.Permutation(p.Rules).Draw(t, "rules")
		for i := range p.Rules {
			p.Rules[i].Filters = rapid.Permutation(p.Rules[i].Filters).Draw(t, "filters")
		}
		f.Addresses = rapid.Permutation(f.Addresses).Draw(t, "addresses")
		got, err := spd.Expand(p, f)
		if err != nil {
			t.Fatalf("expand: %v", err)
		}
		if d := gocmp.Diff(want.Filters(), got.Filters(), cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Fatalf("the order of the rules changed the filters:\n%s", d)
		}
	})
}

func TestMirroredPolicyIsSymmetric(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, f := spdtest.Policy().Draw(t, "policy"), spdtest.Facts().Draw(t, "facts")
		for i := range p.Rules {
			for j := range p.Rules[i].Filters {
				p.Rules[i].Filters[j].Mirrored = true
			}
		}
		set, err := spd.Expand(p, f)
		if err != nil {
			t.Fatalf("expand: %v", err)
		}
		k := spdtest.Packet().Draw(t, "packet")
		out, in := set.Lookup(spd.Out, k), set.Lookup(spd.In, k.Reverse())
		if out.Exempt != "" || in.Exempt != "" {
			return // exemptions differ by direction on purpose
		}
		if out.Action != in.Action || out.Rule != in.Rule {
			t.Fatalf("packet %+v leaves by %v, its answer comes in by %v", k, out.Filter, in.Filter)
		}
		if out.Action == spd.ActionNegotiate {
			local1, remote1 := out.Selectors(k)
			local2, remote2 := in.Selectors(k.Reverse())
			if out.Filter.FilterID == in.Filter.FilterID && out.Filter.Tunnel &&
				(!slices.Equal(local1, local2) || !slices.Equal(remote1, remote2)) {
				t.Fatalf("selectors differ by direction: %v %v, %v %v", local1, remote1, local2, remote2)
			}
		}
	})
}

func TestNarrowerFilterIsNotLighter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set, err := spd.Expand(spdtest.Policy().Draw(t, "policy"), spdtest.Facts().Draw(t, "facts"))
		if err != nil {
			t.Fatalf("expand: %v", err)
		}
		filters := set.Filters()
		for i, a := range filters {
			for _, b := range filters[i+1:] {
				// b stands behind a. It must not describe strictly fewer packets, unless the weights without the action
				// are the same, as for two ranges of about the same width.
				if a.Exempt == "" && within(b, a) && !within(a, b) && b.Weight>>2 != a.Weight>>2 {
					t.Fatalf("the narrower filter comes later:\n%s\n%s", &a, &b)
				}
			}
		}
		if !slices.IsSortedFunc(filters, func(a, b spd.Specific) int { return cmp.Compare(b.Weight, a.Weight) }) {
			t.Fatal("the filters are not in the order of their weight")
		}
	})
}

func within(a, b spd.Specific) bool {
	return a.Direction == b.Direction && b.Source.Contains(a.Source.From) && b.Source.Contains(a.Source.To) &&
		b.Destination.Contains(a.Destination.From) && b.Destination.Contains(a.Destination.To) &&
		(b.Protocol == 0 || a.Protocol == b.Protocol) && portsWithin(a.SourcePort, b.SourcePort) &&
		portsWithin(a.DestinationPort, b.DestinationPort)
}

func portsWithin(a, b spd.PortRange) bool {
	from, to := a.Bounds()
	low, high := b.Bounds()
	return low <= from && to <= high
}
