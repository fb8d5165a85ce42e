package authority

import (
	"context"
	"fmt"
)

// enter waits until nobody else takes a step.
func (k *Keeper) enter(ctx context.Context) error {
	select {
	case k.stepping <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for another step of a rotation: %w", ctx.Err())
	}
}

func (k *Keeper) leave() { <-k.stepping }

// Follow reads at every hint whether the store has another state than this controller works with, until there are no more. A
// step whose answer was lost, because the store failed at that moment, may have been made all the same; and what could not be
// told to all whom a step concerns is told again.
func (k *Keeper) Follow(ctx context.Context, hints <-chan struct{}) {
	for range hints {
		if err := k.look(ctx); err != nil && ctx.Err() == nil {
			k.config.Log.Warn("this controller may not follow the CAs of the store, it looks again", "error", err)
		}
	}
}

func (k *Keeper) look(ctx context.Context) error {
	if err := k.enter(ctx); err != nil {
		return err
	}
	defer k.leave()
	_, revision, err := k.config.Store.Authorities(ctx)
	if err != nil {
		return err
	}
	return k.catchUp(ctx, revision)
}

// catchUp follows the store, which is at that revision, unless it was followed there. The caller entered.
func (k *Keeper) catchUp(ctx context.Context, revision int64) error {
	if k.followed && k.current.Load().revision == revision {
		return nil
	}
	return k.follow(ctx)
}

// follow makes memory follow the store, and tells whoever is to be told of changes. The caller entered.
func (k *Keeper) follow(ctx context.Context) error {
	k.followed = false
	if err := k.load(ctx); err != nil {
		return err
	}
	if err := k.changed(ctx); err != nil {
		return err
	}
	k.followed = true
	return nil
}
