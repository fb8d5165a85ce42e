package analyze

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

// A filter is shadowed if and only if no packet reaches it: of one that is not, what the heavier filters leave holds a
// packet that Lookup gives to it, and of one that is, no packet that is tried does.
func TestShadowsAreThoseOfLookup(t *testing.T) {
	shadowed := 0
	rapid.Check(t, func(t *rapid.T) {
		set, err := spd.Expand(spdtest.Policy().Draw(t, "policy"), spdtest.Facts().Draw(t, "facts"))
		if err != nil {
			t.Fatal(err)
		}
		filters := set.Filters()
		boxes := make([]box, len(filters))
		for i := range filters {
			boxes[i] = boxOf(&filters[i])
		}
		for i := range filters {
			f := &filters[i]
			if f.Exempt != "" {
				continue
			}
			by, rest := covering(filters, boxes, i)
			if (len(by) > 0) == (len(rest) > 0) {
				t.Fatalf("%s is covered by %d filters, and %d boxes are left", f, len(by), len(rest))
			}
			for _, b := range rest[:min(len(rest), 3)] {
				p := corner(b, rapid.Bool().Draw(t, "last"))
				if m := set.Lookup(f.Direction, p); m.Filter == nil || *m.Filter != *f {
					t.Fatalf("%s is not shadowed, says the analysis, but Lookup gives %+v to %v", f, p, m.Filter)
				}
			}
			if rest == nil {
				shadowed++
				for range 5 {
					p := spdtest.Packet().Draw(t, "packet")
					if rapid.Bool().Draw(t, "inside") {
						p = corner(boxes[i], rapid.Bool().Draw(t, "last"))
					}
					if m := set.Lookup(f.Direction, p); m.Filter != nil && *m.Filter == *f {
						t.Fatalf("%s is shadowed, says the analysis, but Lookup gives it %+v", f, p)
					}
				}
			}
		}
	})
	if shadowed == 0 {
		t.Error("no filter that was drawn is shadowed")
	}
}

// corner is the first or the last packet of a box, of a type of ICMP that no exemption names.
func corner(b box, last bool) spd.Packet {
	var at [dimensions]netip.Addr
	for d := range b {
		if at[d] = b[d].from; last {
			at[d] = b[d].to
		}
	}
	small := func(d int) uint16 { a := at[d].As4(); return uint16(a[2])<<8 | uint16(a[3]) }
	p := spd.Packet{
		Source: at[dimSource], Destination: at[dimDestination], Protocol: uint8(small(dimProtocol)), ICMPType: 250, Opens: true, Interfaces: spd.InterfacesLAN,
	}
	if spd.HasPorts(p.Protocol) {
		p.SourcePort, p.DestinationPort = small(dimSourcePort), small(dimDestinationPort)
	}
	if small(dimClass) == 1 {
		p.Interfaces = spd.InterfacesRemoteAccess
	}
	return p
}
