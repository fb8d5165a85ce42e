package agent

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// firstAnswer is how long a policy waits for the DNS names that it brings. What is not resolved then is as if it could not
// be; the next attempt finds it.
const firstAnswer = 5 * time.Second

// awaitNames asks for the DNS names of a policy that is about to be in force, beside those of the policies that it may
// return to.
func (a *Agent) awaitNames(ctx context.Context, policy spd.Policy) {
	a.wantNames(policy.HostNames())
	bounded, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	a.config.Names.Await(bounded)
}

// wantNames keeps the answers of some names and of those in the committed policy and the one on probation.
func (a *Agent) wantNames(names []string) {
	versions := []Version{a.current}
	if a.pending != nil {
		versions = append(versions, a.pending.version)
	}
	for _, v := range versions {
		if policy, err := a.effective(v); err == nil {
			names = append(names, policy.HostNames()...)
		}
	}
	slices.Sort(names)
	a.config.Names.Want(slices.Compact(names))
	a.config.Names.Seed(a.stored)
}

// gather finds out the present facts of the machine, with the answers of these names alone: those of other policies do not
// make the facts different.
func (a *Agent) gather(names []string) (spd.Facts, error) {
	f, err := a.config.Gather()
	if err != nil {
		return spd.Facts{}, err
	}
	f.Controllers, f.Names = a.controllers, a.config.Names.Answers()
	maps.DeleteFunc(f.Names, func(name string, _ []netip.Addr) bool { return !slices.Contains(names, name) })
	return f, nil
}
