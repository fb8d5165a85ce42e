package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// TestState is what became of an assertion.
type TestState uint8

// The states.
const (
	// TestHolds: the traffic between all machines named is as it must be.
	TestHolds TestState = iota + 1
	// TestFails: that of some is not.
	TestFails
	// TestVoid: no two machines are meant, so there is nothing to hold. The directory may change that any time.
	TestVoid
)

// String names the state, for programs.
func (s TestState) String() string {
	switch s {
	case TestHolds:
		return "holds"
	case TestFails:
		return "fails"
	case TestVoid:
		return "void"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// TestResult is one assertion with what was found.
type TestResult struct {
	Test      string // name of the PolicyTest
	At        policies.Position
	Number    int // of the assertion in its test, from 1
	Assertion policies.Assertion
	State     TestState
	// Client, Server, Traffic and Found tell the first counter-example of a failure, Offer what is chosen if Found is
	// ipsec, and Why explains it. Pairs counts the pairs of machines that fail.
	Client, Server, Traffic string
	Found                   policies.Outcome
	Offer                   proposal.ESP
	Why                     string
	Pairs                   int
}

// String says in one line what is expected, and for a failure what was found and why.
func (r TestResult) String() string {
	name := fmt.Sprintf("assertion %d", r.Number)
	if r.Assertion.Name != "" {
		name = fmt.Sprintf("assertion %d (%s)", r.Number, r.Assertion.Name)
	}
	switch r.State {
	case TestVoid:
		return fmt.Sprintf("%s checks nothing: %s: %s", name, r.Assertion, r.Why)
	case TestHolds:
		return fmt.Sprintf("%s holds: %s", name, r.Assertion)
	case TestFails:
	}
	found := r.Found.String()
	if r.Found == policies.OutcomeIPsec && r.Offer != (proposal.ESP{}) {
		found += " with " + r.Offer.String()
	}
	return fmt.Sprintf("%s fails: %s; but from %s to %s %s is %s: %s", name, r.Assertion, r.Client, r.Server, r.Traffic, found, r.Why)
}

func failed(all []TestResult) []TestResult {
	var out []TestResult
	for _, r := range all {
		if r.State == TestFails {
			out = append(out, r)
		}
	}
	return out
}

// Test runs every policy test of a world. The error is that of Compare.
func Test(w World) ([]TestResult, error) {
	if len(w.Documents.PolicyTests) == 0 {
		return nil, nil
	}
	s, err := evaluate(w)
	if err != nil {
		return nil, err
	}
	return s.test(w.Documents.PolicyTests)
}

// examiner runs the tests of one world.
type examiner struct {
	state *state
	court *court
}

func (s *state) test(tests []policies.PolicyTest) ([]TestResult, error) {
	if len(tests) == 0 {
		return nil, nil
	}
	x := examiner{s, newCourt(survey(s))}
	var out []TestResult
	for _, test := range tests {
		for i, a := range test.Assertions {
			r, err := x.examine(a)
			if err != nil {
				return nil, fmt.Errorf("policy test %q, assertion %d: %w", test.Name, i+1, err)
			}
			r.Test, r.At, r.Number, r.Assertion = test.Name, a.At, i+1, a
			out = append(out, r)
		}
	}
	return out, nil
}

// kin are the machines of an endpoint that no policy tells apart.
type kin struct {
	digest      compile.Digest
	first, last cohortMember
	size        int
}

// examine judges one assertion for every pair of kinds of machines that it means.
func (x *examiner) examine(a policies.Assertion) (TestResult, error) {
	clients, problem := x.machines(a.From)
	if problem != "" {
		return TestResult{State: TestVoid, Why: problem}, nil
	}
	servers, problem := x.machines(a.To)
	if problem != "" {
		return TestResult{State: TestVoid, Why: problem}, nil
	}
	result := TestResult{State: TestVoid, Why: "both sides are the same machine"}
	for _, c := range clients {
		for _, s := range servers {
			if c.size == 1 && s.size == 1 && c.first.after.UUID == s.first.after.UUID {
				continue
			}
			if err := x.pair(&result, a, c, s); err != nil {
				return TestResult{}, err
			}
		}
	}
	return result, nil
}

func (x *examiner) pair(result *TestResult, a policies.Assertion, c, s kin) error {
	server := s.last
	if server.after.UUID == c.first.after.UUID {
		server = s.first
	}
	l := x.court.landscape
	client, err := x.court.end(x.state, c.digest, c.first.after, c.first.groupsAfter, c.first.name(), l.client)
	if err != nil {
		return fmt.Errorf("judging machine %s: %w", c.first.name(), err)
	}
	there, err := x.court.end(x.state, s.digest, server.after, server.groupsAfter, server.name(), l.server)
	if err != nil {
		return fmt.Errorf("judging machine %s: %w", server.name(), err)
	}
	broken := false
	for _, kind := range distinguish([]spd.Policy{x.state.policies[c.digest], x.state.policies[s.digest]}, a.Traffic) {
		if !kind.within(a.Traffic) {
			continue
		}
		for family := range 2 {
			v, ok := x.court.judge(client, there, kind, family)
			if !ok {
				continue
			}
			if x.court.budget < 0 {
				return fmt.Errorf("more than %d judgements; name fewer machines or less traffic", maxVerdicts)
			}
			if result.State == TestVoid {
				result.State, result.Why = TestHolds, ""
			}
			if slices.Contains(a.Is, v.outcome) && (a.Offer == (proposal.ESP{}) || chosen(v.offer, a.Offer)) {
				continue
			}
			if !broken {
				broken = true
				result.Pairs += c.size * s.size
			}
			if result.State != TestFails {
				result.State = TestFails
				result.Client, result.Server, result.Traffic = c.first.name(), server.name(), kind.String()
				result.Found, result.Offer, result.Why = v.outcome, v.offer, v.why
			}
		}
	}
	return nil
}

// chosen compares offers; the group of a key exchange counts only where the assertion names one.
func chosen(got, want proposal.ESP) bool {
	if want.Group == proposal.GroupNone {
		got.Group, got.Additional = proposal.GroupNone, want.Additional
	}
	return got == want
}

// within tells whether a kind of traffic is part of what an assertion is about.
func (t traffic) within(a policies.Traffic) bool {
	switch {
	case a.Protocol == 0:
		return true
	case t.packet.Protocol != a.Protocol:
		return false
	case a.Ports.Any():
		return true
	}
	return !t.other && a.Ports.Contains(t.what.Ports.From) && t.sourcePort == 0
}

// machines finds whom an endpoint means, or says why it means nobody.
func (x *examiner) machines(e policies.Endpoint) ([]kin, string) {
	var list []directory.Machine
	snapshot := x.state.world.Directory
	switch {
	case e.Machine != "":
		m, ok := find(snapshot, e.Machine)
		if !ok {
			return nil, fmt.Sprintf("there is no machine %q in the directory", e.Machine)
		}
		list = append(list, m)
	case !e.Container.IsZero():
		if _, ok := snapshot.ContainerByDN(e.Container); !ok {
			return nil, fmt.Sprintf("there is no container %q in the directory", e.Container)
		}
		for m := range snapshot.Machines() {
			if m.DN.IsDescendantOf(e.Container) {
				list = append(list, m)
			}
		}
	case !e.Group.IsZero():
		if _, ok := snapshot.GroupByDN(e.Group); !ok {
			return nil, fmt.Sprintf("there is no group %q in the directory", e.Group)
		}
		for m := range snapshot.Machines() {
			if snapshot.IsMember(m.DN, e.Group) {
				list = append(list, m)
			}
		}
	default:
		for m := range snapshot.Machines() {
			if x.state.assignment(m.UUID).Policy == e.Policy {
				list = append(list, m)
			}
		}
	}
	index := map[string]int{}
	var out []kin
	for _, m := range list {
		if m.Disabled {
			continue
		}
		m = x.state.located(m)
		member := cohortMember{after: m, groupsAfter: x.court.terrain.groupsOf(snapshot, m.DN)}
		digest := x.state.assignment(m.UUID).Digest
		key := string(x.court.terrain.signature(digest[:], m, member.groupsAfter))
		i, known := index[key]
		if !known {
			i = len(out)
			index[key] = i
			out = append(out, kin{digest: digest, first: member})
		}
		out[i].last = member
		out[i].size++
	}
	if len(out) == 0 {
		return nil, e.String() + " has no machines with an enabled account"
	}
	return out, ""
}

// find looks a machine up by short name, DNS name, DN or UUID.
func find(s *directory.Snapshot, name string) (directory.Machine, bool) {
	if m, ok := s.MachineByName(name); ok {
		return m, true
	}
	if u, err := directory.ParseUUID(name); err == nil {
		return s.Machine(u)
	}
	if strings.Contains(name, "=") {
		if dn, err := directory.ParseDN(name); err == nil {
			return s.MachineByDN(dn)
		}
	}
	return directory.Machine{}, false
}
