package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/bailiwick-net/bailiwick/policies/preshared"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func secretCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "secret", Short: "Set, list and delete the preshared keys that policies name"}
	cmd.AddCommand(secretSetCommand(c), secretListCommand(c), secretDeleteCommand(c))
	return group(cmd)
}

// defaultOverlap is how long the value before is accepted unless somebody says otherwise.
const defaultOverlap = 24 * time.Hour

func secretSetCommand(c *client) *cobra.Command {
	var file, kind string
	var generate bool
	overlap := defaultOverlap
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Keep a preshared key, or change it",
		Long: `set reads a preshared key from standard input, or from a file, and keeps it under
a name that policies refer to with secretRef or ppkRef. The controller gives it to
the machines whose policy names it and to nobody else; it is never shown again.

A machine uses the new value at its next negotiation. It accepts the value before
from its peers for the time of --overlap, so that machines which have not heard of
the change yet are not cut off; 0s ends the old value at once. White space at the
end is no part of a key.`,
		Example: `  bailiwick secret set branch-psk --file branch.psk
  bailiwick secret set branch-psk --generate`,
		Args: args("NAME"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			value, err := readSecret(cmd.InOrStdin(), file, generate)
			if err != nil {
				return err
			}
			defer clear(value)
			r, err := a.secrets.SetSecret(ctx, &adminv1.SetSecretRequest{Name: args[0], Kind: kind, Value: value, Overlap: durationpb.New(overlap)})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				s := r.GetSecret()
				fmt.Fprintf(w, "secret %s %s, used by %s\n", s.GetName(), r.GetOutcome(), plural(int(s.GetMachines()), "machine"))
				if s.GetPreviousUntil() != nil {
					fmt.Fprintf(w, "the value before is accepted until %s\n", s.GetPreviousUntil().AsTime().Format(time.RFC3339))
				}
				return nil
			})
		}),
	}
	f := cmd.Flags()
	f.StringVar(&file, "file", "", "read the key from a file instead of standard input")
	f.BoolVar(&generate, "generate", false, "draw a random key that nobody sees")
	f.StringVar(&kind, "kind", preshared.PSK.String(), "psk (authenticates the peers) or ppk (postquantum, RFC 8784)")
	f.DurationVar(&overlap, "overlap", overlap, "how long the value before is accepted, 0s to 720h")
	return cmd
}

// maxSecretFile bounds what is read: a key and white space.
const maxSecretFile = 4 * preshared.MaxLength

// readSecret reads the key from where it may come from. Never from the command line, which every user of a machine sees.
func readSecret(stdin io.Reader, file string, generate bool) ([]byte, error) {
	source, what := stdin, "standard input"
	switch {
	case generate && file != "":
		return nil, usagef("--generate and --file exclude each other")
	case generate:
		drawn := make([]byte, 48)
		_, _ = rand.Read(drawn) // never fails
		defer clear(drawn)
		return base64.RawStdEncoding.AppendEncode(nil, drawn), nil
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("reading the key: %w", err)
		}
		defer f.Close()
		source, what = f, file
	default:
		if f, ok := stdin.(*os.File); ok {
			if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
				return nil, usagef("the key would be seen on the terminal: give it with --file FILE or < FILE, or let --generate draw one")
			}
		}
	}
	text, err := io.ReadAll(io.LimitReader(source, maxSecretFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the key from %s: %w", what, err)
	}
	if len(text) > maxSecretFile {
		clear(text)
		return nil, fmt.Errorf("reading the key from %s: there are more than %d octets, a key has at most %d", what, maxSecretFile, preshared.MaxLength)
	}
	return text, nil
}

func secretListCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the preshared keys, and those that policies name and nobody keeps, without their values",
		Args:  args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.secrets.ListSecrets(ctx, &adminv1.ListSecretsRequest{})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				table := rows{{"NAME", "KIND", "CHANGED", "BY", "POLICIES", "MACHINES", "OLD VALUE ENDS", "PROBLEM"}}
				for _, s := range r.GetSecrets() {
					table.add(s.GetName(), s.GetKind(), when(s.GetChanged()), orDash(s.GetChangedBy()), strconv.Itoa(len(s.GetPolicies())),
						strconv.Itoa(int(s.GetMachines())), when(s.GetPreviousUntil()), orDash(s.GetProblem()))
				}
				return table.write(w)
			})
		}),
	}
}

func secretDeleteCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Forget a preshared key that no policy names",
		Args:  args("NAME"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			r, err := a.secrets.DeleteSecret(ctx, &adminv1.DeleteSecretRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "secret %s deleted\n", args[0])
				return err
			})
		}),
	}
}
