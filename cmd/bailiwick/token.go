package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func tokenCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Make, list and revoke join tokens"}
	cmd.AddCommand(tokenCreateCommand(c), tokenListCommand(c), tokenRevokeCommand(c))
	return group(cmd)
}

// group makes a command that only holds others say so when it is called alone or with something unknown.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("%s: there is no %q", cmd.CommandPath(), args[0])
		}
		return usagef("%s: what?", cmd.CommandPath())
	}
	return cmd
}

func tokenCreateCommand(c *client) *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "create MACHINE",
		Short: "Make a token with which one machine joins, once",
		Long: `create prints a join token for a machine of the directory, named by its short
name, DNS name, DN or UUID. The machine joins with it, once and while it lasts:

  bailiwick-node join --controller HOST:PORT --token-file FILE

The token is printed here and kept nowhere: whoever has it can become that machine.`,
		Args:              args("MACHINE"),
		ValidArgsFunction: c.complete(0, machineNames),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			// Without the flag the controller chooses; a 0 that somebody wrote is not meant so.
			if ttl < 0 || ttl%time.Second != 0 || ttl == 0 && cmd.Flags().Changed("ttl") {
				return usagef("--ttl %v, wanted whole seconds, at least one", ttl)
			}
			r, err := a.credentials.CreateToken(ctx, &adminv1.CreateTokenRequest{Machine: args[0], TtlSeconds: uint64(ttl / time.Second)})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				t := r.GetToken()
				// The token alone on standard output, so that it can go straight into a file.
				fmt.Fprintf(cmd.ErrOrStderr(), "join token %s for %s (%s), good until %s:\n",
					t.GetId(), t.GetMachine(), t.GetMachineDn(), t.GetNotAfter().AsTime().Format(time.RFC3339))
				_, err := fmt.Fprintln(w, r.GetText())
				return err
			})
		}),
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long the token lasts, 1s to 720h (default 24h)")
	return cmd
}

func tokenListCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the join tokens that were made, without their secrets",
		Args:  args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.credentials.ListTokens(ctx, &adminv1.ListTokensRequest{})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				table := rows{{"ID", "MACHINE", "STATE", "CREATED", "ENDS", "BY"}}
				for _, t := range r.GetTokens() {
					state := "good"
					switch {
					case t.GetUsed() != nil:
						state = "used " + when(t.GetUsed())
					case time.Now().After(t.GetNotAfter().AsTime()):
						state = "expired"
					}
					table.add(t.GetId(), t.GetMachine(), state, when(t.GetCreated()), when(t.GetNotAfter()), orDash(t.GetCreatedBy()))
				}
				return table.write(w)
			})
		}),
	}
}

func tokenRevokeCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Make a join token worthless",
		Args:  args("ID"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			r, err := a.credentials.RevokeToken(ctx, &adminv1.RevokeTokenRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, "join token revoked")
				return err
			})
		}),
	}
}
