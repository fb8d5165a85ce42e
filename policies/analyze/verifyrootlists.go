package analyze

import (
	"fmt"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/policies"
)

// FindingRootList is the revocation list of a root that is kept off line, which ended, soon will, or does not say what it should.
const FindingRootList policies.Code = "root-list"

// RootList is the revocation list of a root that is kept off line.
type RootList struct {
	Root string // its subject, RFC 4514
	// Named says that certificates say where it is.
	Named bool
	// Number is 0 while there is none.
	Number                 uint64
	ThisUpdate, NextUpdate time.Time
	// Lacking are the serial numbers of CAs that are revoked and not on it.
	Lacking []string
}

// rootListSoon is when the end of a list begins to matter, or when a fifth of its life is left if that is less: somebody has to go
// where the root is.
const rootListSoon = 30 * 24 * time.Hour

// rootLists reports what somebody has to sign where a root is.
func (v *verifier) rootLists() {
	const hint = "Sign one where the root is, with bailiwick ca crl sign, and hand it in with bailiwick ca crl import."
	for _, l := range v.RootLists {
		find := func(severity policies.Severity, format string, args ...any) {
			v.findings = append(v.findings, policies.Finding{
				Severity: severity, Code: FindingRootList, Object: fmt.Sprintf("root %q", l.Root), Message: fmt.Sprintf(format, args...), Hint: hint,
			})
		}
		left := l.NextUpdate.Sub(v.Now)
		switch {
		case v.Now.IsZero():
			continue
		case l.Number == 0:
			if l.Named {
				find(policies.Warning, "there is no revocation list of it, and certificates of its CAs name one: who checks the whole path refuses them")
			}
			continue
		case left <= 0:
			find(policies.Error, "its revocation list ended on %s: who checks the whole path refuses everybody", l.NextUpdate.UTC().Format("2006-01-02"))
		case left <= min(rootListSoon, l.NextUpdate.Sub(l.ThisUpdate)/certificateLate):
			find(policies.Warning, "its revocation list ends on %s", l.NextUpdate.UTC().Format("2006-01-02"))
		}
		if len(l.Lacking) > 0 {
			find(policies.Warning, "its revocation list does not say that CAs are revoked which are: %s", strings.Join(l.Lacking, ", "))
		}
	}
}
