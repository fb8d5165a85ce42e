package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func linkCommand(c *client) *cobra.Command {
	link := &adminv1.PolicyLink{}
	var replace bool
	cmd := &cobra.Command{
		Use:   "link POLICY CONTAINER-DN",
		Short: "Let a policy apply to the machines below a container",
		Long: `link lets a policy apply to the machines in a container (OU= or DC=) and below it.
For each machine exactly one policy wins: that of the nearest container, unless a
link further up is enforced. Among the links of one container, order 1 wins.`,
		Example:           `  bailiwick link "Server (Request Security)" ou=Servers,dc=bank,dc=example`,
		Args:              args("POLICY", "CONTAINER-DN"),
		ValidArgsFunction: c.complete(0, policyNames),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			link.Policy, link.Container = args[0], args[1]
			r, err := a.documents.Link(ctx, &adminv1.LinkRequest{Link: link, Replace: replace})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				fmt.Fprintf(w, "policy %q linked to %s\n", args[0], args[1])
				printAffected(w, r.GetMachinesChanged(), false)
				return nil
			})
		}),
	}
	linkFlags(cmd.Flags(), link, &replace)
	return cmd
}

// linkFlags are the options of a link.
func linkFlags(f *pflag.FlagSet, link *adminv1.PolicyLink, replace *bool) {
	f.Uint32Var(&link.Order, "order", 0, "place among the container's links, 1 wins (default: the last)")
	f.BoolVar(&link.Enforced, "enforced", false, "win over the links of containers below, and pass blocked inheritance")
	f.BoolVar(&link.Disabled, "disabled", false, "keep the link without effect")
	f.StringArrayVar(&link.Groups, "group", nil, "DN of a group: apply to its members only; may be given again")
	f.StringArrayVar(&link.DeniedGroups, "deny-group", nil, "DN of a group: do not apply to its members; may be given again")
	f.BoolVar(replace, "replace", false, "change the options of a link that exists")
}

func unlinkCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:               "unlink POLICY CONTAINER-DN",
		Short:             "Remove the link of a policy to a container",
		Args:              args("POLICY", "CONTAINER-DN"),
		ValidArgsFunction: c.complete(0, policyNames),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			r, err := a.documents.Unlink(ctx, &adminv1.UnlinkRequest{Policy: args[0], Container: args[1]})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				fmt.Fprintf(w, "policy %q unlinked from %s\n", args[0], args[1])
				printAffected(w, r.GetMachinesChanged(), false)
				return nil
			})
		}),
	}
}
