package node

import (
	"context"
	"errors"
	"time"

	"github.com/bailiwick-net/bailiwick/node/control"
	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// Join redeems a join token at the controller and stores what was issued. An empty name takes the one that the
// controller has for the token's machine. After an error nothing but a key is stored, so that the join can be repeated.
func Join(ctx context.Context, config Config, controller, token, name string) (identity.Credentials, error) {
	config, err := config.validated()
	if err != nil {
		return identity.Credentials{}, err
	}
	parsed, err := enroll.ParseToken(token)
	if err != nil {
		return identity.Credentials{}, err
	}
	store, err := identity.Open(config.StateDir)
	if err != nil {
		return identity.Credentials{}, err
	}
	if _, err := store.Load(); err == nil {
		return identity.Credentials{}, identity.ErrJoined
	} else if !errors.Is(err, identity.ErrNotJoined) {
		return identity.Credentials{}, err
	}
	enrollment, err := control.NewEnrollment(controller, time.Now)
	if err != nil {
		return identity.Credentials{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if name == "" {
		if name, err = enrollment.Names(ctx, parsed); err != nil {
			return identity.Credentials{}, err
		}
	}
	return identity.Join(ctx, time.Now(), store, enrollment, parsed, name, []string{controller})
}
