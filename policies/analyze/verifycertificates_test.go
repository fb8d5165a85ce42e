package analyze_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/policies/analyze"
)

// Machines that renew are no news; those that do not are one finding for each kind of trouble, however many.
func TestVerifyTellsOfCertificatesThatAreNotRenewed(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	const life = 30 * 24 * time.Hour
	certificate := func(machine string, left time.Duration) analyze.Certificate {
		return analyze.Certificate{Whose: machine, NotBefore: now.Add(left - life), NotAfter: now.Add(left)}
	}
	of := func(holder analyze.Holder, c analyze.Certificate) analyze.Certificate {
		c.Holder = holder
		return c
	}
	controller, administrator := analyze.HolderController, analyze.HolderAdministrator
	var many []analyze.Certificate
	for i := range 9 {
		many = append(many, certificate(fmt.Sprintf("pc%d", i), -time.Hour))
	}
	for name, test := range map[string]struct {
		certificates []analyze.Certificate
		authorities  []analyze.Authority
		want         []string
	}{
		"all is well": {[]analyze.Certificate{certificate("a", life/2), certificate("b", life/3)}, []analyze.Authority{{Subject: "CN=Fleet", NotAfter: now.Add(60 * 24 * time.Hour)}}, nil},
		"one is late": {[]analyze.Certificate{certificate("a", life/6)}, nil, []string{"warning certificate: 1 of the latest certificates of machines end soon and were not renewed: a (2026-07-06)"}},
		"many ended": {many, nil, []string{"warning certificate: 9 of the latest certificates of machines ended, so that nobody lets these in: " +
			"pc0 (2026-07-01), pc1 (2026-07-01), pc2 (2026-07-01), pc3 (2026-07-01), pc4 (2026-07-01) and 4 others"}},
		"not of machines": {[]analyze.Certificate{
			of(controller, certificate("c1", -time.Hour)), of(controller, certificate("c2", life/6)), of(controller, certificate("c3", life/2)),
			of(administrator, certificate("anna", -time.Hour)), of(administrator, certificate("ben", life/6)), of(administrator, certificate("eve", life/2)),
		}, nil, []string{
			"warning certificate: 1 of the latest certificates of administrators end soon: ben (2026-07-06)",
			"warning certificate: 1 of the latest certificates of controllers end soon and were not renewed: c2 (2026-07-06)",
			"warning certificate: 1 of the latest certificates of controllers ended, so that nodes refuse these: c1 (2026-07-01)",
		}},
	} {
		var got []string
		for _, f := range analyze.Verify(analyze.Situation{Now: now, Certificates: test.certificates, Authorities: test.authorities}) {
			got = append(got, fmt.Sprintf("%s %s: %s", f.Severity, f.Code, f.Message))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: found\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
		}
	}
}
