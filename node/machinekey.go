package node

import (
	"context"
	"crypto/elliptic"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/tpm"
)

// IdentityConfig says where the machine's private key is made. A change counts from the next certificate on.
type IdentityConfig struct {
	// Key is "file" (in the state directory, the default), "tpm" (in the machine's TPM 2.0, or not at all) or "auto" (in the
	// TPM where the machine has one when the first key is made, else in a file).
	Key string `yaml:"key"`
	// Device is the TPM, a character device or a unix socket; empty for tpm.DefaultDevice.
	Device string `yaml:"device"`
	// Algorithm is "ecdsa-p256" (the default) or "ecdsa-p384", which not every TPM has.
	Algorithm string `yaml:"algorithm"`
}

// keys are the valid configuration's.
func (c IdentityConfig) keys() identity.Keys {
	keys := identity.Keys{TPM: tpm.New(c.Device), Curve: elliptic.P256()}
	switch c.Key {
	case identity.InTPM.String():
		keys.Place = identity.InTPM
	case identity.Auto.String():
		keys.Place = identity.Auto
	}
	if c.Algorithm == algorithmP384 {
		keys.Curve = elliptic.P384()
	}
	return keys
}

const (
	algorithmP256 = "ecdsa-p256"
	algorithmP384 = "ecdsa-p384"
)

// store is where the valid configuration keeps key and certificate.
func (c Config) store() (identity.Store, error) {
	store, err := identity.Open(c.StateDir)
	if err != nil {
		return identity.Store{}, err
	}
	return store.With(c.Identity.keys()), nil
}

// keyProblem is what is wrong with the machine's key, or with where it is; nil when nothing is.
func (m *membership) keyProblem() error { return m.store.Keys().Problem(m.Credentials().Key) }

// watchKey tells at the start where the machine's key is and whether its TPM can use it, and frees the TPM in the end. A
// node whose TPM fails goes on enforcing with what it has: associations that stand, and blocking what needs new ones.
func (m *membership) watchKey(ctx context.Context, log hclog.Logger) error {
	key := m.Credentials().Key
	if inside, ok := key.(*tpm.Key); ok {
		_ = inside.Check() // the device remembers why it failed
	}
	if key != nil {
		log.Info("machine key", "place", identity.Where(key))
	}
	m.tellKeyProblem(log)
	<-ctx.Done()
	if err := m.store.Keys().Close(); err != nil {
		log.Warn("what was loaded may stay in the TPM until it starts again", "error", err)
	}
	return nil
}

func (m *membership) tellKeyProblem(log hclog.Logger) {
	if problem := m.keyProblem(); problem != nil {
		log.Error("machine key", "problem", problem)
	}
}
