//go:build !cgo

package pkcs11

import (
	"context"
	"crypto"
	"fmt"

	"github.com/bailiwick-net/bailiwick/pki/ca"
)

// Module is a loaded module. A binary without cgo has none.
type Module struct{}

// Load refuses.
func Load(c Config) (*Module, error) {
	return nil, fmt.Errorf("%s: this binary was built without cgo: %w", c.Module, ErrNoModule)
}

// Generate refuses.
func (*Module) Generate(context.Context, ca.Algorithm) (string, crypto.Signer, error) {
	return "", nil, ErrNoModule
}

// Open refuses.
func (*Module) Open(context.Context, string) (crypto.Signer, error) { return nil, ErrNoModule }

// Close does nothing.
func (*Module) Close() error { return nil }
