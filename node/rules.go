package node

import (
	"context"

	"github.com/bailiwick-net/bailiwick/node/local"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// AddRules carries out a command of the local window (localapi.Source).
func (n *Node) AddRules(ctx context.Context, r localapi.AddRules) (localapi.Rules, error) {
	kind := local.Dynamic
	if r.Persistent {
		kind = local.Persistent
	}
	set, err := local.ParseRules(r.File, []byte(r.Text), kind)
	if err != nil {
		return localapi.Rules{}, err
	}
	err = n.agent.ChangeRules(ctx, func(present local.Rules) (local.Rules, error) { return present.With(set) })
	return describeRules(set), err
}

// DeleteRules carries out a command of the local window (localapi.Source).
func (n *Node) DeleteRules(ctx context.Context, r localapi.DeleteRules) error {
	return n.agent.ChangeRules(ctx, func(present local.Rules) (local.Rules, error) { return present.Without(r.Name) })
}

func describeRules(s local.RuleSet) localapi.Rules {
	out := localapi.Rules{Name: s.Name, Kind: s.Kind.String(), File: s.File}
	for _, r := range s.Rules {
		out.Rules = append(out.Rules, localapi.Rule{ID: r.ID, Action: r.Action.Action.String(), Filters: len(r.Filters)})
	}
	return out
}
