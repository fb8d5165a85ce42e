package analyze

import (
	"strings"
	"testing"
	"time"
)

// The list of a root that is kept off line is told of before it ends, in time for somebody to go there, and when it says less than
// it should.
func TestVerifyTellsOfRootLists(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	life := func(life, left time.Duration) RootList {
		return RootList{Root: "CN=root", Number: 1, ThisUpdate: now.Add(left - life), NextUpdate: now.Add(left)}
	}
	lacking := life(180*day, 100*day)
	lacking.Lacking = []string{"a1", "b2"}
	for name, test := range map[string]struct {
		list RootList
		want string
	}{
		"none, and nobody looks for it":   {RootList{Root: "CN=root"}, ""},
		"none, where it is looked for":    {RootList{Root: "CN=root", Named: true}, "warning there is no revocation list of it"},
		"half a year, with time":          {life(180*day, 31*day), ""},
		"half a year, a month left":       {life(180*day, 30*day), "warning its revocation list ends on 2026-12-21"},
		"a week, with time":               {life(7*day, 2*day), ""},
		"a week, a day left":              {life(7*day, day), "warning its revocation list ends on 2026-11-22"},
		"over":                            {life(180*day, 0), "error its revocation list ended on 2026-11-21"},
		"a CA that is revoked is missing": {lacking, "warning its revocation list does not say that CAs are revoked which are: a1, b2"},
	} {
		var got []string
		for _, f := range Verify(Situation{RootLists: []RootList{test.list}, Now: now}) {
			if f.Code == FindingRootList {
				got = append(got, f.Severity.String()+" "+f.Message)
			}
			if f.Code == FindingRootList && f.Object != `root "CN=root"` {
				t.Errorf("%s: it is about %s", name, f.Object)
			}
		}
		if text := strings.Join(got, "\n"); len(got) > 1 || !strings.HasPrefix(text, test.want) || test.want == "" && text != "" {
			t.Errorf("%s: found %q, want %q", name, text, test.want)
		}
	}
	for _, f := range Verify(Situation{RootLists: []RootList{life(day, 0)}}) {
		if f.Code == FindingRootList {
			t.Errorf("without a clock it is found that %s", f.Message)
		}
	}
}
