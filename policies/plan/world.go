// Package plan tells what a change would do before anybody makes it: which machines get another policy and by which
// link, between which of them traffic is treated otherwise than before, and whether the tests that are kept beside the
// documents still hold. A change is one of the documents, of the directory, or of both.
//
// Its invariant: a Plan is a pure function of two worlds, so the same worlds give the same plan with the same digest,
// and its machines are exactly those for which resolving the one world and the other differs. Traffic is judged by
// policies/analyze for groups of machines that no policy can tell apart, never for single pairs.
//
// It leaves to the controller what a plan is made from, for how long it is kept and whether it is carried out.
package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/resolve"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// World is all that decides what machines do: documents that validate, and a directory.
type World struct {
	Documents policies.Documents
	Directory *directory.Snapshot
	// Locations tell where the nodes of machines are, for links to sites; nil when that is not known.
	Locations resolve.Locations
}

// Assignment is what a machine has, and why.
type Assignment struct {
	// Policy is the policy's name, policies.NoneName when no link applies, and empty for a machine that the directory does
	// not hold.
	Policy string
	// Digest names the bundle.
	Digest compile.Digest
	// Container and Link name where the link that won stands, and the link; empty when none applies.
	Container, Link string
	// Why is a sentence that says why that link won.
	Why string
}

// Present tells whether the machine is in the directory.
func (a Assignment) Present() bool { return a.Policy != "" }

// String prints the policy with its container.
func (a Assignment) String() string {
	switch {
	case !a.Present():
		return "not in the directory"
	case a.Container == "":
		return a.Policy
	}
	return a.Policy + " (" + a.Container + ")"
}

// same tells whether the node of the machine would notice no difference.
func (a Assignment) same(b Assignment) bool {
	return a.Policy == b.Policy && a.Digest == b.Digest && a.Container == b.Container
}

// state is a world with everything that follows from it for single machines.
type state struct {
	world    World
	outcomes resolve.Assignments
	assigned map[*resolve.Outcome]*Assignment
	machines []*Assignment // of the machines in the order of the directory
	policies map[compile.Digest]spd.Policy
}

// evaluate resolves a world. The error wraps policies.ErrReference or spd.ErrPolicy where the documents do not validate.
func evaluate(w World) (*state, error) {
	s := &state{
		world: w, outcomes: resolve.Prepare(w.Documents).At(w.Locations).All(w.Directory), assigned: map[*resolve.Outcome]*Assignment{},
		policies: map[compile.Digest]spd.Policy{},
	}
	digests := map[string]compile.Digest{}
	_, n, _ := w.Directory.Len()
	s.machines = make([]*Assignment, 0, n)
	for m := range w.Directory.Machines() {
		outcome, _ := s.outcomes.Of(m.UUID)
		if a, known := s.assigned[outcome]; known {
			s.machines = append(s.machines, a)
			continue
		}
		if outcome.Err != nil {
			return nil, outcome.Err
		}
		digest, known := digests[outcome.Policy]
		if !known {
			policy := spd.Policy{Name: policies.NoneName}
			if outcome.Policy != policies.NoneName {
				var err error
				if policy, err = w.Documents.Effective(outcome.Policy); err != nil {
					return nil, err
				}
			}
			bundle, err := compile.Seal(policy)
			if err != nil {
				return nil, fmt.Errorf("policy %q: %w", outcome.Policy, err)
			}
			digest = bundle.Digest
			digests[outcome.Policy], s.policies[digest] = digest, policy
		}
		a := &Assignment{Policy: outcome.Policy, Digest: digest, Why: "no link applies"}
		if winner, ok := outcome.Winner(); ok {
			a.Container, a.Link, a.Why = winner.Container.String(), winner.Link.Key(), winner.Sentence
		}
		s.assigned[outcome] = a
		s.machines = append(s.machines, a)
	}
	return s, nil
}

// assignment returns what a machine has; the zero Assignment for one that the directory does not hold.
func (s *state) assignment(u directory.UUID) Assignment {
	outcome, ok := s.outcomes.Of(u)
	if !ok {
		return Assignment{}
	}
	return *s.assigned[outcome]
}

