package ca

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

// DerivedKeySize is the size of what Derive returns, in octets.
const DerivedKeySize = wrapKeySize

// Derive makes a key for another purpose than the CA's own keys from the same passphrase or key file. Keys of different
// purposes or salts tell nothing about each other (RFC 5869 3.2). Errors wrap ErrUnlock.
func (u Unlock) Derive(purpose string, salt []byte) ([]byte, error) {
	if purpose == "" || len(salt) < saltSize {
		return nil, fmt.Errorf("deriving a key for the purpose %q with a salt of %d octets, wanted a purpose and %d: %w", purpose, len(salt), saltSize, ErrUnlock)
	}
	base, err := u.key(salt, recommendedCost)
	if err != nil {
		return nil, err
	}
	defer clear(base)
	return hkdf.Key(sha256.New, base, salt, "bailiwick "+purpose, DerivedKeySize)
}
