package analyze

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/policies"
)

// FindingCertificate is a certificate of a machine that has ended, or soon will although it ought to have been renewed.
const FindingCertificate policies.Code = "certificate"

// Certificate is the latest certificate of a machine.
type Certificate struct {
	Machine             string
	NotBefore, NotAfter time.Time
}

// certificateLate is which part of its life is left of a certificate that ought to have been renewed: nodes do so at two
// thirds, and try again.
const certificateLate = 5

// mostNamed is how many machines a finding names.
const mostNamed = 5

// certificates reports machines that do not renew. What concerns thousands is one finding.
func (v *verifier) certificates() {
	var ended, late []string
	for _, c := range v.Certificates {
		left := c.NotAfter.Sub(v.Now)
		switch {
		case v.Now.IsZero() || c.NotAfter.IsZero() || left > c.NotAfter.Sub(c.NotBefore)/certificateLate:
		case left <= 0:
			ended = append(ended, fmt.Sprintf("%s (%s)", c.Machine, c.NotAfter.UTC().Format("2006-01-02")))
		default:
			late = append(late, fmt.Sprintf("%s (%s)", c.Machine, c.NotAfter.UTC().Format("2006-01-02")))
		}
	}
	for _, group := range []struct {
		machines   []string
		what, hint string
	}{
		{ended, "ended, so that nobody lets these in", "See whether their nodes run and have a session: bailiwick get nodes. Beyond the grace of renewals they need a new token."},
		{late, "end soon and were not renewed", "See whether their nodes run and have a session: bailiwick get nodes."},
	} {
		if n := len(group.machines); n > 0 {
			slices.Sort(group.machines)
			named := strings.Join(group.machines[:min(n, mostNamed)], ", ")
			if n > mostNamed {
				named += fmt.Sprintf(" and %d others", n-mostNamed)
			}
			v.findings = append(v.findings, policies.Finding{
				Severity: policies.Warning, Code: FindingCertificate, Object: "certificates",
				Message: fmt.Sprintf("%d of the latest certificates of machines %s: %s", n, group.what, named), Hint: group.hint,
			})
		}
	}
}
