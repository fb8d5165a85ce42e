package agent

import (
	"net/netip"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

func TestReportedFactsAreBounded(t *testing.T) {
	f := spd.Facts{DNSServers: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, Controllers: []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:7443")}}
	for i := range 1000 {
		f.Addresses = append(f.Addresses, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	r := describeFacts(f)
	if len(r.GetAddresses()) != maxFacts || r.GetAddresses()[1] != "10.0.0.1" || r.GetDnsServers()[0] != "192.0.2.53" || r.GetControllers()[0] != "[2001:db8::1]:7443" {
		t.Errorf("got %d addresses, %v", len(r.GetAddresses()), r)
	}
}
