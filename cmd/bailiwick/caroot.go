package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// rootFlags say where a root is that is kept off line, and what opens its key.
type rootFlags struct {
	dir, passphraseFile, keyFile string
}

func (o *rootFlags) flags(f *pflag.FlagSet) {
	f.StringVar(&o.dir, "dir", "", "folder of the root")
	f.StringVar(&o.passphraseFile, "passphrase-file", "", "file with the passphrase of the root's key")
	f.StringVar(&o.keyFile, "key-file", "", "file of 32 or more random octets that seals the root's key")
}

func (o *rootFlags) unlock() (ca.Unlock, error) {
	switch {
	case o.dir == "":
		return ca.Unlock{}, usagef("--dir is needed")
	case (o.passphraseFile == "") == (o.keyFile == ""):
		return ca.Unlock{}, usagef("exactly one of --passphrase-file and --key-file is needed: it seals the root's key")
	case o.keyFile != "":
		return ca.KeyFile(o.keyFile)
	}
	text, err := os.ReadFile(o.passphraseFile)
	if err != nil {
		return ca.Unlock{}, fmt.Errorf("reading the passphrase of the root: %w", err)
	}
	return ca.Passphrase(bytes.TrimRight(text, "\r\n"))
}

func caInitCommand() *cobra.Command {
	var o rootFlags
	var offline bool
	var domain, algorithm string
	var lifetime time.Duration
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a root that is kept off line",
		Long: `init makes a root on this machine, which needs no network and no controller: its
certificate, its key, sealed, and a journal of what it signs. The controller of the
fleet is then started with --init and ca.offlineRoot, and asks for its issuing CA with
a request, which "bailiwick ca sign" answers here.

Without an off-line root, bailiwick-controller init makes root and issuing CA.`,
		Example: `  bailiwick ca init --offline-root --dir root --passphrase-file root.passphrase --trust-domain bank.example`,
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !offline {
				return usagef("a CA with its root on line is made by bailiwick-controller init; say --offline-root to make a root here")
			}
			unlock, err := o.unlock()
			if err != nil {
				return err
			}
			parsed, err := ca.ParseAlgorithm(algorithm)
			if err != nil {
				return usageError{err}
			}
			root, err := ca.InitRoot(cmd.Context(), o.dir, unlock, time.Now(), ca.Config{TrustDomain: domain, RootAlgorithm: parsed, RootLifetime: lifetime})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "root %q in %s, good until %s\n", root.Subject, o.dir, root.NotAfter.Format(time.RFC3339))
			return err
		},
	}
	o.flags(cmd.Flags())
	f := cmd.Flags()
	f.BoolVar(&offline, "offline-root", false, "make a root here, for a controller elsewhere")
	f.StringVar(&domain, "trust-domain", "", "the fleet's name in certificates, a DNS name")
	f.StringVar(&algorithm, "algorithm", "", "ecdsa-p256 (default), ecdsa-p384, ed25519, rsa-3072 or rsa-4096")
	f.DurationVar(&lifetime, "lifetime", 0, "how long the root is good for, 720h to 262800h (default 20 years)")
	return cmd
}

func caSignCommand() *cobra.Command {
	var o rootFlags
	var request, out, domain, url string
	var domains []string
	var lifetime time.Duration
	cmd := &cobra.Command{
		Use:   "sign",
		Short: "Sign the request of an issuing CA with a root that is kept off line",
		Long: `sign makes the certificate of an issuing CA from its request, records it in the root's
own journal before, and writes it together with the root's certificate. Nothing of the
request but its key counts. The answer goes to "bailiwick ca rotate certify", or to
bailiwick-controller with --ca-certificate-file the first time.`,
		Example: `  bailiwick ca sign --dir root --passphrase-file root.passphrase --trust-domain bank.example --request issuing.csr --out issuing.pem`,
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// The parts of a list do not matter: a root's has none.
			pointers, err := revocation.NewPointers(url, 1)
			if err != nil {
				return usageError{err}
			}
			text, err := os.ReadFile(request)
			if err != nil {
				return fmt.Errorf("reading the request: %w", err)
			}
			block, rest := pem.Decode(text)
			if block == nil || block.Type != "CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) != 0 {
				return fmt.Errorf("%s is not one PEM block %q", request, "CERTIFICATE REQUEST")
			}
			answer, err := o.signRequest(cmd.Context(), ca.Config{TrustDomain: domain, IssuerLifetime: lifetime, Domains: domains, Pointers: pointers}, block.Bytes)
			if err != nil {
				return err
			}
			if err := writeNew(out, 0o644, answer); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "the answer is in %s\n", out)
			return err
		},
	}
	o.flags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&request, "request", "", "the request, in PEM")
	f.StringVar(&out, "out", "issuing.pem", "file for the answer, which must not exist")
	f.StringVar(&domain, "trust-domain", "", "the fleet's name in certificates, a DNS name")
	f.StringSliceVar(&domains, "domain", nil, "DNS domain that the issuing CA may vouch for; may be given several times (default: all)")
	f.StringVar(&url, "revocation-url", "", "revocation.url of the controller, if it has one: where the certificate says that the root's list is")
	f.DurationVar(&lifetime, "lifetime", 0, "how long the issuing CA is good for, 720h to the root's end (default 5 years)")
	return cmd
}

// withRoot opens a root that is kept off line, with its journal, for as long as use takes.
func (o *rootFlags) withRoot(use func(records *ca.FileJournal, root *x509.Certificate, key crypto.Signer) error) error {
	unlock, err := o.unlock()
	if err != nil {
		return err
	}
	root, key, err := ca.LoadRoot(o.dir, unlock)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no root in %s; make one with bailiwick ca init --offline-root: %w", o.dir, err)
	}
	if err != nil {
		return err
	}
	records, err := ca.OpenFileJournal(filepath.Join(o.dir, ca.RootJournal))
	if err != nil {
		return err
	}
	return errors.Join(use(records, root, key), records.Close())
}

// signRequest answers a request; the answer is in PEM.
func (o *rootFlags) signRequest(ctx context.Context, config ca.Config, request []byte) (answer []byte, err error) {
	var issuing, root *x509.Certificate
	err = o.withRoot(func(records *ca.FileJournal, by *x509.Certificate, key crypto.Signer) (err error) {
		root = by
		issuing, err = ca.CertifyRequest(ctx, records, time.Now(), config, root, key, request)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, der := range [][]byte{issuing.Raw, root.Raw} {
		answer = append(answer, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return answer, nil
}
