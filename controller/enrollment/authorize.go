package enrollment

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// DefaultRenewalGrace is how long after its end a certificate can still be renewed unless the configuration says otherwise.
const DefaultRenewalGrace = 14 * 24 * time.Hour

var (
	// ErrSuperseded is wrapped when a certificate is presented of a machine that has enrolled anew since.
	ErrSuperseded = errors.New("the machine has enrolled anew since, so this certificate counts no more")
	// ErrGraceOver is wrapped when a certificate is presented for renewal too long after its end.
	ErrGraceOver = errors.New("the certificate ended too long ago to be renewed")
	// ErrOtherKey is wrapped when a certificate that has ended is to be renewed for another key.
	ErrOtherKey = errors.New("a certificate that has ended is renewed for the same key only")
)

// A claim is why somebody may have a certificate of a machine: a tokenClaim, a requestClaim, an accountClaim, a renewalClaim or
// an administratorClaim, and nothing else.
type claim interface {
	// machine is whose certificate it is about.
	machine() pki.UUID
	// admits holds the request against the claim. It changes nothing but the names that the request states, where the
	// machine cannot know the present ones.
	admits(ctx context.Context, request *enroll.Request, present pki.Identity) error
	// spend uses the claim up for the key of the request: of many callers one gets past.
	spend(ctx context.Context, key pki.KeyID) error
	// granted is when a person granted it; zero where none did.
	granted() time.Time
	// String names the claim in the log and in the record of what the machine holds.
	String() string
}

// Holdings is the store of what machines hold.
type Holdings interface {
	Holding(ctx context.Context, u pki.UUID) (store.Holding, error)
	PutHolding(ctx context.Context, h store.Holding) error
}

// machine finds the entry of a machine that may have a certificate.
func (d *Desk) machine(u pki.UUID) (pki.Identity, error) {
	snapshot := d.config.Snapshot()
	if snapshot == nil {
		return pki.Identity{}, ErrNotReady
	}
	m, ok := snapshot.Machine(directory.UUID(u))
	switch {
	case !ok:
		return pki.Identity{}, fmt.Errorf("entry with the UUID %v: %w", u, ErrMachineUnknown)
	case m.Disabled:
		return pki.Identity{}, fmt.Errorf("entry %q: %w", m.DN, ErrMachineDisabled)
	}
	return Identity(d.config.TrustDomain, m)
}

// authorize is the one way to a certificate of a machine, whatever the claim; the package comment has the steps.
func (d *Desk) authorize(ctx context.Context, c claim, csr []byte) (ca.Issued, error) {
	// 2. The machine.
	id, err := d.machine(c.machine())
	if err != nil {
		return ca.Issued{}, err
	}
	if err := d.hoards.left(d.config.Now(), d.hoard(id), "machine "+id.String()); err != nil {
		return ca.Issued{}, err
	}
	// 3. The request.
	request, err := enroll.ParseRequest(csr)
	if err != nil {
		return ca.Issued{}, err
	}
	if err := c.admits(ctx, &request, id); err != nil {
		return ca.Issued{}, err
	}
	if err := d.meant(c, id); err != nil {
		return ca.Issued{}, err
	}
	leave, err := d.gate.enter(ctx)
	if err != nil {
		return ca.Issued{}, err
	}
	defer leave()
	// 4. The certificate.
	prepared, err := d.config.Authority.Prepare(d.config.Now(), d.profile(c), request, id)
	if err != nil {
		return ca.Issued{}, err
	}
	// 5. The redemption.
	if err := c.spend(ctx, request.KeyID); err != nil {
		return ca.Issued{}, err
	}
	if err := d.machines.take(d.config.Now(), c.machine(), "machine "+id.String()); err != nil {
		return ca.Issued{}, err
	}
	// 6. The signature. A caller that hangs up must not leave a half-issued certificate behind.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	issued, err := d.config.Authority.Issue(ctx, prepared)
	if err != nil {
		d.config.Log.Error("a certificate was granted, but none came of it; the machine may ask again with the same key",
			"granted-by", c, "machine", id, "error", err)
		return ca.Issued{}, err
	}
	// Somebody may have revoked what the machine had since this was looked at.
	if err := d.meant(c, id); err != nil {
		return ca.Issued{}, err
	}
	// Of several at once one may pass too many, and each of them was counted among the few in a row.
	_ = d.hoards.take(d.config.Now(), d.hoard(id), "machine "+id.String())
	// 7. What the machine holds now. Where this fails the certificate is not given away.
	if err := d.hold(ctx, c, id, request.KeyID, issued); err != nil {
		return ca.Issued{}, err
	}
	d.config.Log.Info("machine certificate issued", "machine", id, "granted-by", c, "serial", prepared.Intention().Serial,
		"not-after", issued.Leaf.NotAfter.Format(time.RFC3339))
	return issued, nil
}

