package agent

import (
	"context"

	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// denials takes whom not to believe from the controller, and has the peers judged again: who is denied is cut off.
func (a *Agent) denials(ctx context.Context, content []byte) {
	set, err := trust.ParseDenials(content)
	if err != nil {
		a.config.Logger.Error("denials from the controller were refused, the present ones stay", "error", err)
		return
	}
	if err := a.config.Identity.SetDenials(a.config.Now(), set); err != nil {
		a.config.Logger.Error("denials are in force, but could not be stored: a restart would bring back older ones", "error", err)
	}
	a.informed = true
	a.config.Logger.Info("denials were replaced", "machines", len(set.Machines()), "revocations", set.Revoked().Len())
	a.recheck(ctx)
}

// groups takes the members of groups from the controller, and has the peers judged again.
func (a *Agent) groups(ctx context.Context, content []byte) {
	set, err := trust.ParseGroups(content)
	if err != nil {
		a.config.Logger.Error("members of groups from the controller were refused, the present ones stay", "error", err)
		return
	}
	if same(set, a.config.Identity.Groups()) {
		return
	}
	if err := a.config.Identity.SetGroups(set); err != nil {
		a.config.Logger.Error("members of groups are in force, but could not be stored: a restart would bring back older ones", "error", err)
	}
	a.config.Logger.Info("members of groups were replaced", "groups", len(set.Names()))
	a.recheck(ctx)
}

// same reports whether two sets of groups are equal. What cannot be encoded is equal to nothing.
func same(a, b trust.Groups) bool {
	x, err := a.Digest()
	if err != nil {
		return false
	}
	y, err := b.Digest()
	return err == nil && x == y
}

// confirmDenials keeps what is known of denials current while the session that told it is open.
func (a *Agent) confirmDenials() {
	if a.connected == "" || !a.informed {
		return
	}
	if err := a.config.Identity.ConfirmDenials(a.config.Now()); err != nil {
		a.config.Logger.Error("the time of the last news about denials could not be stored", "error", err)
	}
}

func (a *Agent) recheck(ctx context.Context) {
	if err := a.config.Engine.Recheck(ctx); err != nil {
		a.config.Logger.Error("established peers could not be judged again", "error", err)
	}
}
