package enrollment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

var (
	// ErrMachineUnknown is wrapped when the machine is not in the directory.
	ErrMachineUnknown = errors.New("machine is not in the directory")
	// ErrMachineDisabled is wrapped when the machine's account is disabled in the directory.
	ErrMachineDisabled = errors.New("machine is disabled in the directory")
	// ErrNotReady is wrapped while the directory was never read.
	ErrNotReady = errors.New("the directory has not been read yet")
)

// Tokens is the store of join tokens.
type Tokens interface {
	CreateToken(ctx context.Context, t store.Token) error
	Token(ctx context.Context, id enroll.TokenID) (store.Token, error)
	RedeemToken(ctx context.Context, t store.Token, now time.Time, key pki.KeyID) error
}

// Authority is the CA.
type Authority interface {
	Prepare(now time.Time, profile ca.Profile, request enroll.Request, subject pki.Subject) (*ca.Prepared, error)
	Issue(ctx context.Context, p *ca.Prepared) (ca.Issued, error)
	Pin() pki.KeyID
}

// Config is what a Desk works with.
type Config struct {
	Tokens    Tokens
	Authority Authority
	// Snapshot returns the directory in force, nil before the first.
	Snapshot func() *directory.Snapshot
	// Trust returns the trust bundle of the fleet.
	Trust func() trust.Bundle
	// TrustDomain is that of every certificate issued.
	TrustDomain string
	// Machine and Admin are the profiles of the certificates.
	Machine, Admin ca.Profile
	Now            func() time.Time
	Log            hclog.Logger
}

// A Desk answers requests for certificates. It is safe for concurrent use.
type Desk struct {
	config   Config
	renewals renewals
}

// New makes a Desk.
func New(c Config) *Desk {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	return &Desk{config: c}
}

