package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// maxVerdicts bounds how many packets are judged for one plan. What is beyond is counted, never guessed.
const maxVerdicts = 4_000_000

// Bundles is what the machines of one side have before and after.
type Bundles struct {
	Before, After             string // names of policies
	DigestBefore, DigestAfter compile.Digest
}

// Changed tells whether the change reaches this side.
func (b Bundles) Changed() bool { return b.DigestBefore != b.DigestAfter }

// String prints "Client", or "Client => Server" where that changes.
func (b Bundles) String() string {
	switch {
	case !b.Changed():
		return b.After
	case b.Before == b.After:
		return b.After + " (changed)"
	}
	return b.Before + " => " + b.After
}

// PairChange is every pair of machines with the same bundles, before and after, between which the same traffic is treated
// otherwise.
type PairChange struct {
	// Client begins the traffic, Server is where it goes.
	Client, Server Bundles
	// Pairs counts the pairs of machines, WitnessClient and WitnessServer name one of them.
	Pairs                        int
	WitnessClient, WitnessServer string
	Traffic                      []TrafficChange
}

// CutOff tells whether some traffic of the pair flowed before and is blocked now.
func (p PairChange) CutOff() bool {
	return slices.ContainsFunc(p.Traffic, func(t TrafficChange) bool { return t.After == policies.OutcomeBlocked })
}

// TrafficChange is traffic with the same outcomes before and after, which differ.
type TrafficChange struct {
	Before, After policies.Outcome
	// Traffic says which: "tcp/445", "all traffic", or "except icmp" for all but that.
	Traffic []string
	// Why says in a sentence why the outcome is the new one.
	Why string
}

// String prints "clear => ipsec: tcp/445, udp/53".
func (t TrafficChange) String() string {
	return fmt.Sprintf("%s => %s: %s", t.Before, t.After, strings.Join(t.Traffic, ", "))
}

// comparison compares two worlds pair by pair.
type comparison struct {
	before, after *state
	court         *court
	cohorts       []*cohort
	sides         [2][]ends // before and after, by cohort
	// skipped counts the pairs of machines for which the budget did not last.
	skipped int
}

func newComparison(before, after *state) (*comparison, error) {
	t := survey(before, after)
	c := &comparison{before: before, after: after, cohorts: cohorts(before, after, t), court: newCourt(t)}
	for i, s := range []*state{before, after} {
		c.sides[i] = make([]ends, len(c.cohorts))
		for j, group := range c.cohorts {
			var err error
			if c.sides[i][j], err = c.court.ends(s, group, i == 1); err != nil {
				return nil, fmt.Errorf("judging machine %s: %w", group.first.name(), err)
			}
		}
	}
	return c, nil
}

// pairKey joins the pairs of cohorts that read the same.
type pairKey struct {
	client, server Bundles
	traffic        string
}

// pairs lists the changes, those that cut machines off first, then by the number of machines.
func (c *comparison) pairs() []PairChange {
	index := map[pairKey]int{}
	var out []PairChange
	for i, client := range c.cohorts {
		for j, server := range c.cohorts {
			if !client.moved && !server.moved || i == j && client.size < 2 {
				continue
			}
			n := client.size * server.size
			if i == j {
				n -= client.size
			}
			changes := c.compare(i, j, n)
			if len(changes) == 0 {
				continue
			}
			key := pairKey{c.bundles(client), c.bundles(server), fmt.Sprint(changes)}
			at, known := index[key]
			if !known {
				at = len(out)
				index[key] = at
				out = append(out, PairChange{
					Client: key.client, Server: key.server, Traffic: changes,
					WitnessClient: client.first.name(), WitnessServer: server.last.name(),
				})
			}
			out[at].Pairs += n
		}
	}
	slices.SortStableFunc(out, func(a, b PairChange) int {
		return cmp.Or(-compareFlags(a.CutOff(), b.CutOff()), cmp.Compare(b.Pairs, a.Pairs),
			strings.Compare(a.Client.String(), b.Client.String()), strings.Compare(a.Server.String(), b.Server.String()))
	})
	return out
}

func compareFlags(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (c *comparison) bundles(group *cohort) Bundles {
	return Bundles{
		Before: c.before.policies[group.from].Name, After: c.after.policies[group.to].Name, DigestBefore: group.from, DigestAfter: group.to,
	}
}

// compare judges every kind of traffic from one cohort to another in both worlds. Machines that are missing in one of them
// have no traffic to compare.
func (c *comparison) compare(i, j, pairs int) []TrafficChange {
	client, server := [2]ends{c.sides[0][i], c.sides[1][i]}, [2]ends{c.sides[0][j], c.sides[1][j]}
	for w := range 2 {
		if client[w].client == nil || server[w].server == nil {
			return nil
		}
	}
	kinds := distinguish([]spd.Policy{
		c.before.policies[c.cohorts[i].from], c.after.policies[c.cohorts[i].to],
		c.before.policies[c.cohorts[j].from], c.after.policies[c.cohorts[j].to],
	})
	if c.court.budget < len(kinds) {
		c.skipped += pairs
		return nil
	}
	type change struct{ before, after policies.Outcome }
	marks, why, judged := map[change][]bool{}, map[change]string{}, make([]bool, len(kinds))
	for family := range 2 {
		for k, kind := range kinds {
			was, ok := c.court.judge(client[0].client, server[0].server, kind, family)
			if !ok {
				continue
			}
			is, ok := c.court.judge(client[1].client, server[1].server, kind, family)
			judged[k] = judged[k] || ok
			if !ok || was.outcome == is.outcome {
				continue
			}
			key := change{was.outcome, is.outcome}
			if marks[key] == nil {
				marks[key], why[key] = make([]bool, len(kinds)), is.why
			}
			marks[key][k] = true
		}
	}
	var out []TrafficChange
	for key, in := range marks {
		out = append(out, TrafficChange{Before: key.before, After: key.after, Traffic: label(kinds, judged, in), Why: why[key]})
	}
	slices.SortFunc(out, func(a, b TrafficChange) int {
		return cmp.Or(-cmp.Compare(a.After, b.After), cmp.Compare(a.Before, b.Before))
	})
	return out
}
