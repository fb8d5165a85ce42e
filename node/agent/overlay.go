package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/local"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// effective is what a version comes to on this machine: the policy of the directory or, where that assigns none, the
// local one, with the rules of this machine beside it. A version without content is that of a machine that was never
// told.
func (a *Agent) effective(v Version) (spd.Policy, error) {
	policy := spd.Policy{Name: policies.NoneName}
	if v.Content != nil {
		var err error
		if policy, err = v.open(); err != nil {
			return spd.Policy{}, err
		}
	}
	if p := a.config.LocalPolicy; p != nil && local.Suppressed(v.Policy, v.Container) == "" {
		policy = p.Rest
	}
	return local.Merge(policy, a.rules.Sets())
}

// bare reports whether there is something to enforce before the directory was ever heard.
func (a *Agent) bare() bool {
	return a.current.Content == nil && !a.unknown && (a.config.LocalPolicy != nil || a.rules.Known())
}

// restoreBare puts the local policy and the persistent rules into force on a machine that was never told a policy.
func (a *Agent) restoreBare(ctx context.Context) {
	if !a.bare() {
		return
	}
	err := a.rules.Save()
	if err == nil {
		err = a.enforce(ctx, Version{})
	}
	if err != nil {
		a.stale, a.problem = true, err.Error()
		a.config.Logger.Error("local policy and rules cannot be put into force, it is tried again", "error", err)
		return
	}
	a.config.Logger.Info("local policy and rules are in force, no policy of the directory is known", "rules", len(a.rules.Sets()))
}

// ruleChange is a request to change the rules beside the policy; the agent answers it once.
type ruleChange struct {
	change func(local.Rules) (local.Rules, error)
	done   chan error
}

// ChangeRules changes the rules that stand beside the policy and puts them into force. After an error the rules before
// are in force, and on the disk.
func (a *Agent) ChangeRules(ctx context.Context, change func(local.Rules) (local.Rules, error)) error {
	request := ruleChange{change, make(chan error, 1)}
	select {
	case a.ruleChanges <- request:
		return <-request.done
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *Agent) changeRules(ctx context.Context, change func(local.Rules) (local.Rules, error)) error {
	next, err := change(a.rules)
	if err != nil {
		return err
	}
	switch {
	case a.unknown && a.pending == nil:
		return errors.New("the last good policy of this machine cannot be read, so nothing can stand beside it before the controller sends one")
	case a.stale:
		return fmt.Errorf("the policy of this machine is not in force yet, so nothing can stand beside it: %s", a.problem)
	}
	before := a.rules
	// On the disk first: what is in force must be there after a restart, and the reverse is put right below.
	a.rules = next
	if err := next.Save(); err != nil {
		a.rules = before
		return fmt.Errorf("store the rules: %w", err)
	}
	if err := a.enforce(ctx, a.inForce()); err != nil {
		a.rules = before
		return errors.Join(err, before.Save())
	}
	a.config.Logger.Info("rules of this machine were changed", "rules", len(next.Sets()))
	return nil
}

// LocalStatus is what the machine's own administrator added.
type LocalStatus struct {
	// Policy and File are the local policy's; empty without one.
	Policy string
	File   string
	// Suppressed is why it does not count; empty when it does.
	Suppressed string
	Rules      []local.RuleSet
}

func (a *Agent) localStatus() LocalStatus {
	s := LocalStatus{Rules: a.rules.Sets()}
	if p := a.config.LocalPolicy; p != nil {
		v := a.inForce()
		s.Policy, s.File, s.Suppressed = p.Name, p.File, local.Suppressed(v.Policy, v.Container)
	}
	return s
}

// localNotes are what the fleet's administrator should know of it.
func (a *Agent) localNotes() []string {
	var notes []string
	s := a.localStatus()
	if s.Policy != "" && s.Suppressed == "" {
		notes = append(notes, fmt.Sprintf("local policy %q counts, as the directory assigns none", s.Policy))
	}
	for _, set := range s.Rules {
		notes = append(notes, fmt.Sprintf("%s rules %q of this machine stand beside the policy", set.Kind, set.Name))
	}
	const most = 50
	if len(notes) > most {
		notes = append(notes[:most:most], fmt.Sprintf("and %d more rule sets of this machine", len(notes)-most))
	}
	return notes
}
