package spd_test

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

// TestClassByAddress: who knows no interface finds what Lookup finds for the interface that has the address, among all
// filters and among those that name addresses in place of classes.
func TestClassByAddress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, f := spdtest.Policy().Draw(t, "policy"), spdtest.Facts().Draw(t, "facts")
		set, err := spd.Expand(p, f)
		if err != nil {
			t.Fatal(err)
		}
		filters := set.ByAddress()
		for range 20 {
			k := spdtest.Packet().Draw(t, "packet")
			d, own := spd.Out, k.Source
			if rapid.Bool().Draw(t, "inbound") {
				d, own = spd.In, k.Destination
			}
			got := set.LookupByAddress(d, k)
			limited := slices.ContainsFunc(p.Rules, func(r spd.Rule) bool { return r.Interfaces != spd.InterfacesAll })
			if limited && !slices.Contains(f.Addresses, own) {
				forwarded(t, set, d, k, got)
				continue
			}
			if limited {
				k.Interfaces = spd.InterfacesLAN
				if slices.Contains(f.RemoteAddresses, own) {
					k.Interfaces = spd.InterfacesRemoteAccess
				}
			}
			want := set.Lookup(d, k)
			if got.Filter != want.Filter || got.Action != want.Action {
				t.Fatalf("%s %+v: by address %v, want %v", d, k, got.Filter, want.Filter)
			}
			i := slices.IndexFunc(filters, func(s spd.Specific) bool { s.Interfaces = spd.InterfacesAll; return s.Matches(d, k) })
			switch {
			case !limited:
			case i < 0 && want.Filter != nil:
				t.Fatalf("%s %+v: no filter of ByAddress, want %v", d, k, want.Filter)
			case i >= 0 && (want.Filter == nil || filters[i].RuleID != want.Filter.RuleID || filters[i].FilterID != want.Filter.FilterID):
				t.Fatalf("%s %+v: ByAddress has %v, want %v", d, k, &filters[i], want.Filter)
			}
		}
	})
}

// forwarded: what is about none of the own addresses is permitted only if both classes permit it.
func forwarded(t *rapid.T, set spd.Set, d spd.Direction, k spd.Packet, got spd.Match) {
	k.Interfaces = spd.InterfacesLAN
	lan := set.Lookup(d, k)
	k.Interfaces = spd.InterfacesRemoteAccess
	remote := set.Lookup(d, k)
	if got.Action == spd.ActionPermit && (lan.Action != spd.ActionPermit || remote.Action != spd.ActionPermit) {
		t.Fatalf("%s %+v is permitted, by LAN %s, by remote access %s", d, k, lan.Action, remote.Action)
	}
	if got.Action == spd.ActionNegotiate && got.Filter != lan.Filter && got.Filter != remote.Filter {
		t.Fatalf("%s %+v is negotiated by neither class", d, k)
	}
}

func TestInterfaceNames(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		means         bool
	}{
		{"ppp*", "ppp0", true}, {"ppp*", "ppp", true}, {"ppp*", "pp0", false}, {"ppp*", "xppp0", false},
		{"eth1", "eth1", true}, {"eth1", "eth10", false}, {"*", "eth0", true},
	} {
		if got := spd.NamesInterface(tt.pattern, tt.name); got != tt.means {
			t.Errorf("%s means %s: %t, want %t", tt.pattern, tt.name, got, tt.means)
		}
	}
	for _, bad := range []string{"", "a b", "pp*0", "eth/0", "a:b", "..", "sixteen-letters-x", "ethé", "\x00", `a"b`} {
		if err := spd.CheckInterface(bad); err == nil {
			t.Errorf("%q passes for the name of an interface", bad)
		}
		if _, err := spd.Expand(spd.Policy{}, spd.Facts{RemoteInterfaces: []string{bad}}); err == nil {
			t.Errorf("facts with interface %q are accepted", bad)
		}
	}
	for _, good := range []string{"ppp0", "ppp*", "*", "wg-office", "fifteen-letters*"} {
		if err := spd.CheckInterface(good); err != nil {
			t.Error(err)
		}
	}
	stranger := spd.Facts{RemoteAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	if _, err := spd.Expand(spd.Policy{}, stranger); err == nil {
		t.Error("a remote access address that is none of the own ones is accepted")
	}
}
