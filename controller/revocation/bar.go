package revocation

import (
	"context"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// Barred says why the latest certificate of a machine was revoked, and when, if it was: a person has to look at such a machine before it
// gets another one, also when that certificate has long ended. What was superseded was replaced, and what the directory put on
// hold counts again when it enables the machine: neither is told. The time is zero where the record of it has gone, or the key was blocked by another certificate.
func (k *Keeper) Barred(h store.Holding) (reason string, since time.Time) {
	if h.Barred != "" {
		return h.Barred, time.Time{}
	}
	if r, ok := k.Record(h.Serial); ok {
		if r.Reason == revocation.Superseded.String() || r.Automatic && r.Reason == revocation.CertificateHold.String() {
			return "", time.Time{}
		}
		return r.Reason, r.At
	}
	if k.Set().HasKey(h.Key) { // a key that is blocked by itself
		r, _ := k.Record(store.Revocation{Key: h.Key}.ID())
		return revocation.KeyCompromise.String(), r.At
	}
	return "", time.Time{}
}

// remember notes with the machines whose latest certificate ended before the given time why it was revoked, before the record
// of that goes. A machine whose entry was deleted is not noted: its entry comes back when its directory's administrator says so.
func (k *Keeper) remember(ctx context.Context, before time.Time) error {
	holdings, err := k.config.Store.Holdings(ctx)
	if err != nil {
		return err
	}
	for _, h := range holdings {
		if h.Barred != "" || !h.NotAfter.Before(before) {
			continue
		}
		if h.Barred, _ = k.Barred(h); h.Barred == "" || h.Barred == revocation.CessationOfOperation.String() {
			continue
		}
		if err := k.config.Store.PutHolding(ctx, h); err != nil {
			return err
		}
	}
	return nil
}
