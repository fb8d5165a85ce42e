package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/node/statefile"
	"github.com/bailiwick-net/bailiwick/policies"
)

const (
	rulesFile = "persistent-rules.json"
	maxRules  = 64 << 20
	// maxSets bounds how many files of rules there can be.
	maxSets = 256
)

// Rules are all rule sets of a machine. The value never changes: With and Without return others.
type Rules struct {
	path string
	sets []RuleSet // by name
	// known says that there is or was a file, so that what the kernel holds may be of rules that are gone.
	known bool
}

// storedRules is a rule set in the file.
type storedRules struct {
	File string `json:"file"`
	Text string `json:"text"`
}

// OpenRules reads the persistent rules from the state directory. There are no dynamic ones yet.
func OpenRules(state string) (Rules, error) {
	r := Rules{path: filepath.Join(state, rulesFile)}
	content, err := statefile.Read(r.path, maxRules)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		r.known = true
		r.sets, err = parseStored(content)
	}
	if err != nil {
		return Rules{}, fmt.Errorf("read the persistent rules from %s, correct or remove the file: %w", r.path, err)
	}
	return r, nil
}

// parseStored reads the content of the file.
func parseStored(content []byte) ([]RuleSet, error) {
	var stored []storedRules
	if err := json.Unmarshal(content, &stored); err != nil {
		return nil, err
	}
	var r Rules
	for _, s := range stored {
		set, err := ParseRules(s.File, []byte(s.Text), Persistent)
		if err != nil {
			return nil, err
		}
		if r, err = r.With(set); err != nil {
			return nil, err
		}
	}
	return r.sets, nil
}

// Sets are all rule sets by name; not to be modified.
func (r Rules) Sets() []RuleSet { return r.sets }

// With returns the rules and one set more.
func (r Rules) With(s RuleSet) (Rules, error) {
	if len(r.sets) >= maxSets {
		return Rules{}, fmt.Errorf("there are %d rule sets already, and there can be no more: %w", len(r.sets), ErrRules)
	}
	i, found := r.find(s.Name)
	if found {
		return Rules{}, fmt.Errorf("there are rules %q already (%s); delete them first: %w", s.Name, r.sets[i].Kind, ErrRules)
	}
	r.sets = slices.Insert(slices.Clone(r.sets), i, s)
	return r, nil
}

// Without returns the rules but for one set.
func (r Rules) Without(name string) (Rules, error) {
	i, found := r.find(name)
	if !found {
		return Rules{}, fmt.Errorf("there are no rules %q; look at: bailiwick-node rule list: %w", name, ErrRules)
	}
	r.sets = slices.Delete(slices.Clone(r.sets), i, i+1)
	return r, nil
}

func (r Rules) find(name string) (int, bool) {
	return slices.BinarySearchFunc(r.sets, name, func(s RuleSet, name string) int { return strings.Compare(s.Name, name) })
}

// Known reports whether the machine has or ever had rules or a local policy: then, and only then, Save was called.
func (r Rules) Known() bool { return r.known || len(r.sets) > 0 }

// Save stores the persistent ones. Where there are none the file says so: what was in force is to be taken back after a
// restart.
func (r Rules) Save() error {
	stored := []storedRules{}
	for _, s := range r.sets {
		if s.Kind == Persistent {
			stored = append(stored, storedRules{s.File, s.Text})
		}
	}
	content, err := json.Marshal(stored)
	if err != nil {
		return fmt.Errorf("encode the persistent rules: %w", err)
	}
	return statefile.Write(r.path, content)
}

// Suppressed tells why the local policy does not count; empty when it does. policy and container are of the assignment,
// policies.NoneName or "" where the directory assigns none or was never heard.
func Suppressed(policy, container string) string {
	if policy == "" || policy == policies.NoneName {
		return ""
	}
	return fmt.Sprintf("the directory assigns policy %q, from %s", policy, container)
}