// A hoard is what a machine got since a person last revoked something of it, at so many nanoseconds after
// the Unix epoch; 0 is never.
type hoard struct {
	machine pki.UUID
	since   int64
}

func (d *Desk) hoard(id pki.Identity) hoard {
	h := hoard{machine: id.UUID()}
	if d.config.LastRevoked != nil {
		if at := d.config.LastRevoked(id.UUID()); !at.IsZero() {
			h.since = at.UnixNano()
		}
	}
	return h
}

// hold records the certificate as what its machine holds, and what it held before as superseded unless this is a renewal.
func (d *Desk) hold(ctx context.Context, c claim, id pki.Identity, key pki.KeyID, issued ca.Issued) error {
	const attempts = 5
	for attempt := 1; ; attempt++ {
		former, err := d.config.Holdings.Holding(ctx, id.UUID())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		known := err == nil
		next := former
		next.Machine, next.Serial, next.Key = id.UUID(), issued.Leaf.SerialNumber.Text(16), key
		next.Barred = "" // whoever let it in looked at it
		next.NotAfter, next.Issued, next.How = issued.Leaf.NotAfter.UTC(), d.config.Now().UTC(), c.String()
		renewed, renewal := c.(*renewalClaim)
		// The machine may have enrolled anew since the claim was looked at: the old key must not take it back.
		if renewal && known {
			if err := renewed.counts(former); err != nil {
				return err
			}
		}
		anew := known && !renewal && former.Key != key
		if !known || anew {
			next.Since = issued.Leaf.NotBefore.UTC()
		}
		if anew {
			next.Superseded = former.Key
			// First, because whoever asks again after a failure holds the new key already, and supersedes nothing.
			if d.config.Supersede != nil {
				if err := d.config.Supersede(ctx, former, next.Serial); err != nil {
					return err
				}
			}
		}
		switch err = d.config.Holdings.PutHolding(ctx, next); {
		case errors.Is(err, store.ErrConflict) && attempt < attempts:
			continue // another certificate of the same machine at the same time
		case err != nil:
			return err
		}
		if anew {
			d.config.Log.Warn("machine enrolled anew, what it held before counts no more", "machine", id, "granted-by", c, "former", former.Serial, "former-granted-by", former.How)
		}
		return nil
	}
}

// meant refuses what was granted before a certificate of the machine was revoked: whoever made the token, or approved the
// request, did not know, and whoever has the machine may have found it there.
func (d *Desk) meant(c claim, id pki.Identity) error {
	granted := c.granted()
	if granted.IsZero() || d.config.LastRevoked == nil {
		return nil
	}
	if at := d.config.LastRevoked(id.UUID()); !at.IsZero() && !granted.After(at) {
		return fmt.Errorf("%v was granted at %s, and a certificate of %v revoked at %s: %w", c, granted.UTC().Format(time.RFC3339), id, at.UTC().Format(time.RFC3339), ErrBarred)
	}
	return nil
}

// A renewalClaim is the certificate that the machine presented.
type renewalClaim struct {
	desk    *Desk
	present pki.Identity
	leaf    *x509.Certificate
}

func (c *renewalClaim) machine() pki.UUID { return c.present.UUID() }

