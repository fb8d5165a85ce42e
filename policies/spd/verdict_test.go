package spd_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

func columns() ([]string, []spd.Match) {
	negotiate := func(inpass bool, mode spd.FallbackMode) spd.Match {
		return spd.Match{Action: spd.ActionNegotiate, Rule: &spd.Rule{Action: spd.FilterAction{
			Action: spd.ActionNegotiate, Inpass: inpass, Fallback: spd.Fallback{Mode: mode},
		}}}
	}
	return []string{"permit", "block", "negotiate", "+wait", "+discover", "+inpass", "+inpass+wait", "+inpass+discover"}, []spd.Match{
		{Action: spd.ActionPermit}, {Action: spd.ActionBlock}, negotiate(false, spd.FallbackNone), negotiate(false, spd.FallbackWait),
		negotiate(false, spd.FallbackDiscover), negotiate(true, spd.FallbackNone), negotiate(true, spd.FallbackWait), negotiate(true, spd.FallbackDiscover),
	}
}

func table(verdict func(m spd.Match, s spd.State) spd.Verdict) string {
	names, matches := columns()
	var b strings.Builder
	row := func(first string, cells []string) {
		fmt.Fprintf(&b, "%-12s", first)
		for _, c := range cells {
			fmt.Fprintf(&b, "| %-16s", c)
		}
		b.WriteByte('\n')
	}
	row("state", names)
	for _, s := range spd.States() {
		var cells []string
		for _, m := range matches {
			cells = append(cells, verdict(m, s).String())
		}
		row(s.String(), cells)
	}
	return trimLines(b.String())
}

func trimLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return strings.Join(lines, "\n")
}

func TestVerdictTables(t *testing.T) {
	for _, test := range []struct {
		name    string
		verdict func(m spd.Match, s spd.State) spd.Verdict
		want    string
	}{
		{"outbound", spd.Outbound, `
state       | permit          | block           | negotiate       | +wait           | +discover       | +inpass         | +inpass+wait    | +inpass+discover
none        | pass            | drop            | hold, acquire   | hold, acquire   | pass, acquire   | hold, acquire   | hold, acquire   | pass, acquire
negotiating | pass            | drop            | hold            | hold            | pass            | hold            | hold            | pass
silent      | pass            | drop            | drop, acquire   | pass, soften    | pass, soften    | drop, acquire   | pass, soften    | pass, soften
failed      | pass            | drop            | drop            | drop            | drop            | drop            | drop            | drop
soft        | pass            | drop            | hold, acquire   | pass            | pass            | hold, acquire   | pass            | pass
live        | pass            | drop            | protect         | protect         | protect         | protect         | protect         | protect
secured     | pass            | drop            | hold, acquire   | hold, acquire   | hold, acquire   | hold, acquire   | hold, acquire   | hold, acquire`},
		{"inbound, clear", func(m spd.Match, s spd.State) spd.Verdict { return spd.Inbound(m, s, false) }, `
state       | permit          | block           | negotiate       | +wait           | +discover       | +inpass         | +inpass+wait    | +inpass+discover
none        | pass            | drop            | drop            | drop            | drop            | pass            | pass            | pass
negotiating | pass            | drop            | drop            | drop            | pass            | pass            | pass            | pass
silent      | pass            | drop            | drop            | drop            | pass            | pass            | pass            | pass
failed      | pass            | drop            | drop            | drop            | drop            | pass            | pass            | pass
soft        | pass            | drop            | drop            | pass            | pass            | pass            | pass            | pass
live        | pass            | drop            | drop            | drop            | drop            | pass            | pass            | drop
secured     | pass            | drop            | drop            | drop            | drop            | pass            | pass            | drop`},
		{"inbound, protected", func(m spd.Match, s spd.State) spd.Verdict { return spd.Inbound(m, s, true) }, `
state       | permit          | block           | negotiate       | +wait           | +discover       | +inpass         | +inpass+wait    | +inpass+discover
none        | pass            | drop            | pass            | pass            | pass            | pass            | pass            | pass
negotiating | pass            | drop            | pass            | pass            | pass            | pass            | pass            | pass
silent      | pass            | drop            | pass            | pass            | pass            | pass            | pass            | pass
failed      | pass            | drop            | pass            | pass            | pass            | pass            | pass            | pass
soft        | pass            | drop            | pass            | pass            | pass            | pass            | pass            | pass
live        | pass            | drop            | pass            | pass            | pass            | pass            | pass            | pass
secured     | pass            | drop            | pass            | pass            | pass            | pass            | pass            | pass`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Logf("\n%s", table(test.verdict))
			if got, want := squeeze(table(test.verdict)), squeeze(trimLines(test.want)); got != want {
				t.Errorf("want\n%s", trimLines(test.want))
			}
		})
	}
}

// squeeze makes the width of the columns not matter.
func squeeze(s string) string {
	var lines []string
	for _, l := range strings.Split(s, "\n") {
		lines = append(lines, strings.Join(strings.Fields(l), " "))
	}
	return strings.Join(lines, "\n")
}

func TestGroupAddressesAreNeverNegotiated(t *testing.T) {
	_, matches := columns()
	for _, m := range matches {
		m.Group = true
		for _, s := range spd.States() {
			negotiates := m.Action == spd.ActionNegotiate
			if out := spd.Outbound(m, s); negotiates && out != (spd.Verdict{}) {
				t.Errorf("outbound, state %s: got %s, want drop", s, out)
			}
			if in := spd.Inbound(m, s, false); negotiates && in != (spd.Verdict{}) {
				t.Errorf("inbound, state %s: got %s, want drop", s, in)
			}
			if out := spd.Outbound(m, s); m.Action == spd.ActionPermit && out.Fate != spd.Pass {
				t.Errorf("a permitted group address, state %s: got %s", s, out)
			}
		}
	}
}

func TestUnknownValuesDrop(t *testing.T) {
	_, matches := columns()
	for _, m := range matches[2:] {
		if v := spd.Outbound(m, 0); v != (spd.Verdict{}) {
			t.Errorf("an unknown state: got %s", v)
		}
	}
	if v := spd.Outbound(spd.Match{}, spd.StateLive); v != (spd.Verdict{}) {
		t.Errorf("an unknown action: got %s", v)
	}
	if v := spd.Outbound(spd.Match{Action: spd.ActionNegotiate}, spd.StateNone); v != (spd.Verdict{}) {
		t.Errorf("negotiate without a rule: got %s", v)
	}
}
