// Package local owns what the administrator of a machine adds to the policy that the directory assigns to it: a local
// policy, which counts while the directory assigns none, and rules that stand beside either, persistent ones and dynamic
// ones.
//
// Its invariant: what it hands out is valid, and rules hold nothing but rules, so that they cannot touch exemptions, key
// exchange or default response of the policy beside which they stand. What is not valid is refused with its place, and a
// file that cannot be read is an error, never the absence of rules. It leaves putting all that into force to node/agent.
package local

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// ErrRules is wrapped when rules are refused.
var ErrRules = errors.New("rules refused")

// Policy is a policy in a file of the machine.
type Policy struct {
	Name string
	File string
	Rest spd.Policy
}

// LoadPolicy reads the policy of a name from a file of policy documents; without a name, the only one in the file.
// Predefined documents need not be in it.
func LoadPolicy(file, name string) (Policy, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return Policy{}, fmt.Errorf("read the local policy: %w", err)
	}
	documents, err := policies.Decode(file, content)
	if err != nil {
		return Policy{}, err
	}
	if name == "" {
		if name, err = only(file, documents); err != nil {
			return Policy{}, err
		}
	}
	policy, err := effective(documents, name)
	return Policy{Name: name, File: file, Rest: policy}, err
}

// only returns the name of the only policy of a file.
func only(file string, d policies.Documents) (string, error) {
	if len(d.Policies) == 1 {
		return d.Policies[0].Name, nil
	}
	names := make([]string, len(d.Policies))
	for i, p := range d.Policies {
		names[i] = fmt.Sprintf("%q", p.Name)
	}
	return "", fmt.Errorf("%s: there are %d policies (%s), want one: %w", file, len(names), strings.Join(names, ", "), ErrRules)
}

// effective makes the policy of a name. What the documents do not define themselves, and only that, comes from the
// predefined ones.
func effective(documents policies.Documents, name string) (spd.Policy, error) {
	own := map[[2]string]bool{}
	for _, d := range documents.All() {
		own[[2]string{string(d.Kind()), d.Key()}] = true
	}
	for _, d := range predefined.Documents().All() {
		// Other predefined policies have no say here, and need not fit to what the file makes of their lists and actions.
		other := d.Kind() == policies.KindPolicy && d.Key() != name
		if !other && !own[[2]string{string(d.Kind()), d.Key()}] {
			documents.Add(d)
		}
	}
	if err := policies.Check(policies.Validate(documents)); err != nil {
		return spd.Policy{}, err
	}
	return documents.Effective(name)
}

// Kind is how long rules stay.
type Kind uint8

// The kinds.
const (
	Dynamic    Kind = iota // until the daemon ends
	Persistent             // until they are deleted
)

// String returns "dynamic" or "persistent".
func (k Kind) String() string {
	if k == Persistent {
		return "persistent"
	}
	return "dynamic"
}

// RuleSet is the rules of one file, known by the name of the policy in it.
type RuleSet struct {
	Name string
	Kind Kind
	// File is where it came from, for people; Text is what stood there.
	File string
	Text string
	// Rules have IDs that no policy has.
	Rules []spd.Rule
	// exchange is for the negotiations of the rules where the policy beside which they stand has none.
	exchange spd.KeyExchange
}

// ParseRules reads a file of policy documents with one policy, of which nothing but rules may be said. Errors have file,
// line and column where they are about a place.
func ParseRules(file string, text []byte, kind Kind) (RuleSet, error) {
	documents, err := policies.Decode(file, text)
	if err != nil {
		return RuleSet{}, err
	}
	name, err := only(file, documents)
	if err != nil {
		return RuleSet{}, err
	}
	for _, d := range documents.All() {
		switch d.Kind() {
		case policies.KindPolicy, policies.KindFilterList, policies.KindFilterAction:
		default:
			return RuleSet{}, fmt.Errorf("%s: a %s has no place among rules: %w", d.Metadata().At, d.Kind(), ErrRules)
		}
	}
	p, _ := documents.Policy(name)
	if p.DefaultResponse.Active || !p.KeyExchange.IsZero() || !isZero(p.Exemptions) {
		return RuleSet{}, fmt.Errorf("%s: policy %q says more than rules: keyExchange, exemptions and defaultResponse are those of the policy beside which the rules stand: %w", p.At, name, ErrRules)
	}
	policy, err := effective(documents, name)
	if err != nil {
		return RuleSet{}, err
	}
	if len(policy.Rules) == 0 {
		return RuleSet{}, fmt.Errorf("%s: policy %q has no active rule: %w", p.At, name, ErrRules)
	}
	if names := policy.HostNames(); len(names) > 0 {
		// What cannot be resolved would keep a policy of the directory from coming into force.
		return RuleSet{}, fmt.Errorf("%s: policy %q names the host %q; rules beside a policy have addresses alone: %w", p.At, name, names[0], ErrRules)
	}
	s := RuleSet{Name: name, Kind: kind, File: file, Text: string(text), exchange: policy.KeyExchange}
	for _, r := range policy.Rules {
		prefix := kind.String() + ":" + name + "/"
		r.ID = prefix + r.ID
		r.Filters = slices.Clone(r.Filters)
		for i := range r.Filters {
			r.Filters[i].ID = prefix + r.Filters[i].ID
		}
		s.Rules = append(s.Rules, r)
	}
	// Beside the policy that permits everything it must stand, else beside none.
	_, err = Merge(spd.Policy{Name: policies.NoneName}, []RuleSet{s})
	return s, err
}

func isZero(e policies.Exemptions) bool {
	return !e.Multicast && !e.Broadcast && !e.Kerberos && !e.RSVP && !e.ICMP && e.Level == 0 && len(e.BreakGlassTCP) == 0
}

// Merge puts rules beside those of a policy: of all filters that describe a packet the most specific one decides, as
// among the rules of one policy. What is exempt from the policy stays exempt from the rules.
func Merge(base spd.Policy, sets []RuleSet) (spd.Policy, error) {
	if len(sets) == 0 {
		return base, nil
	}
	out := base
	out.Rules = slices.Clone(base.Rules)
	for _, s := range sets {
		out.Rules = append(out.Rules, s.Rules...)
		if len(out.KeyExchange.Offers) == 0 {
			out.KeyExchange = s.exchange
		}
	}
	if err := out.Validate(); err != nil {
		return spd.Policy{}, fmt.Errorf("rules beside policy %q: %w", base.Name, err)
	}
	return out, nil
}
