package identity

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/bailiwick-net/bailiwick/node/statefile"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// Issued is what a controller answers a certificate request with.
type Issued struct {
	Chain [][]byte // DER, leaf first
	Trust trust.Bundle
}

// Issuer answers a certificate request of the authenticated node.
type Issuer interface {
	Renew(ctx context.Context, request []byte) (Issued, error)
}

// RenewAt says when a certificate is to be renewed: at two thirds of its life, and up to a tenth of its life earlier, so
// that machines that joined together do not come back together. jitter is in [0,1).
func RenewAt(leaf *x509.Certificate, jitter float64) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotBefore.Add(life*2/3 - time.Duration(jitter*float64(life)/10))
}

// Renew asks for a certificate for a fresh key, or for the same one where the certificate has ended, and stores it. After an
// error the old credentials are still in place.
func Renew(ctx context.Context, now time.Time, s Store, issuer Issuer, c Credentials) (Credentials, error) {
	key := c.Key
	// A certificate that has ended is renewed for the same key only: the key is all that still tells who we are.
	if now.Before(c.Leaf().NotAfter) {
		fresh, err := s.keys.successor(c.Key)
		if err != nil {
			return Credentials{}, err
		}
		key = fresh
	}
	request, err := enroll.NewRequest(key, c.Identity)
	if err != nil {
		return Credentials{}, fmt.Errorf("make certificate request: %w", err)
	}
	issued, err := issuer.Renew(ctx, request)
	if err != nil {
		return Credentials{}, err
	}
	return s.accept(now, key, issued, c)
}

// accept checks and stores what was issued.
func (s Store) accept(now time.Time, key crypto.Signer, issued Issued, old Credentials) (Credentials, error) {
	bundle := issued.Trust
	if bundle.IsZero() {
		bundle = old.Trust
	}
	fresh, err := NewCredentials(now, key, issued.Chain, bundle, old.Controllers)
	if err != nil {
		return Credentials{}, err
	}
	// The name may have changed in the directory; the object may not.
	if !old.Identity.IsZero() && (fresh.Identity.UUID() != old.Identity.UUID() || fresh.Identity.TrustDomain() != old.Identity.TrustDomain()) {
		return Credentials{}, fmt.Errorf("controller issued a certificate for %s to %s: refused", fresh.Identity, old.Identity)
	}
	if err := s.Save(fresh); err != nil {
		return Credentials{}, err
	}
	return fresh, nil
}

// Joiner redeems a join token.
type Joiner interface {
	Enroll(ctx context.Context, token enroll.Token, request []byte, hostname string) (Issued, error)
}

// Join redeems the token for a certificate and stores it with its key, as Enroll does. name is the DNS name that the machine
// claims: the token must be for it. A join whose answer was lost can be repeated with the same token.
func Join(ctx context.Context, now time.Time, s Store, j Joiner, token enroll.Token, name string, controllers []string) (Credentials, error) {
	return Enroll(ctx, now, s, name, controllers, func(ctx context.Context, request []byte) (Issued, error) {
		return j.Enroll(ctx, token, request, name)
	})
}

// Enroll makes a request in the machine's name, has it exchanged for a certificate, and stores that with its key. The key is
// stored before anything is asked, so that asking again is for the same key. ErrJoined where the machine is a member already.
func Enroll(ctx context.Context, now time.Time, s Store, name string, controllers []string, exchange func(ctx context.Context, request []byte) (Issued, error)) (Credentials, error) {
	if _, err := s.Load(); err == nil {
		return Credentials{}, ErrJoined
	} else if !errors.Is(err, ErrNotJoined) {
		return Credentials{}, err
	}
	key, err := s.pendingKey()
	if err != nil {
		return Credentials{}, err
	}
	request, err := enroll.NewJoinRequest(key, name)
	if err != nil {
		return Credentials{}, fmt.Errorf("make certificate request for %q: %w", name, err)
	}
	issued, err := exchange(ctx, request)
	if err != nil {
		return Credentials{}, err
	}
	joined, err := s.accept(now, key, issued, Credentials{Controllers: controllers})
	if err != nil {
		return Credentials{}, err
	}
	return joined, statefile.Remove(filepath.Join(s.dir, pendingFile))
}

// pendingKey is the key of a join that has not ended yet, or a new one.
func (s Store) pendingKey() (crypto.Signer, error) {
	path := filepath.Join(s.dir, pendingFile)
	content, err := statefile.Read(path, maxFile)
	if err == nil {
		key, err := s.parsePending(content)
		if err != nil {
			return nil, fmt.Errorf("the key of an earlier join in %s cannot be read (%w); remove the file", path, err)
		}
		if s.keys.Place == InTPM && !inTPM(key) {
			return nil, fmt.Errorf("the key of an earlier join is in the file %s, and identity.key is %s; remove the file to join with a key in the TPM (a token that was shown with the former key needs a successor)", path, s.keys.Place)
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := s.keys.fresh(nil)
	if err != nil {
		return nil, err
	}
	blocks, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(blocks[0].Bytes)
	if !inTPM(key) {
		return key, statefile.Write(path, blocks[0].Bytes)
	}
	var encoded []byte
	for _, block := range blocks {
		encoded = append(encoded, pem.EncodeToMemory(block)...)
	}
	return key, statefile.Write(path, encoded)
}

// parsePending reads a key of a join: as PKCS #8, or as the PEM of one in a TPM.
func (s Store) parsePending(content []byte) (crypto.Signer, error) {
	stored := storedKey{keys: s.keys}
	block, rest := pem.Decode(content)
	if block == nil {
		block, rest = &pem.Block{Type: typeKey, Bytes: content}, nil
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		if taken, err := stored.take(block); err != nil || !taken {
			return nil, errors.Join(err, fmt.Errorf("PEM block %q", block.Type))
		}
	}
	key, err := stored.key()
	if err == nil && key == nil {
		err = errors.New("there is none")
	}
	return key, err
}

// Leave forgets key and certificate. The certificate stays valid until it expires or is revoked.
func (s Store) Leave() error {
	return errors.Join(statefile.Remove(s.path()), statefile.Remove(filepath.Join(s.dir, pendingFile)))
}
