package nftable

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

func selector(address string, protocol uint8, from, to uint16) sa.Selector {
	a := netip.MustParseAddr(address)
	return sa.Selector{Protocol: protocol, From: a, To: a, PortFrom: from, PortTo: to}
}

func TestDynamicEntries(t *testing.T) {
	one, two := selector("10.0.0.1", 0, 0, 65535), selector("10.0.0.2", 6, 80, 80)
	got, err := DynamicOf([]sa.Selector{one}, []sa.Selector{two})
	if err != nil || len(got) != 1 {
		t.Fatalf("entries are %+v, %v, want one", got, err)
	}
	if got[0].protocol != 6 || got[0].remoteFrom != 80 || got[0].localTo != 65535 || got[0].set().Name != "dyn_port4" {
		t.Errorf("entry is %+v in set %s, want TCP port 80 at the remote side", got[0], got[0].set().Name)
	}
	if got, err := DynamicOf([]sa.Selector{selector("10.0.0.1", 17, 0, 65535)}, []sa.Selector{two}); err != nil || len(got) != 0 {
		t.Errorf("entries of UDP with TCP are %+v, %v, want none", got, err)
	}
	wide := one
	wide.To = netip.MustParseAddr("10.0.0.9")
	if _, err := DynamicOf([]sa.Selector{wide}, []sa.Selector{two}); err == nil {
		t.Error("a range of hosts gave no error")
	}
}

// Counters survive the rules that counted, as long as others count under their names, and no longer.
func TestCountersOfThePastEnd(t *testing.T) {
	w := newWire(t)
	counted := func(name string) steering.Ruleset {
		return steering.Ruleset{Chains: []steering.Chain{{Name: "out", Hook: steering.HookOutput, Rules: []steering.Rule{
			{Comment: "always"}, {Comment: name},
		}}}}
	}
	put := func(name string, first bool) map[string]uint64 {
		t.Helper()
		if err := w.table.Replace(counted(name), first, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := w.out.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(peer, permitted)); err != nil {
			t.Fatal(err)
		}
		return w.table.Counters()
	}
	for i := range 20 {
		got := put(fmt.Sprint("policy ", i), i == 0)
		if len(got) != 2 || got["always"] != uint64(i)+1 || got[fmt.Sprint("policy ", i)] != 1 {
			t.Fatalf("after %d rulesets and packets the counters are %v, want %d under \"always\", 1 of the policy in force and nothing else", i+1, got, i+1)
		}
	}
}
