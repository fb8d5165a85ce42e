package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func administratorCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "administrator", Short: "Make certificates for administering over the network"}
	cmd.AddCommand(administratorCreateCommand(c))
	return group(cmd)
}

func administratorCreateCommand(c *client) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "create ACCOUNT",
		Short: "Make a key and have the controller certify it, over its unix socket",
		Long: `create makes a key for an administrator, has the controller certify it, and writes
PREFIX.key, PREFIX.crt and PREFIX-ca.crt, which are what --key, --cert and --ca of
every command take together with --server. Files that exist are not overwritten.`,
		Args: args("ACCOUNT"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			prefix := out
			if prefix == "" {
				prefix = args[0]
			}
			r, key, err := a.certify(ctx, args[0])
			if err != nil {
				return err
			}
			var chain []byte
			for _, der := range r.GetChain() {
				chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
			}
			for _, f := range []struct {
				name    string
				mode    os.FileMode
				content []byte
			}{{prefix + ".key", 0o600, key}, {prefix + ".crt", 0o644, chain}, {prefix + "-ca.crt", 0o644, r.GetCa()}} {
				if err := writeNew(f.name, f.mode, f.content); err != nil {
					return err
				}
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "written: %[1]s.key, %[1]s.crt and %[1]s-ca.crt\nuse them: bailiwick --server HOST:PORT --cert %[1]s.crt --key %[1]s.key --ca %[1]s-ca.crt get tree\n", prefix)
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&out, "out", "", "beginning of the files' names (default: the account)")
	return cmd
}

// certify has a fresh key certified; the key is returned in PEM.
func (a *api) certify(ctx context.Context, account string) (*adminv1.IssueAdministratorResponse, []byte, error) {
	fleet, err := a.fleet.GetDirectoryStatus(ctx, &adminv1.GetDirectoryStatusRequest{})
	if err != nil {
		return nil, nil, err
	}
	subject, err := pki.NewAdministrator(fleet.GetTrustDomain(), account)
	if err != nil {
		return nil, nil, usageError{err}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	csr, err := enroll.NewRequest(key, subject)
	if err != nil {
		return nil, nil, err
	}
	r, err := a.credentials.IssueAdministrator(ctx, &adminv1.IssueAdministratorRequest{Account: account, Csr: csr})
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the key: %w", err)
	}
	return r, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func writeNew(path string, mode os.FileMode, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("writing what was made: %w", err)
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}