// same tells whether both worlds have the same directory, so that their machines are in the same order.
func (s *state) same(o *state) bool { return s.world.Directory == o.world.Directory }

// located returns the machine with the address of its node, if the directory tells none.
func (s *state) located(m directory.Machine) directory.Machine {
	if s.world.Locations != nil && !slices.ContainsFunc(m.Addresses, usable) {
		if a, ok := s.world.Locations(m.UUID); ok {
			m.Addresses = []netip.Addr{a}
		}
	}
	return m
}

// MachineChange is the machines that get the same other policy for the same reason.
type MachineChange struct {
	From, To Assignment
	// Machines are ordered by name. They are as the directory has them afterwards, or had them if they are gone.
	Machines []directory.Machine
}

// machineChanges compares every machine of both worlds.
func machineChanges(before, after *state) []MachineChange {
	type change struct{ from, to Assignment }
	type shared struct{ from, to *Assignment } // which is quicker to compare
	index, quick := map[change]int{}, map[shared]int{}
	var out []MachineChange
	add := func(m directory.Machine, from, to *Assignment) {
		at, known := quick[shared{from, to}]
		if !known {
			at = -1
			if key := (change{*from, *to}); !from.same(*to) {
				if at, known = index[key]; !known {
					at = len(out)
					index[key] = at
					out = append(out, MachineChange{From: *from, To: *to})
				}
			}
			quick[shared{from, to}] = at
		}
		if at >= 0 {
			out[at].Machines = append(out[at].Machines, m)
		}
	}
	absent := &Assignment{}
	i := 0
	for m := range after.world.Directory.Machines() { // by name
		from := absent
		if before.same(after) {
			from = before.machines[i]
		} else if outcome, was := before.outcomes.Of(m.UUID); was {
			from = before.assigned[outcome]
		}
		add(m, from, after.machines[i])
		i++
	}
	i = 0
	for m := range before.world.Directory.Machines() {
		if _, still := after.world.Directory.Machine(m.UUID); !before.same(after) && !still {
			add(m, before.machines[i], absent)
		}
		i++
	}
	slices.SortFunc(out, func(a, b MachineChange) int {
		return cmp.Or(cmp.Compare(len(b.Machines), len(a.Machines)), compareAssignments(a.To, b.To), compareAssignments(a.From, b.From))
	})
	return out
}

func compareAssignments(a, b Assignment) int {
	return cmp.Or(strings.Compare(a.Policy, b.Policy), strings.Compare(a.Container, b.Container), strings.Compare(a.Link, b.Link),
		strings.Compare(a.Why, b.Why), slices.Compare(a.Digest[:], b.Digest[:]))
}

// ByPolicy joins the changes that are of the same bundles, whatever the containers and reasons: those that differ are left
// empty.
func (p Plan) ByPolicy() []MachineChange {
	type bundles struct{ from, to compile.Digest }
	index := map[bundles]int{}
	var out []MachineChange
	for _, c := range p.Machines {
		key := bundles{c.From.Digest, c.To.Digest}
		i, known := index[key]
		if !known {
			index[key] = len(out)
			out = append(out, MachineChange{From: c.From, To: c.To, Machines: slices.Clone(c.Machines)})
			continue
		}
		common(&out[i].From, c.From)
		common(&out[i].To, c.To)
		out[i].Machines = append(out[i].Machines, c.Machines...)
	}
	for _, c := range out {
		slices.SortFunc(c.Machines, func(a, b directory.Machine) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), a.DN.Compare(b.DN))
		})
	}
	slices.SortStableFunc(out, func(a, b MachineChange) int { return cmp.Compare(len(b.Machines), len(a.Machines)) })
	return out
}

// common empties what differs.
func common(a *Assignment, b Assignment) {
	for _, f := range []struct {
		into *string
		from string
	}{{&a.Container, b.Container}, {&a.Link, b.Link}, {&a.Why, b.Why}} {
		if *f.into != f.from {
			*f.into = ""
		}
	}
}
