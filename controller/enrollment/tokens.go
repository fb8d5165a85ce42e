package enrollment

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// The lifetimes of join tokens.
const (
	DefaultTokenLifetime = 24 * time.Hour
	MinTokenLifetime     = time.Second
	MaxTokenLifetime     = 30 * 24 * time.Hour
)

// ErrTokenLifetime is wrapped when a token would live too long or not at all.
var ErrTokenLifetime = fmt.Errorf("join tokens live %v to %v", MinTokenLifetime, MaxTokenLifetime)

// CreateToken makes a token for one machine, which must be able to use it: in the directory, enabled, and with names
// that a certificate can have. The returned token is the only place where the secret is. A lifetime of 0 means
// DefaultTokenLifetime.
func (d *Desk) CreateToken(ctx context.Context, m directory.Machine, lifetime time.Duration, by string) (enroll.Token, store.Token, error) {
	if lifetime == 0 {
		lifetime = DefaultTokenLifetime
	}
	if lifetime < MinTokenLifetime || lifetime > MaxTokenLifetime {
		return enroll.Token{}, store.Token{}, fmt.Errorf("token lifetime %v: %w", lifetime, ErrTokenLifetime)
	}
	if _, err := d.machine(pki.UUID(m.UUID)); err != nil {
		return enroll.Token{}, store.Token{}, fmt.Errorf("making a join token: %w", err)
	}
	var entropy [enroll.EntropySize]byte
	if _, err := rand.Read(entropy[:]); err != nil {
		return enroll.Token{}, store.Token{}, fmt.Errorf("making a join token: %w", err)
	}
	token := enroll.NewToken(entropy, d.config.Authority.Pin())
	record := store.Token{
		Stored:      enroll.NewStored(d.config.Now(), token, pki.UUID(m.UUID), lifetime),
		MachineName: m.Name, MachineDN: m.DN.String(), By: by,
	}
	if err := d.config.Tokens.CreateToken(ctx, record); err != nil {
		return enroll.Token{}, store.Token{}, err
	}
	d.config.Log.Info("join token created", "token", token.ID, "machine", m.Name, "by", by, "not-after", record.NotAfter.Format(time.RFC3339))
	return token, record, nil
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
	used = errors.Is(err, enroll.ErrTokenUsed) && now.Before(record.NotAfter)
	if err != nil && !used {
		return store.Token{}, enroll.Token{}, false, err
	}
	if err := d.tokens.take(now, presented.ID, "whoever has join token "+presented.ID.String()); err != nil {
		return store.Token{}, enroll.Token{}, false, err
	}
	return record, presented, used, nil
}

// A tokenClaim is a join token whose secret is right.
type tokenClaim struct {
	desk      *Desk
	record    store.Token
	presented enroll.Token
	// used says that it was redeemed, and may be asked with again by the key that it was redeemed for.
	used bool
}

// Enroll answers a join with a token.
func (d *Desk) Enroll(ctx context.Context, text string, csr []byte) (ca.Issued, error) {
	// 1. The token.
	record, presented, used, err := d.check(ctx, text)
	if err != nil {
		return ca.Issued{}, err
	}
	return d.authorize(ctx, &tokenClaim{desk: d, record: record, presented: presented, used: used}, csr)
}

func (c *tokenClaim) machine() pki.UUID { return c.record.Machine }

func (c *tokenClaim) admits(ctx context.Context, request *enroll.Request, _ pki.Identity) error {
	if !c.used {
		return nil
	}
	if c.record.UsedBy != request.KeyID {
		return fmt.Errorf("join token %v was used at %s, with another key: %w", c.presented.ID, c.record.Used.Format(time.RFC3339), enroll.ErrTokenUsed)
	}
	return c.desk.askedBefore(ctx, c.record.Machine, request.KeyID, c.record.Used)
}

func (c *tokenClaim) spend(ctx context.Context, key pki.KeyID) error {
	if c.used {
		return nil
	}
	return c.desk.redeem(ctx, c.record, c.presented, key)
}

func (c *tokenClaim) granted() time.Time { return c.record.Created }

func (c *tokenClaim) String() string { return "token " + c.record.ID.String() }

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
