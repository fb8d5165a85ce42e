package controller

import (
	"context"
	"time"
)

// The store is asked this often for an answer that a quorum agrees on, and may take so long for it: longer than an election.
const (
	storeInterval = 2 * time.Second
	storeAnswer   = 3 * time.Second
)

// watchStore tells when the store does not answer any more, and when it does again, until ctx ends.
func (c *Controller) watchStore(ctx context.Context) error {
	tick := time.NewTicker(storeInterval)
	defer tick.Stop()
	var since time.Time
	for {
		ask, cancel := context.WithTimeout(ctx, storeAnswer)
		err := c.state.store.Ping(ask)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && since.IsZero():
			since = time.Now()
			c.log.Error("the store does not answer: nothing is issued, revoked or changed, and nodes keep what they have", "error", err)
		case err == nil && !since.IsZero():
			c.log.Warn("the store answers again", "after", time.Since(since).Round(time.Second))
			since = time.Time{}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
