package predefined

import (
	"testing"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

func TestDocumentsHaveNoFinding(t *testing.T) {
	for _, f := range policies.Validate(Documents()) {
		t.Error(f)
	}
}

func TestShapes(t *testing.T) {
	d := Documents()
	for _, test := range []struct {
		name     string
		rules    int
		inpass   bool
		fallback spd.FallbackMode
	}{
		{Client, 0, false, spd.FallbackNone},
		{Server, 2, true, spd.FallbackWait},
		{SecureServer, 2, true, spd.FallbackNone},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := d.Effective(test.name)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Rules) != test.rules || !p.DefaultResponse.Active || !p.Exemptions.Multicast || !p.Exemptions.Broadcast {
				t.Fatalf("got %d rules, default response %t, exemptions %+v", len(p.Rules), p.DefaultResponse.Active, p.Exemptions)
			}
			var offers []string
			for _, o := range p.DefaultResponse.Offers {
				offers = append(offers, o.String())
			}
			if len(offers) != 3 || offers[0] != "ESP[AES-GCM-256]" || offers[1] != "ESP[AES-GCM-128]" || offers[2] != "ESP[AES-256,SHA256]" {
				t.Errorf("got offers %v", offers)
			}
			if test.rules == 0 {
				return
			}
			main, icmp := p.Rules[0].Action, p.Rules[1].Action
			if main.Action != spd.ActionNegotiate || main.Inpass != test.inpass || main.Fallback.Mode != test.fallback || main.PFS {
				t.Errorf("the main rule has action %+v", main)
			}
			if icmp.Action != spd.ActionPermit || len(p.Rules[1].Filters) != 2 {
				t.Errorf("the ICMP rule has action %+v and %d filters", icmp, len(p.Rules[1].Filters))
			}
		})
	}
}
