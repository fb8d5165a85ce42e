package nftable

import (
	"net/netip"
	"testing"

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
