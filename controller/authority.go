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
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/authority"
	"github.com/bailiwick-net/bailiwick/controller/secrets"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/pkcs11"
)

// unlock reads what opens the CA's keys.
func (v validated) unlock() (ca.Unlock, error) {
	switch {
	case strings.HasPrefix(v.CA.KeyFile, credentialPrefix):
		content, err := readCredential(v.CA.KeyFile, "the key that opens the CA's keys (ca.keyFile)", maxCredential)
		if err != nil {
			return ca.Unlock{}, err
		}
		return ca.KeyOctets(content)
	case v.CA.KeyFile != "":
		return ca.KeyFile(v.CA.KeyFile)
	}
	text, err := readSecretFile(v.CA.PassphraseFile, "the passphrase that opens the CA's keys (ca.passphraseFile)")
	if err != nil {
		return ca.Unlock{}, err
	}
	return ca.Passphrase(text)
}

// readSecretFile reads a secret that is a line of text: from a file for its owner alone, or from a credential.
func readSecretFile(path, what string) ([]byte, error) {
	text, err := readSecretOctets(path, what, maxCredential)
	// Editors end a file with a line feed, which nobody means to be part of the secret.
	return bytes.TrimRight(text, "\r\n"), err
}

// readSecretOctets reads up to so many octets from a file for its owner alone, or from a credential.
func readSecretOctets(path, what string, most int64) ([]byte, error) {
	if strings.HasPrefix(path, credentialPrefix) {
		return readCredential(path, what, most)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	if mode := info.Mode().Perm(); info.Mode().IsRegular() && mode&0o077 != 0 {
		return nil, fmt.Errorf("reading %s: %s has the mode %04o, so others than its owner can reach it; chmod 600 %s: %w", what, path, mode, path, ca.ErrKeyFile)
	}
	content, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	return content, nil
}

// credentialPrefix names a credential that systemd passes, in place of a file.
const credentialPrefix = "credential:"

// maxCredential bounds what is read, in octets.
const maxCredential = 4096

// readCredential reads "credential:NAME" where systemd puts it. Who may read it is systemd's to see to: with an access
// control list its mode shows more than there is.
func readCredential(text, what string, most int64) ([]byte, error) {
	name := strings.TrimPrefix(text, credentialPrefix)
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return nil, fmt.Errorf("%w: %s is a credential of systemd, and there is none: start the unit with LoadCredentialEncrypted=%s:/PATH or LoadCredential=", ErrConfig, text, name)
	}
	if name == "" || name != filepath.Base(name) {
		return nil, fmt.Errorf("%w: %s does not name a credential", ErrConfig, text)
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	return content, nil
}

// openCA opens the CAs of the fleet, or makes the first one when there is none and that was asked for.
func (v validated) openCA(ctx context.Context, trustDomain string, s *store.Store) (*authority.Keeper, error) {
	unlock, err := v.unlock()
	if err != nil {
		return nil, err
	}
	config := authority.Config{
		Store: s, Unlock: unlock, Folder: v.caDir(), Init: v.CA.Init, OfflineRoot: v.CA.OfflineRoot, CA: v.authorities,
		RenewalGrace: v.renewalGrace(), Now: v.Now, Log: v.Log.Named("ca"),
	}
	config.CA.TrustDomain, config.CA.Pointers = trustDomain, v.pointers
	if v.CA.CertificateFile != "" {
		if config.Certificates, err = os.ReadFile(v.CA.CertificateFile); err != nil {
			return nil, fmt.Errorf("reading the root's answer: %w", err)
		}
	}
	if t := v.CA.PKCS11; t != nil {
		pin, err := readSecretFile(t.PINFile, "the PIN of the token (ca.pkcs11.pinFile)")
		if err != nil {
			return nil, err
		}
		// It stays loaded as long as the process lives: the keys are used until the end.
		if config.Tokens, err = pkcs11.Load(pkcs11.Config{Module: t.Module, Token: t.Token, PIN: pkcs11.PIN(pin)}); err != nil {
			return nil, err
		}
	}
	keeper, err := authority.Open(ctx, config)
	var awaiting *authority.AwaitingError
	switch {
	case errors.Is(err, authority.ErrNone):
		return nil, fmt.Errorf("%w in the store, and none in %s: run bailiwick-controller init, or start once with --init", ErrNoCA, v.caDir())
	case errors.As(err, &awaiting):
		return nil, errors.Join(err, v.writeRequest(awaiting))
	case err != nil:
		return nil, err
	}
	return keeper, v.writeTrust(keeper)
}

// writeRequest writes the request for the root where an administrator finds it.
func (v validated) writeRequest(a *authority.AwaitingError) error {
	path := filepath.Join(v.StateDir, "issuing.csr")
	if err := os.MkdirAll(v.StateDir, 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	if err := os.WriteFile(path, authority.RequestPEM(a.Request), 0o644); err != nil {
		return fmt.Errorf("writing the request of the issuing CA: %w", err)
	}
	return fmt.Errorf("%w: the request is in %s: sign it where the root is (bailiwick ca sign), and start with --ca-certificate-file", ErrNoCA, path)
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
	authority *authority.Keeper
	profile   ca.Profile
	subject   pki.Controller
	now       func() time.Time
	log       hclog.Logger
	current   atomic.Pointer[tls.Certificate]
	// revoked says that the current one is, and that no other could be made so far.
	revoked atomic.Bool
}

// errNoServerCertificate is what a connection ends with while the controller has no certificate.
var errNoServerCertificate = errors.New("the controller has no certificate to show, its log says why")

// get is for tls.Config.GetCertificate.
func (s *serverCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if present := s.current.Load(); present != nil {
		return present, nil
	}
	return nil, errNoServerCertificate
}

// replace issues a certificate at the start, and after a step of a rotation. A CA that has ended, or ends too soon, issues none,
// and that stops neither: it is replaced over the controller's socket, step by step.
func (s *serverCertificate) replace(ctx context.Context) error {
	err := s.issue(ctx)
	if errors.Is(err, ca.ErrIssuerValidity) {
		s.log.Error("the controller gets no certificate, and without one nobody reaches it but over its socket", "error", err)
		return nil
	}
	return err
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
	s.current.Store(&tls.Certificate{Certificate: s.authority.ServerChain(issued), PrivateKey: key, Leaf: issued.Leaf})
	s.revoked.Store(false)
	s.log.Info("controller certificate issued", "subject", s.subject, "not-after", issued.Leaf.NotAfter.Format(time.RFC3339))
	return nil
}

// certificateGlance is how often the clock is held against the controller's own certificate. A timer over weeks knows nothing
// of a clock that is set, and stands still while a virtual machine does; the certificate ends all the same.
const certificateGlance = time.Minute

// run renews the certificate at two thirds of its life, and one that is revoked, and tries again what failed.
func (s *serverCertificate) run(ctx context.Context) error {
	tick := time.NewTicker(certificateGlance)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		ends := "there is none"
		if present := s.current.Load(); present != nil {
			leaf := present.Leaf
			if due := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3); s.now().Before(due) && !s.revoked.Load() {
				continue
			}
			ends = leaf.NotAfter.Format(time.RFC3339)
		}
		if err := s.issue(ctx); err != nil {
			s.log.Error("cannot renew the controller's certificate, will try again in a minute", "not-after", ends, "error", err)
		}
	}
}

