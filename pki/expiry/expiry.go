// Package expiry tells when CAs and certificates end, as figures: it owns their names, and which certificates they are about.
//
// Invariant: there is one figure for each holder and kind of certificate, the latest end of those that count, so that who
// renews is no alarm; what is revoked or over is counted, and has no end.
//
// It leaves to others: where the certificates are known (controller, cmd/bailiwick), and who is alarmed (pki/RUNBOOK.md).
package expiry

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Good is the status of a certificate that counts.
const Good = "good"

// Certificate is a certificate of a CA or of anybody else.
type Certificate struct {
	// Profile is its kind, as in the issuing journal, and Whose its holder.
	Profile, Whose string
	// Status is Good, or why it does not count.
	Status   string
	NotAfter time.Time
}

// series is what a figure is about.
type series struct{ profile, other string }

func (s series) compare(o series) int {
	return cmp.Or(cmp.Compare(s.profile, o.profile), cmp.Compare(s.other, o.other))
}

// What the journal calls CAs.
const (
	root    = "root-ca"
	issuing = "issuing-ca"
)

// Figures gathers certificates. The zero value has none.
type Figures struct {
	all []Certificate
}

// Add adds a certificate of the journal. Those of CAs are left out: AddAuthority tells of the ones that are trusted, whichever
// journal they are in.
func (f *Figures) Add(c Certificate) {
	if c.Profile != root && c.Profile != issuing {
		f.all = append(f.all, c)
	}
}

// AddAuthority adds a CA and its root, by their subjects. A status other than "prepared", "active" and "superseded" is one in
// which they are not trusted.
func (f *Figures) AddAuthority(status, rootSubject string, rootEnds time.Time, issuingSubject string, issuingEnds time.Time) {
	if slices.Contains([]string{"prepared", "active", "superseded"}, status) {
		status = Good
	}
	f.all = append(f.all, Certificate{issuing, issuingSubject, status, issuingEnds})
	// One root may be above several CAs, and is trusted for as long as one of them is.
	above := Certificate{root, rootSubject, status, rootEnds}
	i := slices.IndexFunc(f.all, func(c Certificate) bool { return c.Profile == root && c.Whose == rootSubject })
	switch {
	case i < 0:
		f.all = append(f.all, above)
	case f.all[i].Status != Good:
		f.all[i] = above
	}
}

// Append appends the figures in the text format of Prometheus, version 0.0.4, in a fixed order.
func (f *Figures) Append(dst []byte) []byte {
	ends, counts := map[series]int64{}, map[series]int{}
	for _, c := range f.all {
		counts[series{c.Profile, c.Status}]++
		if c.Status == Good {
			s := series{c.Profile, c.Whose}
			ends[s] = max(ends[s], c.NotAfter.Unix())
		}
	}
	dst = append(dst, "# HELP bailiwick_certificate_not_after_timestamp_seconds When the latest good certificate ends, as a Unix time.\n"+
		"# TYPE bailiwick_certificate_not_after_timestamp_seconds gauge\n"...)
	for _, s := range slices.SortedFunc(maps.Keys(ends), series.compare) {
		dst = fmt.Appendf(dst, "bailiwick_certificate_not_after_timestamp_seconds{profile=%s,whose=%s} %d\n", quote(s.profile), quote(s.other), ends[s])
	}
	dst = append(dst, "# HELP bailiwick_certificates How many certificates there are, by kind and status.\n# TYPE bailiwick_certificates gauge\n"...)
	for _, s := range slices.SortedFunc(maps.Keys(counts), series.compare) {
		dst = fmt.Appendf(dst, "bailiwick_certificates{profile=%s,status=%s} %d\n", quote(s.profile), quote(s.other), counts[s])
	}
	return dst
}

// Whose names the holder: the machine, or the end of the identity URI.
func Whose(machine, subject string) string {
	if machine != "" {
		return machine
	}
	return subject[strings.LastIndexByte(subject, '/')+1:]
}

// quote writes a value of a label: the format knows three escapes, and no others.
func quote(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value) + `"`
}
