package agent

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

func TestReportedNames(t *testing.T) {
	f := spd.Facts{Names: map[string][]netip.Addr{"b.example": {netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")}, "a.example": nil}}
	if got := describeFacts(f).GetNames(); len(got) != 2 || got[0].GetName() != "a.example" || fmt.Sprint(got[1].GetAddresses()) != "[2001:db8::1 192.0.2.1]" {
		t.Errorf("got %v", got)
	}
}
