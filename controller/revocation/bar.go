package revocation

import (
	"context"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// Barred says why the latest certificate of a machine was revoked, if it was: a person has to look at such a machine before it
// gets another one, also when that certificate has long ended. What was superseded was replaced, and what the directory put on
// hold counts again when it enables the machine: neither is told.
func (k *Keeper) Barred(h store.Holding) string {
	if h.Barred != "" {
		return h.Barred
	}
	if r, ok := k.Record(h.Serial); ok {
		if r.Reason == revocation.Superseded.String() || r.Automatic && r.Reason == revocation.CertificateHold.String() {
			return ""
		}
		return r.Reason
	}
	if k.Set().HasKey(h.Key) {
		return revocation.KeyCompromise.String() // a key that is blocked by itself
	}
	return ""
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
		if h.Barred = k.Barred(h); h.Barred == "" || h.Barred == revocation.CessationOfOperation.String() {
			continue
		}
		if err := k.config.Store.PutHolding(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// LastRevoked is when a person last revoked a certificate of a machine; zero where that is not known, or never was. Neither what
// was superseded counts, nor what the directory is the cause of. Once a certificate is in the journal, whoever asks hears of
// every revocation that did not find it.
func (k *Keeper) LastRevoked(machine pki.UUID) time.Time {
	k.gate.RLock()
	defer k.gate.RUnlock()
	return k.current.Load().last[pki.MachineURI(k.config.TrustDomain, machine)]
}
