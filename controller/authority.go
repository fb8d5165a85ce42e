package controller

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/secrets"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// unlock reads what opens the CA's keys.
func (v validated) unlock() (ca.Unlock, error) {
	if v.CA.KeyFile != "" {
		return ca.KeyFile(v.CA.KeyFile)
	}
	f, err := os.Open(v.CA.PassphraseFile)
	if err != nil {
		return ca.Unlock{}, fmt.Errorf("reading the CA's passphrase: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ca.Unlock{}, fmt.Errorf("reading the CA's passphrase: %w", err)
	}
	if mode := info.Mode().Perm(); info.Mode().IsRegular() && mode&0o077 != 0 {
		return ca.Unlock{}, fmt.Errorf("passphrase file %s has the mode %04o, so others than its owner can reach it; chmod 600 %s: %w",
			v.CA.PassphraseFile, mode, v.CA.PassphraseFile, ca.ErrKeyFile)
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return ca.Unlock{}, fmt.Errorf("reading the CA's passphrase: %w", err)
	}
	// Editors end a file with a line feed, which nobody means to be part of the passphrase.
	return ca.Passphrase(bytes.TrimRight(text, "\r\n"))
}

// openCA loads the CA, or makes it when there is none and that was asked for.
func (v validated) openCA(trustDomain string, journal ca.Journal) (*ca.CA, error) {
	unlock, err := v.unlock()
	if err != nil {
		return nil, err
	}
	authority, err := ca.Load(v.caDir(), unlock, journal)
	if !errors.Is(err, fs.ErrNotExist) {
		return authority, err
	}
	if !v.CA.Init {
		return nil, fmt.Errorf("%w in %s: run bailiwick-controller init, or start once with --init", ErrNoCA, v.caDir())
	}
	// An embedded etcd makes the state directory, an external one does not.
	if err := os.MkdirAll(filepath.Dir(v.caDir()), 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	if err := ca.Init(v.caDir(), unlock, v.Now(), ca.Config{TrustDomain: trustDomain}); err != nil {
		return nil, err
	}
	v.Log.Info("CA made", "dir", v.caDir(), "trust-domain", trustDomain)
	return ca.Load(v.caDir(), unlock, journal)
}

// openSecrets opens the secrets with what unlocks the CA.
func (v validated) openSecrets(ctx context.Context, s *store.Store) (*secrets.Keeper, error) {
	unlock, err := v.unlock()
	if err != nil {
		return nil, err
	}
	return secrets.Open(ctx, secrets.Config{Store: s, Path: v.secretsKey(), Unlock: unlock, Now: v.Now, Log: v.Log.Named("secrets")})
}

// A serverCertificate is the controller's own certificate. Its key lives in memory alone: every start makes another.
type serverCertificate struct {
	authority *ca.CA
	profile   ca.Profile
	subject   pki.Controller
	now       func() time.Time
	log       hclog.Logger
	current   atomic.Pointer[tls.Certificate]
}

// get is for tls.Config.GetCertificate.
func (s *serverCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.current.Load(), nil
}

// issue puts a fresh certificate into use.
func (s *serverCertificate) issue(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making the controller's key: %w", err)
	}
	csr, err := enroll.NewRequest(key, s.subject)
	if err != nil {
		return err
	}
	request, err := enroll.ParseRequest(csr)
	if err != nil {
		return err
	}
	prepared, err := s.authority.Prepare(s.now(), s.profile, request, s.subject)
	if err != nil {
		return fmt.Errorf("preparing the controller's certificate: %w", err)
	}
	issued, err := s.authority.Issue(ctx, prepared)
	if err != nil {
		return err
	}
	// Machines that join know the root by its pin alone, so it goes along.
	s.current.Store(&tls.Certificate{Certificate: issued.ChainWithRoot(), PrivateKey: key, Leaf: issued.Leaf})
	s.log.Info("controller certificate issued", "subject", s.subject, "not-after", issued.Leaf.NotAfter.Format(time.RFC3339))
	return nil
}

// run renews the certificate at two thirds of its life, and retries a failure while there is time.
func (s *serverCertificate) run(ctx context.Context) error {
	for {
		leaf := s.current.Load().Leaf
		due := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3)
		timer := time.NewTimer(max(time.Minute, due.Sub(s.now())))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		if err := s.issue(ctx); err != nil {
			s.log.Error("cannot renew the controller's certificate, will try again in a minute", "not-after", leaf.NotAfter.Format(time.RFC3339), "error", err)
		}
	}
}