// Identity returns the identity that the entry of a machine gives it. A machine whose entry has no DNS name gets its
// short name in the trust domain.
func Identity(trustDomain string, m directory.Machine) (pki.Identity, error) {
	name := m.DNSName
	if name == "" {
		name = m.Name + "." + trustDomain
	}
	id, err := pki.NewIdentity(trustDomain, pki.UUID(m.UUID), name)
	if err != nil {
		return pki.Identity{}, fmt.Errorf("entry %q: %w", m.DN, err)
	}
	return id, nil
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

// Names tells whom a token is for. The token may have been used, but not have ended.
func (d *Desk) Names(ctx context.Context, text string) (pki.Identity, error) {
	record, _, _, err := d.check(ctx, text)
	if err != nil {
		return pki.Identity{}, err
	}
	return d.machine(record.Machine)
}

// check reads a token and its record. used, without an error, says that the token was redeemed but has not ended: its
// secret is right, so that the key it was redeemed for may ask again.
func (d *Desk) check(ctx context.Context, text string) (record store.Token, presented enroll.Token, used bool, err error) {
	if presented, err = enroll.ParseToken(text); err != nil {
		return store.Token{}, enroll.Token{}, false, err
	}
	record, err = d.config.Tokens.Token(ctx, presented.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return store.Token{}, enroll.Token{}, false, fmt.Errorf("join token %v: %w", presented.ID, enroll.ErrTokenUnknown)
	case err != nil:
		return store.Token{}, enroll.Token{}, false, err
	}
	now := d.config.Now()
	err = enroll.Verify(now, record.Stored, presented)
	switch {
	case err == nil:
		return record, presented, false, nil
	case errors.Is(err, enroll.ErrTokenUsed) && now.Before(record.NotAfter):
		return record, presented, true, nil
	}
	return store.Token{}, enroll.Token{}, false, err
}

// Enroll answers a join; the package comment has the steps.
func (d *Desk) Enroll(ctx context.Context, text string, csr []byte) (ca.Issued, error) {
	// 1. The token.
	record, presented, used, err := d.check(ctx, text)
	if err != nil {
		return ca.Issued{}, err
	}
	// 2. The machine.
	id, err := d.machine(record.Machine)
	if err != nil {
		return ca.Issued{}, err
	}
	// 3. The request.
	request, err := enroll.ParseRequest(csr)
	if err != nil {
		return ca.Issued{}, err
	}
	if used && record.UsedBy != request.KeyID {
		return ca.Issued{}, fmt.Errorf("join token %v was used at %s, with another key: %w", presented.ID, record.Used.Format(time.RFC3339), enroll.ErrTokenUsed)
	}
	// 4. The certificate.
	prepared, err := d.config.Authority.Prepare(d.config.Now(), d.config.Machine, request, id)
	if err != nil {
		return ca.Issued{}, err
	}
	// 5. The redemption.
	if !used {
		if err := d.redeem(ctx, record, presented, request.KeyID); err != nil {
			return ca.Issued{}, err
		}
	}
	// 6. The signature. A caller that hangs up must not leave a half-issued certificate behind.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	issued, err := d.config.Authority.Issue(ctx, prepared)
	if err != nil {
		d.config.Log.Error("join token was redeemed, but no certificate came of it; the machine may ask again with the same key",
			"token", record.ID, "machine", id, "error", err)
		return ca.Issued{}, err
	}
	d.config.Log.Info("machine joined", "machine", id, "token", record.ID, "serial", prepared.Intention().Serial, "not-after", issued.Leaf.NotAfter.Format(time.RFC3339))
	return issued, nil
}

// redeem uses the token up. Whoever loses the race learns it as if they had come later.
func (d *Desk) redeem(ctx context.Context, record store.Token, presented enroll.Token, key pki.KeyID) error {
	err := d.config.Tokens.RedeemToken(ctx, record, d.config.Now(), key)
	if !errors.Is(err, store.ErrConflict) {
		return err
	}
	record, err = d.config.Tokens.Token(ctx, record.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("join token %v was revoked: %w", presented.ID, enroll.ErrTokenUnknown)
	case err != nil:
		return err
	}
	err = enroll.Verify(d.config.Now(), record.Stored, presented)
	switch {
	case errors.Is(err, enroll.ErrTokenUsed) && record.UsedBy == key:
		return nil // the same machine asked twice at once
	case err != nil:
		return err
	}
	return fmt.Errorf("join token %v changed while it was redeemed, try again: %w", presented.ID, store.ErrConflict)
}

// Renew answers a machine that has a certificate: present is the identity in it, which the caller verified.
func (d *Desk) Renew(ctx context.Context, present pki.Identity, csr []byte) (ca.Issued, error) {
	id, err := d.machine(present.UUID())
	if err != nil {
		return ca.Issued{}, err
	}
	request, err := enroll.ParseRequest(csr)
	if err != nil {
		return ca.Issued{}, err
	}
	// A machine that was renamed in the directory knows its former name only, and asks in that. It is the same object,
	// and gets the present name.
	if request.Subject != nil && request.Subject.SANs().Equal(present.SANs()) {
		request.Subject = id
	}
	if err := d.renewals.take(d.config.Now(), present.UUID()); err != nil {
		return ca.Issued{}, err
	}
	issued, err := d.issue(ctx, d.config.Machine, request, id)
	if err != nil {
		return ca.Issued{}, err
	}
	d.config.Log.Info("machine certificate renewed", "machine", id, "not-after", issued.Leaf.NotAfter.Format(time.RFC3339))
	return issued, nil
}

// IssueAdministrator issues an administrator's certificate. Whoever calls it decided that the caller may have one.
func (d *Desk) IssueAdministrator(ctx context.Context, account string, csr []byte) (ca.Issued, error) {
	subject, err := pki.NewAdministrator(d.config.TrustDomain, account)
	if err != nil {
		return ca.Issued{}, err
	}
	request, err := enroll.ParseRequest(csr)
	if err != nil {
		return ca.Issued{}, err
	}
	issued, err := d.issue(ctx, d.config.Admin, request, subject)
	if err != nil {
		return ca.Issued{}, err
	}
	d.config.Log.Warn("administrator certificate issued", "account", account, "not-after", issued.Leaf.NotAfter.Format(time.RFC3339))
	return issued, nil
}

func (d *Desk) issue(ctx context.Context, profile ca.Profile, request enroll.Request, subject pki.Subject) (ca.Issued, error) {
	prepared, err := d.config.Authority.Prepare(d.config.Now(), profile, request, subject)
	if err != nil {
		return ca.Issued{}, err
	}
	return d.config.Authority.Issue(ctx, prepared)
}
