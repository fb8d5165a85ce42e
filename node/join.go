package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/node/control"
	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/pki"
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

// A JoinRequest is what JoinByRequest asks with.
type JoinRequest struct {
	// Controller is host:port, Pin the key id of the fleet's root in hexadecimal.
	Controller, Pin string
	// Name is the machine's DNS name; empty means the host's, which must be a full one then.
	Name string
	// Waiting is told the request's key, in hexadecimal, while it waits, and what is wrong when it cannot be brought forward.
	Waiting func(key, problem string)
}

// JoinByRequest asks the controller for a certificate without a token, and waits until an administrator approved it. After
// an error nothing but a key is stored, and asking again goes on with the same request.
func JoinByRequest(ctx context.Context, config Config, r JoinRequest) (identity.Credentials, error) {
	config, err := config.validated()
	if err != nil {
		return identity.Credentials{}, err
	}
	pin, err := pki.ParseKeyID(r.Pin)
	if err != nil {
		return identity.Credentials{}, fmt.Errorf("pin of the fleet: %w; see: bailiwick enrollment pin", err)
	}
	if r.Name == "" {
		if r.Name, err = os.Hostname(); err != nil {
			return identity.Credentials{}, fmt.Errorf("ask for the name of this machine: %w", err)
		}
		if !strings.Contains(r.Name, ".") {
			return identity.Credentials{}, fmt.Errorf("this machine calls itself %q, which is not a full DNS name; say which one it has in the directory with --name", r.Name)
		}
	}
	store, err := identity.Open(config.StateDir)
	if err != nil {
		return identity.Credentials{}, err
	}
	enrollment, err := control.NewEnrollment(r.Controller, time.Now)
	if err != nil {
		return identity.Credentials{}, err
	}
	temporary := func(err error) bool { return errors.Is(err, control.ErrUnreachable) }
	return identity.Request(ctx, time.Now, store, enrollment, pin, strings.TrimSuffix(strings.ToLower(r.Name), "."), []string{r.Controller}, temporary,
		func(key pki.KeyID, problem string) { r.Waiting(key.String(), problem) })
}
