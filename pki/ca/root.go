package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// RootJournal is the journal of what a root signs, in its folder.
const RootJournal = "journal"

// InitRoot makes a root that is kept off line in dir, which must not exist, or be empty: its certificate, its key, sealed,
// and a journal. Errors wrap ErrExists where there is something already.
func InitRoot(ctx context.Context, dir string, unlock Unlock, now time.Time, config Config) (root *x509.Certificate, err error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if err := checkVacant(dir); err != nil {
		return nil, fmt.Errorf("making a root in %s: %w", dir, err)
	}
	key, err := config.RootAlgorithm.GenerateKey()
	if err != nil {
		return nil, err
	}
	sealed, err := SealKey(key, unlock)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("making a root: %w", err)
	}
	journal, err := OpenFileJournal(filepath.Join(dir, RootJournal))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	if root, err = CertifyRoot(ctx, journal, now, config, key); err != nil {
		return nil, err
	}
	return root, writeFolder(dir, []folderFile{
		{fileRootKey, 0o600, sealed},
		{fileRoot, 0o644, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})},
	})
}

// LoadRoot opens a root that InitRoot made. A wrong passphrase or key file wraps ErrUnlock; a root that is not there wraps
// os.ErrNotExist.
func LoadRoot(dir string, unlock Unlock) (*x509.Certificate, crypto.Signer, error) {
	root, err := readCertificate(filepath.Join(dir, fileRoot))
	if err != nil {
		return nil, nil, fmt.Errorf("loading the root in %s: %w", dir, err)
	}
	sealed, err := readPrivate(filepath.Join(dir, fileRootKey), maxSealedKey)
	if err != nil {
		return nil, nil, fmt.Errorf("loading the root in %s: %w", dir, err)
	}
	key, err := openKey(sealed, unlock)
	if err != nil {
		return nil, nil, fmt.Errorf("loading the root's key in %s: %w", dir, err)
	}
	public, ok := root.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		return nil, nil, fmt.Errorf("the root in %s has another key than its certificate: %w", dir, ErrAuthority)
	}
	return root, key, nil
}