func (c *renewalClaim) admits(ctx context.Context, request *enroll.Request, present pki.Identity) error {
	// A machine that was renamed in the directory knows its former name only, and asks in that. It is the same object,
	// and gets the present name.
	if request.Subject != nil && request.Subject.SANs().Equal(c.present.SANs()) {
		request.Subject = present
	}
	key, err := pki.KeyIDOf(c.leaf.PublicKey)
	if err != nil {
		return err
	}
	if late := c.desk.config.Now().Sub(c.leaf.NotAfter); late > 0 {
		if late > c.desk.config.RenewalGrace {
			return fmt.Errorf("certificate %s of %v ended at %s, more than %v ago: %w", c.leaf.SerialNumber.Text(16), c.present,
				c.leaf.NotAfter.UTC().Format(time.RFC3339), c.desk.config.RenewalGrace, ErrGraceOver)
		}
		// The key alone has outlived the certificate. Nobody vouches for more than that it is still in the same hands.
		if request.KeyID != key {
			return fmt.Errorf("certificate %s of %v: %w", c.leaf.SerialNumber.Text(16), c.present, ErrOtherKey)
		}
	}
	held, err := c.desk.config.Holdings.Holding(ctx, c.machine())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil // issued before holdings were recorded
	case err != nil:
		return err
	}
	return c.counts(held)
}

// counts refuses a certificate of an enrolment before the one that the machine holds a certificate of.
func (c *renewalClaim) counts(held store.Holding) error {
	key, err := pki.KeyIDOf(c.leaf.PublicKey)
	if err != nil {
		return err
	}
	if held.Superseded == key || c.leaf.NotBefore.Before(held.Since) {
		return fmt.Errorf("certificate %s of %v: %w", c.leaf.SerialNumber.Text(16), c.present, ErrSuperseded)
	}
	return nil
}

func (c *renewalClaim) spend(context.Context, pki.KeyID) error { return nil }

func (c *renewalClaim) granted() time.Time { return time.Time{} }

func (c *renewalClaim) String() string { return "renewal of " + c.leaf.SerialNumber.Text(16) }

// Renew answers a machine that has a certificate, which the caller verified: at the present time or, where it has ended,
// at the time of its end.
func (d *Desk) Renew(ctx context.Context, leaf *x509.Certificate, csr []byte) (ca.Issued, error) {
	present, err := pki.IdentityFromCertificate(leaf)
	if err != nil {
		return ca.Issued{}, err
	}
	return d.authorize(ctx, &renewalClaim{desk: d, present: present, leaf: leaf}, csr)
}

// RenewalGrace is how long after its end a certificate can still be renewed.
func (d *Desk) RenewalGrace() time.Duration { return d.config.RenewalGrace }

// An administratorClaim is the word of an administrator.
type administratorClaim struct {
	uuid pki.UUID
	by   string
}

func (c administratorClaim) machine() pki.UUID { return c.uuid }

func (c administratorClaim) admits(context.Context, *enroll.Request, pki.Identity) error { return nil }

func (c administratorClaim) spend(context.Context, pki.KeyID) error { return nil }

func (c administratorClaim) granted() time.Time { return time.Time{} }

func (c administratorClaim) String() string { return "administrator " + c.by }

// IssueMachine issues a certificate of a machine to an administrator, who passes it on: for peers that do not enrol
// themselves. Whoever calls it decided that the caller may have it.
func (d *Desk) IssueMachine(ctx context.Context, m directory.Machine, csr []byte, by string) (ca.Issued, error) {
	return d.authorize(ctx, administratorClaim{uuid: pki.UUID(m.UUID), by: by}, csr)
}

// askedBefore refuses a key that a claim was spent for at the given time, where the machine has got a certificate for
// another key since: who asks again would otherwise take the machine back.
func (d *Desk) askedBefore(ctx context.Context, u pki.UUID, key pki.KeyID, spent time.Time) error {
	held, err := d.config.Holdings.Holding(ctx, u)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case held.Key != key && held.Issued.After(spent):
		return fmt.Errorf("machine %v got certificate %s by %s: %w", u, held.Serial, held.How, ErrSuperseded)
	}
	return nil
}
