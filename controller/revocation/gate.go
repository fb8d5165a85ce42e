package revocation

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

type callerKey struct{}

// WithCaller says whose certificate a call came with, after it was verified.
func WithCaller(ctx context.Context, v trust.Verdict) context.Context {
	return context.WithValue(ctx, callerKey{}, v)
}

// Caller returns what was verified of the certificate that a call came with.
func Caller(ctx context.Context) (trust.Verdict, bool) {
	v, ok := ctx.Value(callerKey{}).(trust.Verdict)
	return v, ok
}

// Authority is the CA as enrollment sees it.
type Authority interface {
	Prepare(now time.Time, profile ca.Profile, request enroll.Request, subject pki.Subject) (*ca.Prepared, error)
	Issue(ctx context.Context, p *ca.Prepared) (ca.Issued, error)
	Pin() pki.KeyID
}

// Guard puts the check of keys and callers before a CA: whatever the way in, no revoked key gets another certificate, and
// no holder of a revoked certificate any.
func (k *Keeper) Guard(a Authority) Authority { return guarded{a, k} }

type guarded struct {
	Authority
	keeper *Keeper
}

// Prepare implements Authority. It refuses a revoked key early, before anything is used up.
func (g guarded) Prepare(now time.Time, profile ca.Profile, request enroll.Request, subject pki.Subject) (*ca.Prepared, error) {
	if err := g.keeper.admits(request.KeyID); err != nil {
		return nil, fmt.Errorf("preparing a certificate for %v: %w", subject, err)
	}
	return g.Authority.Prepare(now, profile, request, subject)
}

// Issue implements Authority. Nobody who revokes waits for a signature, which a token that hangs may never make. Instead the
// question is asked again when the certificate is in the journal, behind whoever is about to revoke: a revocation from before
// is seen then, and one from after finds the certificate.
func (g guarded) Issue(ctx context.Context, p *ca.Prepared) (ca.Issued, error) {
	if err := g.keeper.mayIssue(ctx, p); err != nil {
		return ca.Issued{}, fmt.Errorf("issuing a certificate for %v: %w", p.Subject(), err)
	}
	issued, err := g.Authority.Issue(ctx, p)
	if err != nil {
		return ca.Issued{}, err
	}
	if err = g.keeper.mayIssue(ctx, p); err == nil {
		if revoked := g.keeper.Set().CheckPath(append([]*x509.Certificate{issued.Leaf}, issued.Issuers...)); revoked != nil {
			err = fmt.Errorf("%w: %w", ErrKeyRevoked, revoked)
		}
	}
	if err != nil {
		return ca.Issued{}, fmt.Errorf("giving away the certificate %s of %v, which was signed: %w", p.Intention().Serial, p.Subject(), err)
	}
	return issued, nil
}

// mayIssue holds what is to be certified, and the caller, against what is in force.
func (k *Keeper) mayIssue(ctx context.Context, p *ca.Prepared) error {
	k.gate.RLock()
	defer k.gate.RUnlock()
	if err := k.admits(p.Intention().Key); err != nil {
		return err
	}
	if err := k.admitsMachine(p.Subject()); err != nil {
		return err
	}
	if caller, ok := Caller(ctx); ok {
		if err := k.Set().CheckPath(caller.Path); err != nil {
			return fmt.Errorf("%w: %w", ErrKeyRevoked, err)
		}
	}
	return nil
}

func (k *Keeper) admits(key pki.KeyID) error {
	if k.Set().HasKey(key) {
		return fmt.Errorf("the key %v: %w", key, ErrKeyRevoked)
	}
	return nil
}

// admitsMachine refuses a machine that the directory stopped admitting since it was let in: whoever follows the directory
// revokes what is in the journal then, and would not see what comes into it afterwards.
func (k *Keeper) admitsMachine(subject pki.Subject) error {
	id, ok := subject.(pki.Identity)
	if !ok {
		return nil
	}
	view := k.config.View()
	if view == nil {
		return nil // nothing was held against it, and nothing will be before it was read
	}
	if m, _, known := view.Machine(directory.UUID(id.UUID())); known && m.Disabled || !known && !view.Restored {
		return ErrNotAdmitted
	}
	return nil
}
