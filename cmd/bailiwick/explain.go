package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func explainCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "explain", Short: "Tell why"}
	cmd.AddCommand(&cobra.Command{
		Use:               "machine NAME",
		Short:             "Tell which policy applies to a machine, and why every other link does not",
		Args:              args("NAME"),
		ValidArgsFunction: c.complete(0, machineNames),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			r, err := a.fleet.ExplainMachine(ctx, &adminv1.ExplainMachineRequest{Machine: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return printExplanation(w, r) })
		}),
	})
	cmd.AddCommand(explainFlowCommand(c))
	return group(cmd)
}

func printExplanation(w io.Writer, r *adminv1.ExplainMachineResponse) error {
	m := r.GetMachine()
	applies := fmt.Sprintf("%s, from %s", m.GetPolicy(), m.GetContainer())
	if m.GetContainer() == "" {
		applies = "none: no link applies, every packet is permitted"
	}
	table := rows{
		{"Machine", m.GetName() + "  " + m.GetDn()},
		{"UUID", m.GetUuid()},
		{"Policy", applies},
		{"Revision", fmt.Sprintf("%d (digest %s)", m.GetRevision(), short(m.GetDigest()))},
		{"Node", nodeOf(m)},
	}
	if m.GetVanished() != nil {
		table.add("Vanished", when(m.GetVanished())+": the directory does not hold it any more; it keeps its policy for a grace time")
	}
	if m.GetError() != "" {
		table.add("Problem", m.GetError())
	}
	if len(r.GetPath()) > 0 {
		table.add("Path", strings.Join(r.GetPath(), "  >  "))
	}
	if r.GetSiteReason() != "" {
		table.add("Site", cmp.Or(r.GetSite(), "none")+": "+r.GetSiteReason())
	}
	for i, g := range r.GetGroups() {
		head := ""
		if i == 0 {
			head = "Groups"
		}
		table.add(head, g)
	}
	if err := table.write(w); err != nil {
		return err
	}
	if len(r.GetCandidates()) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	table = rows{{"", "POLICY", "LINKED TO", "ORDER", "REASON", "BECAUSE"}}
	for _, c := range r.GetCandidates() {
		mark := ""
		if c.GetWinner() {
			mark = "*"
		}
		because := c.GetExplanation()
		if d := c.GetLink().GetDescription(); d != "" {
			because += " [" + d + "]"
		}
		table.add(mark, c.GetLink().GetPolicy(), c.GetLink().GetContainer(), fmt.Sprint(c.GetLink().GetOrder()), c.GetReason(), because)
	}
	return table.write(w)
}
