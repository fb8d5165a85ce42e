package ca

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// The files of a CA's folder. The root's key is needed to renew the issuing CA alone and may be kept elsewhere.
const (
	fileRoot       = "root.crt"
	fileRootKey    = "root.key"
	fileIssuing    = "issuing.crt"
	fileIssuingKey = "issuing.key"
)

const maxCertificateFile = 64 << 10

// Init makes a CA good from now on, and writes it to dir: certificates in PEM, keys encrypted. dir must not exist, or be
// empty; its parent must exist. Either the whole folder is there afterwards or nothing is. Errors wrap ErrExists where
// there is something already.
func Init(dir string, unlock Unlock, now time.Time, config Config) error {
	if err := initFolder(dir, unlock, now, config); err != nil {
		return fmt.Errorf("making a CA in %s: %w", dir, err)
	}
	return nil
}

func initFolder(dir string, unlock Unlock, now time.Time, config Config) error {
	if unlock.derivation == 0 {
		return fmt.Errorf("its keys are kept encrypted only, and no passphrase and no key file was given: %w", ErrUnlock)
	}
	if err := checkVacant(dir); err != nil {
		return err
	}
	authority, err := Generate(now, config)
	if err != nil {
		return err
	}
	files, err := encodeFolder(authority, unlock)
	if err != nil {
		return err
	}
	dir = filepath.Clean(dir)
	var suffix [6]byte
	if _, err := rand.Read(suffix[:]); err != nil {
		return err
	}
	building := dir + ".new-" + hex.EncodeToString(suffix[:])
	if err := os.Mkdir(building, 0o700); err != nil {
		return err
	}
	if err := writeFolder(building, files); err != nil {
		return errors.Join(err, os.RemoveAll(building))
	}
	// A rename onto a folder succeeds only if that is empty: nothing is overwritten even if somebody else was faster.
	// os.Rename refuses folders altogether.
	if err := syscall.Rename(building, dir); err != nil {
		if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.ENOTDIR) {
			err = fmt.Errorf("%w: %w", ErrExists, err)
		}
		return errors.Join(err, os.RemoveAll(building))
	}
	return syncFolder(filepath.Dir(dir))
}

// checkVacant spares the work of making keys where they cannot be put.
func checkVacant(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("it is not a folder: %w", ErrExists)
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("it holds %q: %w", entries[0].Name(), ErrExists)
	}
	return nil
}

type folderFile struct {
	name    string
	mode    os.FileMode
	content []byte
}

func encodeFolder(a Authority, unlock Unlock) ([]folderFile, error) {
	rootKey, err := sealKey(a.RootKey, unlock, recommendedCost)
	if err != nil {
		return nil, err
	}
	issuingKey, err := sealKey(a.IssuingKey, unlock, recommendedCost)
	if err != nil {
		return nil, err
	}
	certificate := func(c *x509.Certificate) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return []folderFile{
		{fileRoot, 0o644, certificate(a.Root)},
		{fileRootKey, 0o600, rootKey},
		{fileIssuing, 0o644, certificate(a.Issuing)},
		{fileIssuingKey, 0o600, issuingKey},
	}, nil
}

func writeFolder(dir string, files []folderFile) error {
	for _, f := range files {
		if err := writeNew(filepath.Join(dir, f.name), f.mode, f.content); err != nil {
			return err
		}
	}
	return syncFolder(dir)
}

// writeNew writes a file that does not exist yet, to the disk and not only to the cache.
func writeNew(path string, mode os.FileMode, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Folder is what a folder holds, its keys sealed as they are.
type Folder struct {
	Root, Issuing *x509.Certificate
	IssuingKey    []byte
	// RootKey is empty where the root's key is kept elsewhere.
	RootKey []byte
}

// ReadFolder reads the files in dir without opening the keys. Key files that others than their owner can reach are refused;
// a folder that is not there wraps os.ErrNotExist.
func ReadFolder(dir string) (Folder, error) {
	if _, err := os.Stat(dir); err != nil {
		return Folder{}, fmt.Errorf("reading the CA in %s: %w", dir, err)
	}
	f, err := readFolder(dir)
	if errors.Is(err, os.ErrNotExist) {
		// A folder that lacks a file is not a folder that is not there.
		err = fmt.Errorf("a file is missing: %w: %s", ErrAuthority, err.Error())
	}
	if err != nil {
		return Folder{}, fmt.Errorf("reading the CA in %s: %w", dir, err)
	}
	return f, nil
}

func readFolder(dir string) (Folder, error) {
	var f Folder
	var err error
	if f.Root, err = readCertificate(filepath.Join(dir, fileRoot)); err != nil {
		return Folder{}, err
	}
	if f.Issuing, err = readCertificate(filepath.Join(dir, fileIssuing)); err != nil {
		return Folder{}, err
	}
	if f.IssuingKey, err = readPrivate(filepath.Join(dir, fileIssuingKey), maxSealedKey); err != nil {
		return Folder{}, err
	}
	f.RootKey, err = readPrivate(filepath.Join(dir, fileRootKey), maxSealedKey)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Folder{}, err
	}
	return f, nil
}

// Load opens the CA in dir. A wrong passphrase or key file wraps ErrUnlock; the rest is as with ReadFolder.
func Load(dir string, unlock Unlock, journal Journal) (*CA, error) {
	f, err := ReadFolder(dir)
	if err != nil {
		return nil, err
	}
	key, err := openKey(f.IssuingKey, unlock)
	if err != nil {
		return nil, fmt.Errorf("loading the CA's key %s: %w", filepath.Join(dir, fileIssuingKey), err)
	}
	c, err := New(f.Root, f.Issuing, key, journal)
	if err != nil {
		return nil, fmt.Errorf("loading the CA in %s: %w", dir, err)
	}
	return c, nil
}

// readCertificate reads a file with one certificate in PEM.
func readCertificate(path string) (*x509.Certificate, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxCertificateFile {
		return nil, fmt.Errorf("%s has %d octets, more than %d: %w", path, info.Size(), maxCertificateFile, ErrAuthority)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("%s is not one PEM block %q: %w", path, "CERTIFICATE", ErrAuthority)
	}
	cert, err := trust.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrAuthority, err)
	}
	return cert, nil
}
