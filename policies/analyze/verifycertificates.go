package analyze

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/policies"
)

// FindingCertificate is a certificate that has ended, or soon will although it ought to have been replaced.
const FindingCertificate policies.Code = "certificate"

// A Holder is what kind of subject holds a certificate.
type Holder uint8

// The holders. Only administrators get another certificate by hand.
const (
	HolderMachine Holder = iota
	HolderController
	HolderAdministrator
)

// String names the holders, several of them.
func (h Holder) String() string {
	switch h {
	case HolderMachine:
		return "machines"
	case HolderController:
		return "controllers"
	case HolderAdministrator:
		return "administrators"
	}
	return fmt.Sprintf("Holder(%d)", uint8(h))
}

// Certificate is the latest certificate of a holder.
type Certificate struct {
	Holder Holder
	// Whose is the name of the machine or controller, or the administrator's account.
	Whose               string
	NotBefore, NotAfter time.Time
}

// certificateLate is which part of its life is left of a certificate that ought to have been replaced: nodes do so at two
// thirds, and try again.
const certificateLate = 5

// mostNamed is how many holders a finding names.
const mostNamed = 5

// certificates reports those that are not replaced. What concerns thousands is one finding.
func (v *verifier) certificates() {
	var ended, late [HolderAdministrator + 1][]string
	for _, c := range v.Certificates {
		left := c.NotAfter.Sub(v.Now)
		whose := fmt.Sprintf("%s (%s)", c.Whose, c.NotAfter.UTC().Format("2006-01-02"))
		switch {
		case v.Now.IsZero() || c.NotAfter.IsZero() || left > c.NotAfter.Sub(c.NotBefore)/certificateLate:
		case left <= 0:
			ended[c.Holder] = append(ended[c.Holder], whose)
		default:
			late[c.Holder] = append(late[c.Holder], whose)
		}
	}
	// An administrator's that ended is no trouble of the fleet: many are made for one task.
	const node, controller = "See whether their nodes run and have a session: bailiwick get nodes.", "Their logs say why they get no other; revoke that of a controller that is gone: bailiwick cert list --profile server."
	for _, group := range []struct {
		holder     Holder
		whose      []string
		what, hint string
	}{
		{HolderMachine, ended[HolderMachine], "ended, so that nobody lets these in", node + " Beyond the grace of renewals they need a new token."},
		{HolderMachine, late[HolderMachine], "end soon and were not renewed", node},
		{HolderController, ended[HolderController], "ended, so that nodes refuse these", controller},
		{HolderController, late[HolderController], "end soon and were not renewed", controller},
		{HolderAdministrator, late[HolderAdministrator], "end soon", "Make another: bailiwick administrator create ACCOUNT."},
	} {
		if n := len(group.whose); n > 0 {
			slices.Sort(group.whose)
			named := strings.Join(group.whose[:min(n, mostNamed)], ", ")
			if n > mostNamed {
				named += fmt.Sprintf(" and %d others", n-mostNamed)
			}
			v.findings = append(v.findings, policies.Finding{
				Severity: policies.Warning, Code: FindingCertificate, Object: "certificates",
				Message: fmt.Sprintf("%d of the latest certificates of %v %s: %s", n, group.holder, group.what, named), Hint: group.hint,
			})
		}
	}
}
