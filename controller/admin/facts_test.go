package admin

import (
	"fmt"
	"testing"

	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

func TestFactsOfAReport(t *testing.T) {
	f := factsOf(&nodev1.Facts{
		Addresses: []string{"192.0.2.1", "nonsense", "2001:db8::1"}, DnsServers: []string{"192.0.2.53"}, Controllers: []string{"192.0.2.9:7443", "192.0.2.9"},
		Names: []*nodev1.ResolvedName{{Name: "web.partner.example", Addresses: []string{"198.51.100.1", ""}}, {Name: "gone.example"}},
	})
	got := fmt.Sprintf("%v %v %v %v %d", f.Addresses, f.DNSServers, f.Controllers, f.Names["web.partner.example"], len(f.Names))
	if want := "[192.0.2.1 2001:db8::1] [192.0.2.53] [192.0.2.9:7443] [198.51.100.1] 2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if f := factsOf(nil); f.Names != nil || len(f.Addresses) != 0 {
		t.Errorf("no report gives %+v", f)
	}
}
