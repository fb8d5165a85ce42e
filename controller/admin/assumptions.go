package admin

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/plan"
	"github.com/bailiwick-net/bailiwick/policies/preshared"
)

// assumptions says what a plan cannot know and goes by nevertheless, as far as it matters for what it tells.
func (s *Server) assumptions(p plan.Plan, docs policies.Documents) []string {
	var out []string
	touched := map[string]bool{}
	own := 0
	for _, c := range p.Machines {
		touched[c.To.Policy] = true
		if c.To.Policy == policies.NoneName || c.From.Policy == policies.NoneName {
			own += len(c.Machines)
		}
	}
	for _, c := range p.Pairs {
		touched[c.Client.After], touched[c.Server.After] = true, true
	}
	for use, names := range docs.SecretUsers() {
		if kept, ok := s.config.Secrets.Get(use.Name); ok && kept.Kind == use.Kind {
			continue
		}
		names = slices.DeleteFunc(slices.Sorted(slices.Values(names)), func(n string) bool { return !touched[n] })
		what := "preshared key"
		if use.Kind == preshared.PPK {
			what = "postquantum preshared key"
		}
		if len(names) > 0 {
			out = append(out, fmt.Sprintf("The %s %q is not kept here: the machines of %s were taken to have it in a file.", what, use.Name, strings.Join(names, ", ")))
		}
	}
	slices.Sort(out)
	if own > 0 {
		out = append(out, fmt.Sprintf("The directory assigns no policy to %d of the machines before or after: a policy of their own (localPolicy) counts then, and is known to them alone.", own))
	}
	return out
}
