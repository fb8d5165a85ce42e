package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bailiwick-net/bailiwick/node/keyring"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/preshared"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// negotiation is what IKE takes from the node, with the present preshared keys.
func (a *Agent) negotiation() Negotiation {
	n := a.config.Negotiation
	if a.config.Keys != nil {
		n.Secrets = a.config.Keys.Keys(a.config.Now())
	}
	return n
}

// secrets takes the preshared keys of the policy that the controller assigns, before the policy itself.
func (a *Agent) secrets(ctx context.Context, m *nodev1.Secrets) {
	if a.config.Keys == nil {
		return
	}
	changed, err := a.config.Keys.Deliver(m, a.namesSecret())
	// Looked through again even if the policy is, by then, the one for which that was done last.
	a.keysFor = compile.Digest{}
	a.keysChanged(ctx, changed, err)
	if changed {
		a.config.Logger.Info("preshared keys of the controller were replaced", "keys", len(m.GetSecrets()))
	}
}

// keysChanged configures IKE with other keys; what is established stays.
func (a *Agent) keysChanged(ctx context.Context, changed bool, err error) {
	switch {
	case errors.Is(err, keyring.ErrNotStored):
		a.config.Logger.Error("preshared keys are in force, but could not be stored: a restart would bring back older ones", "error", err)
	case err != nil:
		a.config.Logger.Error("preshared keys from the controller were refused, the present ones stay", "error", err)
	}
	if changed {
		a.reconfigure(ctx)
	}
}

// tidyKeys forgets keys that no policy of this node names any more, and former values whose time is over.
func (a *Agent) tidyKeys(ctx context.Context, now time.Time) {
	if a.config.Keys == nil {
		return
	}
	changed, err := a.config.Keys.Expire(now)
	a.keysChanged(ctx, changed, err)
	if a.pending != nil || a.unknown || a.keysFor == a.current.Digest {
		return // a policy on probation may give way to the one before, which needs its keys
	}
	a.keysFor = a.current.Digest
	changed, err = a.config.Keys.Forget(a.namesSecret())
	a.keysChanged(ctx, changed, err)
}

// namesSecret tells which keys the policies name that are in force or may come back. A policy that cannot be read may name
// any.
func (a *Agent) namesSecret() func(name string) bool {
	named := map[string]bool{}
	versions := []Version{a.current}
	if a.pending != nil {
		versions = append(versions, a.pending.version)
	}
	for _, v := range versions {
		if v.Content == nil {
			continue
		}
		policy, err := v.open()
		if err != nil {
			return func(string) bool { return true }
		}
		for _, u := range preshared.Uses(policy) {
			named[u.Name] = true
		}
	}
	return func(name string) bool { return named[name] || a.unknown }
}

// keyNotes are what the controller's administrator should know of the keys.
func (a *Agent) keyNotes() []string {
	if a.config.Keys == nil {
		return nil
	}
	var notes []string
	for _, s := range a.config.Keys.States(a.config.Now()) {
		if s.Hides {
			notes = append(notes, fmt.Sprintf("preshared key %q is taken from a file on this machine, not from the controller; remove the file to use that of the controller", s.Name))
		}
	}
	return notes
}

// accepting adds, behind each entry of a preshared key that has a former value, one of the former value: a peer that did
// not hear of the change yet is let in by it, and answered with it. This side begins with the present one and tries
// the former one where that is refused.
func accepting(auth []spd.Auth, keys map[string]sa.Secret) []spd.Auth {
	var out []spd.Auth
	for i, e := range auth {
		former := e
		former.Secret = keyring.PreviousOf(e.Secret)
		if _, ok := keys[former.Secret]; ok && e.Method == spd.AuthPSK {
			if out == nil {
				out = append(make([]spd.Auth, 0, len(auth)+1), auth[:i]...)
			}
			out = append(out, e, former)
		} else if out != nil {
			out = append(out, e)
		}
	}
	if out == nil {
		return auth
	}
	return out
}
