package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// A Plan is what a change would do. It never changes.
type Plan struct {
	// Machines are those whose policy changes, the largest groups first.
	Machines []MachineChange
	// Pairs are those between which traffic is treated otherwise, those that are cut off first.
	Pairs []PairChange
	// Services are servers that machines can no longer reach, or can again, by bundle.
	Services []ServiceChange
	// Refused are machines that the controller and their peers will no longer accept, because the directory no longer
	// holds them, or holds their account disabled.
	Refused []Refusal
	// Tests are the results of the policy tests afterwards.
	Tests []TestResult
	// Unjudged counts the pairs of machines that there are too many of to judge; 0 for a complete plan.
	Unjudged int
	// Unaddressed counts the machines whose address neither the directory tells nor their node. Filters that name addresses
	// are judged as if they were not about those.
	Unaddressed int
}

// Compare tells what turns the one world into the other. The documents of both must validate; else the error wraps
// policies.ErrReference or spd.ErrPolicy.
func Compare(before, after World, services []Service) (Plan, error) {
	was, err := evaluate(before)
	if err != nil {
		return Plan{}, fmt.Errorf("the present state: %w", err)
	}
	is, err := evaluate(after)
	if err != nil {
		return Plan{}, err
	}
	c, err := newComparison(was, is)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Machines: machineChanges(was, is), Pairs: c.pairs(), Services: c.services(services), Refused: refusals(before, after)}
	p.Unjudged = c.skipped
	for m := range after.Directory.Machines() {
		if home(is.located(m).Addresses, place{}) == (place{}) {
			p.Unaddressed++
		}
	}
	if p.Tests, err = is.test(after.Documents.PolicyTests); err != nil {
		return Plan{}, err
	}
	return p, nil
}

// ChangedMachines counts the machines whose policy changes.
func (p Plan) ChangedMachines() int {
	n := 0
	for _, c := range p.Machines {
		n += len(c.Machines)
	}
	return n
}

// Empty tells that nothing changes for any machine.
func (p Plan) Empty() bool {
	return len(p.Machines) == 0 && len(p.Pairs) == 0 && len(p.Services) == 0 && len(p.Refused) == 0
}

// Digest names all that the plan says: an equal digest, equal changes of the same machines.
func (p Plan) Digest() [sha256.Size]byte {
	h := sha256.New()
	for _, c := range p.Machines {
		fmt.Fprintf(h, "machines %q %q\n", fmt.Sprint(c.From, c.From.Digest, c.From.Link, c.From.Why), fmt.Sprint(c.To, c.To.Digest, c.To.Link, c.To.Why))
		for _, m := range c.Machines {
			h.Write(m.UUID[:])
		}
	}
	for _, c := range p.Pairs {
		fmt.Fprintf(h, "pairs %q %d %v %v\n", fmt.Sprint(c.Client, c.Server, c.Traffic), c.Pairs, c.Client.DigestAfter, c.Server.DigestAfter)
	}
	for _, c := range p.Services {
		fmt.Fprintf(h, "service %q\n", fmt.Sprint(c))
	}
	for _, r := range p.Refused {
		fmt.Fprintf(h, "refused %v %s\n", r.Machine.UUID, r.Reason)
	}
	for _, t := range p.Tests {
		fmt.Fprintf(h, "test %q %q\n", t.Test, t.String())
	}
	fmt.Fprintf(h, "unjudged %d\n", p.Unjudged)
	return [sha256.Size]byte(h.Sum(nil))
}

// ID names a plan: what it is made from and what it says.
type ID [16]byte

// String returns 32 hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ErrID is returned for a text that names no plan.
var ErrID = errors.New("32 hex digits are expected")

// ParseID reads what String prints.
func ParseID(s string) (ID, error) {
	if b, err := hex.DecodeString(s); err == nil && len(b) == len(ID{}) {
		return ID(b), nil
	}
	return ID{}, fmt.Errorf("%q does not name a plan: %w", s, ErrID)
}

// Identify names the plan that an edit would give over some documents and a directory, each named by a digest.
func (p Plan) Identify(documents, directory, edit [sha256.Size]byte) ID {
	result, h := p.Digest(), sha256.New()
	for _, part := range [][sha256.Size]byte{documents, directory, edit, result} {
		h.Write(part[:])
	}
	return ID(h.Sum(nil)[:len(ID{})])
}

// FailedTests returns the results that are failures.
func (p Plan) FailedTests() []TestResult { return failed(p.Tests) }
