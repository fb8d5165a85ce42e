package spd_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// The order of filters: each row of the table is less specific than the one above it, whatever order it is written in.
func TestOrderTable(t *testing.T) {
	type row struct {
		source, destination spd.Address
		protocol            uint8
		from, to            spd.PortRange // source and destination ports
		action              spd.Action
	}
	one, few, many := spd.PortRange{From: 80, To: 80}, spd.PortRange{From: 80, To: 89}, spd.PortRange{From: 1, To: 1024}
	every, host, net24, net16 := spd.PortRange{}, prefix("10.0.0.7/32"), prefix("10.0.0.0/24"), prefix("10.0.0.0/16")
	ten := spd.Address{Kind: spd.AddressRange, From: addr("10.0.0.1"), To: addr("10.0.0.10")}
	rows := []row{
		{me, host, 6, one, one, spd.ActionPermit},
		{me, host, 6, every, one, spd.ActionPermit},
		{me, host, 6, every, few, spd.ActionPermit},
		{me, host, 6, every, many, spd.ActionPermit},
		{me, host, 6, every, every, spd.ActionPermit},
		{me, host, 0, every, every, spd.ActionBlock},
		{me, host, 0, every, every, spd.ActionPermit},
		{me, host, 0, every, every, spd.ActionNegotiate},
		{me, ten, 0, every, every, spd.ActionPermit},
		{me, net24, 6, one, one, spd.ActionPermit},
		{me, net24, 0, every, every, spd.ActionPermit},
		{me, net16, 0, every, every, spd.ActionPermit},
		{net24, net24, 0, every, every, spd.ActionPermit}, // the same sum, 48, but no side is a host
		{me, anyA, 6, every, one, spd.ActionPermit},
		{me, anyA, 1, every, every, spd.ActionPermit},
		{me, anyA, 0, every, every, spd.ActionBlock},
		{me, anyA, 0, every, every, spd.ActionNegotiate},
		{net16, anyA, 0, every, every, spd.ActionPermit},
		{anyA, anyA, 6, every, one, spd.ActionPermit},
		{anyA, anyA, 0, every, every, spd.ActionPermit},
	}
	want := make([]string, len(rows))
	var rules []spd.Rule
	for i := range rows {
		// The names count last, and count against the order here.
		r, id := rows[i], fmt.Sprintf("r%02d", len(rows)-i)
		f := spd.Filter{ID: id, Source: r.source, Destination: r.destination, Protocol: r.protocol, SourcePort: r.from, DestinationPort: r.to}
		rule := simple(id, r.action, f)
		if r.action == spd.ActionNegotiate {
			rule = negotiating(id, f)
		}
		rules = append(rules, rule)
		want[i] = fmt.Sprintf("%-18s %-22s %-4d %-6s %-8s %s", r.source, r.destination, r.protocol, r.from, r.to, r.action)
	}
	facts := ownFacts
	facts.Addresses = facts.Addresses[:1] // one family: rows do not repeat
	var got, weighed []string
	last := spd.Weight(1 << 62)
	for _, f := range expand(t, policy(rules...), facts).Filters() {
		if f.Exempt != "" || f.Direction != spd.Out || f.Source.From.Is6() {
			continue
		}
		if f.Weight > last {
			t.Errorf("%s is heavier than what stands above it", f.Weight)
		}
		last = f.Weight
		var n int
		if _, err := fmt.Sscanf(f.RuleID, "r%d", &n); err != nil {
			t.Fatal(err)
		}
		got = append(got, want[len(rows)-n])
		weighed = append(weighed, fmt.Sprintf("%-72s %s", want[len(rows)-n], f.Weight))
	}
	t.Logf("most specific first\n%-18s %-22s %-4s %-6s %-8s %-9s weight\n%s", "source", "destination", "prot", "from", "to", "action", strings.Join(weighed, "\n"))
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("want\n%s", w)
	}
}
