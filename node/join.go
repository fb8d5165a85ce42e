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
	"github.com/bailiwick-net/bailiwick/node/kerberos"
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
	store, err := config.store()
	if err != nil {
		return identity.Credentials{}, err
	}
	defer store.Keys().Close()
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
	pin, err := parsePin(r.Pin)
	if err != nil {
		return identity.Credentials{}, err
	}
	if r.Name, err = fullName(r.Name); err != nil {
		return identity.Credentials{}, err
	}
	store, err := config.store()
	if err != nil {
		return identity.Credentials{}, err
	}
	defer store.Keys().Close()
	enrollment, err := control.NewEnrollment(r.Controller, time.Now)
	if err != nil {
		return identity.Credentials{}, err
	}
	temporary := func(err error) bool { return errors.Is(err, control.ErrUnreachable) }
	return identity.Request(ctx, time.Now, store, enrollment, pin, r.Name, []string{r.Controller}, temporary,
		func(key pki.KeyID, problem string) { r.Waiting(key.String(), problem) })
}

func parsePin(text string) (pki.KeyID, error) {
	pin, err := pki.ParseKeyID(text)
	if err != nil {
		return pki.KeyID{}, fmt.Errorf("pin of the fleet: %w; see: bailiwick enrollment pin", err)
	}
	return pin, nil
}

// fullName is the machine's DNS name as certificates have it; an empty one is the host's.
func fullName(name string) (string, error) {
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("ask for the name of this machine: %w", err)
		}
		if !strings.Contains(host, ".") {
			return "", fmt.Errorf("this machine calls itself %q, which is not a full DNS name; say which one it has in the directory with --name", host)
		}
		name = host
	}
	return strings.TrimSuffix(strings.ToLower(name), "."), nil
}

// A JoinAccount is what JoinByKerberos asks with.
type JoinAccount struct {
	// Controller is host:port, Pin the key id of the fleet's root in hexadecimal.
	Controller, Pin string
	// Name is the machine's DNS name; empty means the one in its keytab or, where that has none, the host's.
	Name string
	// Account says where the machine's Kerberos account is.
	Account kerberos.Settings
}

// JoinByKerberos proves the machine's Kerberos account to the controller and stores what was issued. After an error nothing
// but a key is stored, so that the join can be repeated.
func JoinByKerberos(ctx context.Context, config Config, j JoinAccount) (identity.Credentials, error) {
	config, err := config.validated()
	if err != nil {
		return identity.Credentials{}, err
	}
	pin, err := parsePin(j.Pin)
	if err != nil {
		return identity.Credentials{}, err
	}
	account, err := kerberos.Open(j.Account)
	if err != nil {
		return identity.Credentials{}, err
	}
	if j.Name == "" {
		j.Name = account.HostName()
	}
	if j.Name, err = fullName(j.Name); err != nil {
		return identity.Credentials{}, err
	}
	store, err := config.store()
	if err != nil {
		return identity.Credentials{}, err
	}
	defer store.Keys().Close()
	enrollment, err := control.NewEnrollment(j.Controller, time.Now)
	if err != nil {
		return identity.Credentials{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return identity.Enroll(ctx, time.Now(), store, j.Name, []string{j.Controller}, func(ctx context.Context, request []byte) (identity.Issued, error) {
		return enrollment.EnrollAccount(ctx, pin, account, request, j.Name)
	})
}
