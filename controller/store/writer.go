package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// DefaultClaimTTL is how long a claim outlives a controller that died.
const DefaultClaimTTL = 10 * time.Second

// A Writer tells people who holds a store.
type Writer struct {
	Host    string    `json:"host"`
	Process int       `json:"process"`
	Since   time.Time `json:"since"`
}

// String returns "host, process n, since time".
func (w Writer) String() string {
	return fmt.Sprintf("%s, process %d, since %s", w.Host, w.Process, w.Since.UTC().Format(time.RFC3339))
}

// A Claim makes a Store the only one that writes below its prefix. It consists of two keys: one with a lease, which is
// there while the claimant lives, and one without, whose revision every write of the claimant compares. So nobody
// claims beside a living writer, and a writer that was taken for dead, slept and woke up again cannot write any more.
//
//	(free) -- Claim --> (held) -- Release, or lease over --> (free)
//	                      ^---- lease over, nobody else came: claimed again ----'
type Claim struct {
	store *Store
	value string // what both keys hold; no two claims have the same
	ttl   time.Duration
	epoch int64 // revision of the claim
	lost  chan error
	stop  context.CancelFunc
	done  chan struct{}

	lease clientv3.LeaseID // owned by the goroutine of keep, and by Release after it
}

func (s *Store) writerKey() string { return s.key("writer") }
func (s *Store) epochKey() string  { return s.key("writer-epoch") }

// Claim claims the store until Release. Where a claim is left of a writer that died, it waits for its end; beside one
// that lives the error wraps ErrHeld. A ttl of 0 means DefaultClaimTTL; servers have a least one of about 2 s.
func (s *Store) Claim(ctx context.Context, w Writer, ttl time.Duration) (*Claim, error) {
	if ttl == 0 {
		ttl = DefaultClaimTTL
	}
	w.Since = w.Since.UTC()
	value, err := encode("claim", w)
	if err != nil {
		return nil, err
	}
	c := &Claim{store: s, value: value, ttl: ttl, lost: make(chan error, 1), done: make(chan struct{})}
	patience := time.NewTimer(2 * ttl)
	defer patience.Stop()
	for {
		holder, err := c.try(ctx)
		if err != nil {
			return nil, fmt.Errorf("claiming the store: %w", err)
		}
		if holder == nil {
			break
		}
		if err := s.awaitEnd(ctx, holder.lease, ttl, patience.C); err != nil {
			return nil, fmt.Errorf("claiming the store, which another controller writes (%s): stop it, or give each controller its own prefix: %w", holder.name, err)
		}
	}
	s.fence.Store(c.epoch)
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	go c.keep(keeping)
	return c, nil
}

type holder struct {
	name  string
	lease clientv3.LeaseID
}

// try makes one attempt; it returns who holds the store if somebody else does.
func (c *Claim) try(ctx context.Context) (*holder, error) {
	lease, err := c.grant(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := c.store.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(c.store.writerKey()), "=", 0)).
		Then(clientv3.OpPut(c.store.writerKey(), c.value, clientv3.WithLease(lease)), clientv3.OpPut(c.store.epochKey(), c.value)).
		Else(clientv3.OpGet(c.store.writerKey())).Commit()
	if err != nil {
		return nil, err
	}
	if resp.Succeeded {
		c.lease, c.epoch = lease, resp.Header.Revision
		return nil, nil
	}
	c.revoke(ctx, lease)
	kv := resp.Responses[0].GetResponseRange().Kvs[0]
	h := &holder{name: "unknown", lease: clientv3.LeaseID(kv.Lease)}
	var w Writer
	if json.Unmarshal(kv.Value, &w) == nil {
		h.name = w.String()
	}
	return h, nil
}

func (c *Claim) grant(ctx context.Context) (clientv3.LeaseID, error) {
	// Rounded up: a lease is whole seconds.
	resp, err := c.store.client.Grant(ctx, int64((c.ttl+time.Second-1)/time.Second))
	if err != nil {
		return 0, err
	}
	return resp.ID, nil
}

// revoke ends a lease early; one that cannot be revoked ends by itself.
func (c *Claim) revoke(ctx context.Context, lease clientv3.LeaseID) {
	_, _ = c.store.client.Revoke(ctx, lease)
}

// awaitEnd waits until the lease is over. If it is renewed, its owner lives, and the error is ErrHeld.
func (s *Store) awaitEnd(ctx context.Context, lease clientv3.LeaseID, ttl time.Duration, patience <-chan time.Time) error {
	tick := time.NewTicker(max(100*time.Millisecond, ttl/8))
	defer tick.Stop()
	least := int64(-1)
	for {
		resp, err := s.client.TimeToLive(ctx, lease)
		switch {
		case errors.Is(err, rpctypes.ErrLeaseNotFound), err == nil && resp.TTL <= 0:
			return nil
		case err != nil:
			return err
		case least >= 0 && resp.TTL > least:
			return ErrHeld
		}
		least = resp.TTL
		select {
		case <-tick.C:
		case <-patience:
			return ErrHeld
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Lost tells when another writer took over; from then on every write fails with ErrNotWriter.
func (c *Claim) Lost() <-chan error { return c.lost }

// Release gives the store free for the next writer.
func (c *Claim) Release() {
	c.stop()
	<-c.done
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	c.revoke(ctx, c.lease)
}

// keep renews the lease until ctx ends or another writer took over. An etcd that does not answer is no reason to stop:
// nothing can be written then, and if the lease ends meanwhile, the revision decides whether the claim still holds.
func (c *Claim) keep(ctx context.Context) {
	defer close(c.done)
	tick := time.NewTicker(c.ttl / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		try, cancel := context.WithTimeout(ctx, c.ttl/3)
		_, err := c.store.client.KeepAliveOnce(try, c.lease)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			err = c.again(try)
		}
		cancel()
		if errors.Is(err, ErrNotWriter) {
			c.lost <- err
			return
		}
	}
}

// again claims anew after the lease ended, if nobody else claimed since.
func (c *Claim) again(ctx context.Context) error {
	lease, err := c.grant(ctx)
	if err != nil {
		return err
	}
	s := c.store
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(s.writerKey()), "=", 0), clientv3.Compare(clientv3.ModRevision(s.epochKey()), "=", c.epoch)).
		Then(clientv3.OpPut(s.writerKey(), c.value, clientv3.WithLease(lease))).
		Else(clientv3.OpGet(s.writerKey()), clientv3.OpGet(s.epochKey())).Commit()
	if err != nil {
		return err
	}
	if resp.Succeeded {
		c.lease = lease
		return nil
	}
	c.revoke(ctx, lease)
	writer, epoch := resp.Responses[0].GetResponseRange().Kvs, resp.Responses[1].GetResponseRange().Kvs
	if len(epoch) == 1 && epoch[0].ModRevision == c.epoch && len(writer) == 1 && string(writer[0].Value) == c.value {
		// An earlier attempt succeeded, whose answer was lost.
		c.lease = clientv3.LeaseID(writer[0].Lease)
		return nil
	}
	return fmt.Errorf("keeping the claim on the store: %w", ErrNotWriter)
}
