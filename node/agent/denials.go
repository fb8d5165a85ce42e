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
