package spd_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// A name that was never resolved must not mean that nobody is meant: what is to be blocked or protected would pass.
func TestNamesThatWereNeverResolved(t *testing.T) {
	filter := spd.Filter{ID: "f", Source: me, Destination: dns("never.bank.example"), Mirrored: true}
	for _, rule := range []spd.Rule{simple("r", spd.ActionBlock, filter), negotiating("r", filter)} {
		s, err := spd.Expand(policy(rule), ownFacts)
		if !errors.Is(err, spd.ErrUnresolved) || !errors.Is(err, spd.ErrFacts) || len(s.Filters()) != 0 {
			t.Errorf("%s: got %d filters and error %v", rule.Action.Action, len(s.Filters()), err)
		} else if want := `rule "r" is to ` + rule.Action.Action.String() + " what belongs to dns:never.bank.example, which was never resolved"; !strings.HasSuffix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	// Who only looks at a policy may go on without the name, and the facts that it came from stay what they were.
	p := policy(negotiating("r", filter))
	if s, err := spd.Expand(p, ownFacts.Assuming(p)); err != nil || ruleFilters(s) != "" {
		t.Errorf("with the name assumed: %v, %s", err, ruleFilters(s))
	}
	if s, err := spd.Expand(p, spd.Facts{Addresses: ownFacts.Addresses}.Assuming(p)); err != nil || ruleFilters(s) != "" {
		t.Errorf("with the name assumed and no others: %v, %s", err, ruleFilters(s))
	}
	if _, err := spd.Expand(p, ownFacts); err == nil {
		t.Error("the facts learnt what was only assumed")
	}
	if got := ruleFilters(expand(t, policy(simple("r", spd.ActionPermit, filter)), ownFacts)); got != "" {
		t.Errorf("a permission for a name without addresses gives %s", got)
	}
}

func TestHostNames(t *testing.T) {
	p := policy(
		simple("a", spd.ActionPermit, spd.Filter{ID: "a", Source: dns("b.example"), Destination: dns("a.example")}),
		simple("b", spd.ActionPermit, spd.Filter{ID: "b", Source: me, Destination: dns("b.example")}),
	)
	if got := p.HostNames(); !slices.Equal(got, []string{"a.example", "b.example"}) {
		t.Errorf("got %v", got)
	}
}

func TestCheckHostName(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, name := range []string{"a.b", "host.bank.example", "xn--bcher-kva.example", "_ldap._tcp.bank.example", "1.example", long + ".example", strings.Join([]string{long, long, long, strings.Repeat("a", 61)}, ".")} {
		if err := spd.CheckHostName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{
		"", "host", ".", "a.", ".a", "a..b", "-a.b", "a-.b", "A.b", "a b.c", "b\u00fccher.example", "192.0.2.1", "a.1", "a/b.c", long + "a.example",
		strings.Join([]string{long, long, long, strings.Repeat("a", 62)}, "."),
	} {
		if err := spd.CheckHostName(name); err == nil {
			t.Errorf("%q is taken for a DNS name", name)
		}
	}
}
