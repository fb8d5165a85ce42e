package enrollment

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
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
