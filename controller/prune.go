package controller

import (
	"cmp"
	"context"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/enrollment"
)

// How long records stay after what they tell of has ended: for people who look for the reason of something, and for
// clocks that differ.
const (
	keepTokens    = 7 * 24 * time.Hour
	keepIssuances = 30 * 24 * time.Hour
	// What a machine held tells whether an older certificate was superseded, and has to last as long as that could be
	// renewed.
	keepHoldings  = maxRenewalGrace + keepIssuances
	keepEvents    = 400 * 24 * time.Hour
	pruneInterval = time.Hour
)

// records are what grows with every join and every renewal.
type records interface {
	// PruneTokens, PruneIssuances and PruneDirectoryEvents remove what ended before the time, and tell how many also beside
	// an error.
	PruneTokens(ctx context.Context, before time.Time) (int, error)
	PruneIssuances(ctx context.Context, before time.Time) (int, error)
	PruneDirectoryEvents(ctx context.Context, before time.Time) (int, error)
}

// pruneRecords removes the records of join tokens and certificates a while after they ended.
func (c *Controller) pruneRecords(ctx context.Context) error {
	tick := time.NewTicker(pruneInterval)
	defer tick.Stop()
	for {
		c.prune(ctx, c.state.store)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// pruneSecrets removes former values of secrets whose time is over.
func (c *Controller) pruneSecrets(ctx context.Context, before time.Time) (int, error) {
	if c.secrets == nil {
		return 0, nil
	}
	return c.secrets.Prune(ctx, before)
}

// pruneRequests removes the requests for certificates that ended.
func (c *Controller) pruneRequests(ctx context.Context, before time.Time) (int, error) {
	if c.desk == nil {
		return 0, nil
	}
	return c.desk.PruneJoinRequests(ctx, before)
}

// pruneHoldings removes what is known of machines that have no certificate any more.
func (c *Controller) pruneHoldings(ctx context.Context, before time.Time) (int, error) {
	if c.state.store == nil {
		return 0, nil
	}
	return c.state.store.PruneHoldings(ctx, before)
}

// pruneRevocations removes revocations of certificates that ended.
func (c *Controller) pruneRevocations(ctx context.Context, before time.Time) (int, error) {
	if c.revoked == nil {
		return 0, nil
	}
	return c.revoked.Prune(ctx, before)
}

// renewalGrace is how long after its end a certificate can be renewed. For that long it can still be revoked, and must stay
// so: its record, and that of its revocation, are all that keeps it from being renewed.
func (c Config) renewalGrace() time.Duration {
	return cmp.Or(c.Enrollment.RenewalGrace, enrollment.DefaultRenewalGrace)
}

func (c *Controller) prune(ctx context.Context, r records) {
	now, grace := c.config.Now(), c.config.renewalGrace()
	for _, kind := range []struct {
		what  string
		keep  time.Duration
		prune func(context.Context, time.Time) (int, error)
	}{
		{"join tokens", keepTokens, r.PruneTokens},
		{"certificates", keepIssuances + grace, r.PruneIssuances},
		{"revocations", keepIssuances + grace, c.pruneRevocations},
		{"directory events", keepEvents, r.PruneDirectoryEvents},
		{"former values of secrets", 0, c.pruneSecrets},
		{"requests for certificates", 0, c.pruneRequests},
		{"certificates of machines", keepHoldings, c.pruneHoldings},
	} {
		pruned, err := kind.prune(ctx, now.Add(-kind.keep))
		if err != nil && ctx.Err() == nil {
			c.log.Warn("cannot remove all records of what has ended, will try again", "records", kind.what, "error", err)
		}
		if pruned > 0 {
			c.log.Info("records of what has ended were removed", "records", kind.what, "number", pruned)
		}
	}
}
