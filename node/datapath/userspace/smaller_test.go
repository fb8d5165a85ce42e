package userspace

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// found is an example that the kernel and the definition do not agree on. rapid makes its draws smaller, under which a
// policy changes into another one; here rules, filters and packets are left out one by one while they still do not agree.
type found struct {
	way     *way
	example example
	why     string
}

// explain makes the example as small as it gets, and prints it.
func (c *comparison) explain() string {
	f := c.found
	for c.smaller(f) {
	}
	var b strings.Builder
	for _, s := range f.example.sent {
		fmt.Fprintln(&b, describe(f.way.name, s.packet, s.shape))
	}
	fmt.Fprintln(&b, f.why)
	set, err := spd.Expand(f.example.policy, f.example.facts)
	if err != nil {
		return err.Error()
	}
	fmt.Fprintf(&b, "The facts: %+v\nThe exemptions: %+v\nThe filters:\n%s", f.example.facts, f.example.policy.Exemptions, listed(set))
	return b.String()
}

// smaller tries everything that can be left out of an example, and keeps what still shows a mismatch.
func (c *comparison) smaller(f *found) (progress bool) {
	try := func(change func(e *example)) bool {
		e := f.example.clone()
		change(&e)
		// What can no longer be played is no example.
		if why, err := c.mismatch(f.way, e); err == nil && why != "" {
			f.example, f.why, progress = e, why, true
			return true
		}
		return false
	}
	f.each(try, len(f.example.sent), func(e *example, from, to int) { e.sent = slices.Delete(e.sent, from, to) })
	f.each(try, len(f.example.policy.Rules), func(e *example, from, to int) {
		e.policy.Rules = slices.Delete(e.policy.Rules, from, to)
	})
	for r := range f.example.policy.Rules {
		f.each(try, len(f.example.policy.Rules[r].Filters), func(e *example, from, to int) {
			fs := &e.policy.Rules[r].Filters
			*fs = slices.Delete(*fs, from, to)
		})
	}
	if d := f.example.policy.DefaultResponse; d.Active {
		try(func(e *example) { e.policy.DefaultResponse = spd.DefaultResponse{} })
	}
	if x := f.example.policy.Exemptions; x.Multicast || x.Broadcast || len(x.BreakGlassTCP) > 0 {
		try(func(e *example) { e.policy.Exemptions = spd.Exemptions{} })
	}
	for _, list := range []func(*spd.Facts) int{
		func(f *spd.Facts) int { n := len(f.Addresses); f.Addresses = nil; return n },
		func(f *spd.Facts) int { n := len(f.DNSServers); f.DNSServers = nil; return n },
		func(f *spd.Facts) int { n := len(f.DHCPServers); f.DHCPServers = nil; return n },
		func(f *spd.Facts) int { n := len(f.DefaultGateways); f.DefaultGateways = nil; return n },
		func(f *spd.Facts) int { n := len(f.Broadcasts); f.Broadcasts = nil; return n },
		func(f *spd.Facts) int { n := len(f.Controllers); f.Controllers = nil; return n },
	} {
		if facts := f.example.facts; list(&facts) > 0 {
			try(func(e *example) { list(&e.facts) })
		}
	}
	for i := range f.example.sent {
		for _, plainer := range []func(*shape){
			func(s *shape) { *s = shape{} },
			func(s *shape) { s.form = min(s.form, complete) },
			func(s *shape) { s.first = 0 },
			func(s *shape) { s.options = false },
			func(s *shape) { s.before = nil },
			func(s *shape) { s.behind = false },
		} {
			before := f.example.sent[i].shape
			after := before
			if plainer(&after); after.String() != before.String() {
				try(func(e *example) { e.sent[i].shape = after })
			}
		}
	}
	return progress
}

// each leaves parts of a list out: the larger ones first.
func (f *found) each(try func(func(*example)) bool, n int, remove func(e *example, from, to int)) {
	for size := n; size > 0; size /= 2 {
		for from := n - size; from >= 0; {
			if try(func(e *example) { remove(e, from, from+size) }) {
				n -= size
			}
			from -= size
		}
	}
}

func (e example) clone() example {
	e.sent = slices.Clone(e.sent)
	e.policy.Rules = slices.Clone(e.policy.Rules)
	for i := range e.policy.Rules {
		e.policy.Rules[i].Filters = slices.Clone(e.policy.Rules[i].Filters)
	}
	return e
}

// TestAMistakeShowsASmallExample plants mistakes in the rules. Each has to be found, and what is printed has to show
// nothing beside it.
func TestAMistakeShowsASmallExample(t *testing.T) {
	l := labtest.New(t, "bwdps-")
	w := &way{name: wayIn, bench: newPropertyBench(t, l, wayIn, spd.In)}
	changed := func(change func(f *spd.Filter, r *spd.Rule)) func(example) (steering.Ruleset, error) {
		return func(e example) (steering.Ruleset, error) {
			e = e.clone()
			for i := range e.policy.Rules {
				for j := range e.policy.Rules[i].Filters {
					change(&e.policy.Rules[i].Filters[j], &e.policy.Rules[i])
				}
			}
			return compiled(e)
		}
	}
	serial := uint32(0) // pieces that the kernel still keeps must not fit those of another packet
	for _, m := range []struct {
		name    string
		compile func(example) (steering.Ruleset, error)
		shows   string
	}{
		{"ports do not matter", changed(func(f *spd.Filter, _ *spd.Rule) { f.DestinationPort = spd.PortRange{} }), "ports"},
		{"nothing is mirrored", changed(func(f *spd.Filter, _ *spd.Rule) { f.Mirrored = false }), ""},
		{"block permits", changed(func(_ *spd.Filter, r *spd.Rule) {
			if r.Action.Action == spd.ActionBlock {
				r.Action.Action = spd.ActionPermit
			}
		}), "block"},
		{"nobody puts pieces together", func(e example) (steering.Ruleset, error) {
			rules, err := compiled(e)
			rules.Chains = slices.DeleteFunc(rules.Chains, func(c steering.Chain) bool { return c.Name == "defrag" })
			return rules, err
		}, "pieces"},
	} {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			c := comparison{fates: map[string]int{}, compile: m.compile, serial: serial}
			defer func() { serial = c.serial }()
			for seed := 1; c.found == nil; seed++ {
				if seed > 300 {
					t.Fatal("300 policies do not show the mistake")
				}
				e := examples().Example(seed)
				why, err := c.mismatch(w, e)
				if err != nil {
					t.Fatal(err)
				}
				if why != "" {
					c.found = &found{way: w, example: e, why: why}
				}
			}
			text := c.explain()
			t.Logf("the example:\n%s", text)
			filters := 0
			for _, r := range c.found.example.policy.Rules {
				filters += len(r.Filters)
			}
			if n := len(c.found.example.sent); filters > 2 || n != 1 {
				t.Errorf("the example has %d filters and %d packets, want at most two and one", filters, n)
			}
			if !strings.Contains(text, m.shows) {
				t.Errorf("the example does not show %q", m.shows)
			}
		})
	}
}
