package revocation

import (
	"context"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// byDirectory is who revokes because of the directory.
const byDirectory = "directory"

const (
	// sweepInterval is how often all certificates are held against the directory, whether it changed or not.
	sweepInterval = time.Hour
	// sweepPause joins changes of the directory that follow each other.
	sweepPause = time.Second
)

// DirectoryChanged asks for a comparison with the directory. It never blocks.
func (k *Keeper) DirectoryChanged() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Run keeps the revocations in step with the directory until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	full := time.NewTicker(sweepInterval)
	defer full.Stop()
	settled := map[string]desired{}
	for {
		select {
		case <-k.wake:
		case <-full.C:
			clear(settled)
		case <-ctx.Done():
			return nil
		}
		if err := k.sweep(ctx, settled); err != nil && ctx.Err() == nil {
			k.config.Log.Error("certificates cannot be held against the directory, will try again", "error", err)
			clear(settled)
			time.AfterFunc(sweepPause, k.DirectoryChanged)
			continue
		}
		pause := time.NewTimer(sweepPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil
		}
	}
}

// desired is what the directory makes of the certificates of a machine.
type desired uint8

const (
	good desired = iota // enabled, or missing within its grace time
	held                // its account is disabled
	over                // gone beyond its grace time
)

// sweep puts certificates of disabled machines on hold, revokes those of machines that are gone, and lifts the holds of
// machines that are enabled again. settled remembers what was done before.
func (k *Keeper) sweep(ctx context.Context, settled map[string]desired) error {
	view := k.config.View()
	// What an earlier run read may be long out of date, and a revocation is for good.
	if view == nil || view.Restored {
		// That the directory still says what was remembered is announced to nobody.
		time.AfterFunc(sweepPause, k.DirectoryChanged)
		return nil
	}
	subjects, err := k.config.Store.IssuedSubjects(ctx, "")
	if err != nil {
		return err
	}
	automatic := k.byDirectory()
	for _, subject := range subjects {
		domain, machine, ok := pki.ParseMachineURI(subject)
		if !ok || domain != k.config.TrustDomain {
			continue
		}
		want := good
		switch m, _, known := view.Machine(directory.UUID(machine)); {
		case !known:
			want = over
		case m.Disabled:
			want = held
		}
		before, seen := settled[subject]
		if seen && before == want || !seen && want == good && !automatic[subject] {
			continue
		}
		if err := k.bring(ctx, subject, want); err != nil {
			return err
		}
		settled[subject] = want
	}
	return nil
}

// byDirectory are the subjects with records that the directory is the cause of.
func (k *Keeper) byDirectory() map[string]bool {
	subjects := map[string]bool{}
	for _, r := range k.current.Load().records {
		if r.Automatic {
			subjects[r.Subject] = true
		}
	}
	return subjects
}

// bring makes the records of one machine what the directory wants. Records that a person made are left alone.
func (k *Keeper) bring(ctx context.Context, subject string, want desired) error {
	k.gate.Lock()
	defer k.gate.Unlock()
	if want == good {
		var lift []store.Revocation
		for _, r := range k.current.Load().records {
			if r.Automatic && r.Subject == subject && r.Reason == revocation.CertificateHold.String() {
				lift = append(lift, r)
			}
		}
		if len(lift) > 0 {
			k.config.Log.Info("machine is enabled again, its certificates count again", "machine", subject, "certificates", len(lift))
		}
		return k.write(ctx, nil, lift, byDirectory)
	}
	reason := revocation.CertificateHold
	if want == over {
		reason = revocation.CessationOfOperation
	}
	entries, err := k.config.Store.IssuancesTo(ctx, subject)
	if err != nil {
		return err
	}
	var wanted []store.Revocation
	for _, e := range entries {
		if !e.Intention.NotAfter.After(k.config.Now()) {
			continue
		}
		r := k.record(e, reason, byDirectory)
		r.Automatic = true
		// A hold that a person ordered becomes final by the directory, but never less.
		wanted = append(wanted, r)
	}
	out, err := k.apply(ctx, wanted, byDirectory)
	if err == nil && len(out.Changed) > 0 {
		k.config.Log.Warn("certificates revoked because of the directory", "machine", subject, "reason", reason, "certificates", len(out.Changed))
	}
	return err
}
