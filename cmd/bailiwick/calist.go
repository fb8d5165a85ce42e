package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func caListCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "crl", Short: "Sign the revocation list of a root that is kept off line, and hand it in"}
	cmd.AddCommand(listSignCommand(), listImportCommand(c))
	return cmd
}

func listSignCommand() *cobra.Command {
	var o rootFlags
	var order ca.RootListOrder
	var reason, out string
	cmd := &cobra.Command{
		Use:   "sign",
		Short: "Sign the next revocation list of a root that is kept off line",
		Long: `sign makes the revocation list of the root, which says which of its issuing CAs are revoked. It is recorded in the root's
own journal before, and what was revoked once is on every list that follows. The list goes to "bailiwick ca crl import" where
the controller is, which serves it from then on; sign another one before its end.

A CA is named by its ID in "bailiwick ca status", or by the serial number of its certificate. One that the fleet still trusts
has to be retired before: the controller takes no list that revokes it.`,
		Example: `  bailiwick ca crl sign --dir root --passphrase-file root.passphrase --out root.crl
  bailiwick ca crl sign --dir root --passphrase-file root.passphrase --revoke 0a5c7c2e81f0b3d4 --reason cACompromise`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if order.Reason, err = revocation.ParseReason(reason); err != nil {
				return usageError{err}
			}
			if cmd.Flags().Changed("reason") && len(order.Revoke) == 0 {
				return usageError{errors.New("--reason says why a CA is revoked: name that with --revoke; nothing was signed")}
			}
			if _, err := os.Lstat(out); err == nil {
				return fmt.Errorf("%s is there already, and nothing is overwritten; nothing was signed", out)
			}
			return o.withRoot(func(records *ca.FileJournal, root *x509.Certificate, key crypto.Signer) error {
				list, der, err := ca.SignRootList(records, time.Now(), root, key, order)
				if err != nil {
					return err
				}
				if err := writeNew(out, 0o644, pem.EncodeToMemory(&pem.Block{Type: crlBlock, Bytes: der})); err != nil {
					return err
				}
				for _, r := range list.Revoked {
					fmt.Fprintf(cmd.OutOrStdout(), "%s revoked on %s (%s)\n", r.Serial, r.At.Format(time.RFC3339), r.Reason)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "list %d of %q, good until %s, is in %s\n", list.Number, root.Subject, list.NextUpdate.Format(time.RFC3339), out)
				return err
			})
		},
	}
	o.flags(cmd.Flags())
	f := cmd.Flags()
	f.StringSliceVar(&order.Revoke, "revoke", nil, "issuing CA that is revoked from now on; may be given several times")
	f.StringVar(&reason, "reason", revocation.Unspecified.String(), "why, by the names of RFC 5280; not certificateHold")
	f.DurationVar(&order.Lifetime, "lifetime", 0, "how long the list is good for, 24h to 9528h (default 4320h, 180 days)")
	f.StringVar(&out, "out", "root.crl", "file for the list, which must not exist")
	return cmd
}

// crlBlock is the type of a revocation list in PEM (RFC 7468 6).
const crlBlock = "X509 CRL"

func listImportCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Hand in the revocation list of a root that is kept off line, in PEM or DER",
		Long: `import gives the list to the controller, which serves it to whoever asks and tells the nodes which CAs are revoked. It is
refused unless a root signed it that the fleet trusts and whose key is not in the store, it is newer than the one before, and it
revokes no CA that the fleet trusts: retire that first, as after an emergency rotation.`,
		Args: args("FILE"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			content, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("reading the list of the root: %w", err)
			}
			if block, _ := pem.Decode(content); block != nil {
				if block.Type != crlBlock {
					return fmt.Errorf("%s is a PEM block %q, wanted %q", args[0], block.Type, crlBlock)
				}
				content = block.Bytes
			}
			r, err := a.authorities.ImportRootList(ctx, &adminv1.ImportRootListRequest{List: content})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				list := r.GetList()
				for _, serial := range list.GetLacking() {
					fmt.Fprintf(w, "CA certificate %s is revoked here and not on the list: sign another one that revokes it\n", serial)
				}
				_, err := fmt.Fprintf(w, "list %d of %q is served until %s\n", list.GetNumber(), list.GetRootSubject(), list.GetNextUpdate().AsTime().Format(time.RFC3339))
				return err
			})
		}),
	}
}

// printRootLists shows the lists of the roots.
func printRootLists(w io.Writer, all []*adminv1.RootList) error {
	table := rows{{"ROOT", "SIGNED", "LIST", "ENDS", "REVOKED", "LACKING"}}
	for _, l := range all {
		signed, number := "here", "-"
		if l.GetOffline() {
			signed = "off line"
		}
		if l.GetNumber() > 0 {
			number = strconv.FormatUint(l.GetNumber(), 10)
		}
		table.add(l.GetIssuer(), signed, number, when(l.GetNextUpdate()), strconv.Itoa(len(l.GetRevoked())), strconv.Itoa(len(l.GetLacking())))
	}
	fmt.Fprintln(w)
	return table.write(w)
}
