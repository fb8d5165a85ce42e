package enrollment

import (
	"context"
	"errors"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
)

// keepCollected is how long an approved request stays after it was decided, once its machine has the certificate: for a machine
// that did not hear the answer, and for whoever looks who approved.
const keepCollected = 24 * time.Hour

// PruneJoinRequests removes the requests that ended before the given time, and those that were approved a day before it and
// came to a certificate. It tells how many also beside an error.
func (d *Desk) PruneJoinRequests(ctx context.Context, before time.Time) (int, error) {
	if d.config.Requests == nil {
		return 0, nil
	}
	over, err := d.overRequests(ctx, before)
	if err != nil {
		return 0, err
	}
	d.queue.mu.Lock()
	defer d.queue.mu.Unlock()
	if err := d.queue.loadLocked(ctx, d.config.Requests); err != nil {
		return 0, err
	}
	pruned := 0
	for _, r := range over {
		// Its key may have asked again meanwhile, or somebody denied it.
		if now, ok := d.queue.known[r.Key]; !ok || now.State != r.State || !now.Created.Equal(r.Created) || !now.Decided.Equal(r.Decided) {
			continue
		}
		if err := d.queue.dropLocked(d.forgetLocked(ctx, r.Key)); err != nil {
			return pruned, err
		}
		pruned++
	}
	return pruned, nil
}

// overRequests are the requests to prune, as they were looked at. What machines hold is read without keeping others from filing
// meanwhile.
func (d *Desk) overRequests(ctx context.Context, before time.Time) ([]store.JoinRequest, error) {
	d.queue.mu.Lock()
	if err := d.queue.loadLocked(ctx, d.config.Requests); err != nil {
		d.queue.mu.Unlock()
		return nil, err
	}
	var over, approved []store.JoinRequest
	for _, r := range d.queue.known {
		switch {
		case r.NotAfter.Before(before):
			over = append(over, r)
		case r.State == store.RequestApproved && r.Decided.Before(before.Add(-keepCollected)):
			approved = append(approved, r)
		}
	}
	d.queue.mu.Unlock()
	for _, r := range approved {
		held, err := d.config.Holdings.Holding(ctx, r.Machine)
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return over, err
		case held.Key == r.Key || held.Issued.After(r.Decided): // another key of the machine makes the approval worthless, too
			over = append(over, r)
		}
	}
	return over, nil
}