// authoritiesChanged follows a step of a rotation: the controller's own certificate is by the CA that issues, and nodes are
// told whom to trust.
func (c *Controller) authoritiesChanged(ctx context.Context) error {
	// In this order: who believes no CA of before must not be left with the controller's certificate of one.
	err := errors.Join(c.server.replace(ctx), c.config.writeTrust(c.authority), c.shutRetired(ctx))
	c.sessions.NotifyTrust()
	return err
}

// writeTrust writes the certificates that the fleet trusts where people and other programs find them.
func (v validated) writeTrust(keeper *authority.Keeper) error {
	path := filepath.Join(v.StateDir, "trust.pem")
	if err := os.MkdirAll(v.StateDir, 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	if err := os.WriteFile(path+".new", keeper.Trust().AppendPEM(nil), 0o644); err != nil {
		return fmt.Errorf("writing the trusted certificates: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("writing the trusted certificates: %w", err)
	}
	return nil
}

// headInterval is how often the head of the issuing journal goes to the log, where it cannot be changed afterwards.
const headInterval = time.Hour

// tellHead writes the head of the issuing journal to the log, and whether the store has room for it, now and then, until ctx ends.
func (c *Controller) tellHead(ctx context.Context) error {
	tick := time.NewTicker(headInterval)
	defer tick.Stop()
	for {
		head, err := c.state.store.JournalHead(ctx)
		switch {
		case err == nil:
			c.log.Info("issuing journal", "head", head.String())
		case ctx.Err() == nil:
			c.log.Warn("the head of the issuing journal cannot be read", "error", err)
		}
		switch capacity, err := c.state.store.Capacity(ctx); {
		case err == nil && capacity.Short():
			c.log.Error("the store is nearly full, and takes no writes past its quota", "octets", capacity.Used, "quota", capacity.Quota)
		case err != nil && ctx.Err() == nil:
			c.log.Warn("the size of the store cannot be asked for", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
