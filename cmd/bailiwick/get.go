package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func getCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "get", Short: "Show the tree, machines, policies, links, nodes, associations or documents"}
	cmd.AddCommand(getTreeCommand(c), getMachinesCommand(c), getPoliciesCommand(c), getLinksCommand(c), getNodesCommand(c), getSAsCommand(c), getDocumentsCommand(c))
	return group(cmd)
}

func getMachinesCommand(c *client) *cobra.Command {
	r := &adminv1.ListMachinesRequest{}
	cmd := &cobra.Command{
		Use:   "machines",
		Short: "Show every machine, its policy, and the container that it comes from",
		Args:  args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.fleet.ListMachines(ctx, r)
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				table := rows{{"MACHINE", "POLICY", "FROM", "NODE", "DN"}}
				for _, m := range r.GetMachines() {
					table.add(m.GetName(), policyOf(m), orDash(m.GetContainer()), nodeOf(m), m.GetDn())
				}
				return table.write(w)
			})
		}),
	}
	cmd.Flags().StringVar(&r.Policy, "policy", "", "only machines that this policy applies to")
	cmd.Flags().StringVar(&r.Container, "container", "", "only machines below the container of this DN")
	return cmd
}

// policyOf tells a machine's policy and what is wrong with it.
func policyOf(m *adminv1.Machine) string {
	policy := orDash(m.GetPolicy())
	if m.GetError() != "" {
		policy += " (kept: " + m.GetError() + ")"
	}
	return policy
}

// nodeOf tells the state of a machine's node, unless the directory has something more important to say.
func nodeOf(m *adminv1.Machine) string {
	switch {
	case m.GetVanished() != nil:
		return "vanished"
	case m.GetDisabled():
		return "disabled"
	}
	return stateOf(m.GetNode())
}

func stateOf(s adminv1.NodeState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "NODE_STATE_"))
}

func getPoliciesCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "policies",
		Short: "Show the policies and where they are linked",
		Args:  args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.documents.ListPolicies(ctx, &adminv1.ListPoliciesRequest{})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				table := rows{{"POLICY", "RULES", "MACHINES", "LINKED TO", "DIGEST"}}
				for _, p := range r.GetPolicies() {
					var links []string
					for _, l := range p.GetLinks() {
						links = append(links, l.GetContainer())
					}
					table.add(p.GetName(), fmt.Sprint(p.GetRules()), fmt.Sprint(p.GetMachines()), orDash(strings.Join(links, "; ")), short(p.GetDigest()))
				}
				return table.write(w)
			})
		}),
	}
}

func getLinksCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "links",
		Short: "Show the links of policies to containers",
		Args:  args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.documents.ListLinks(ctx, &adminv1.ListLinksRequest{})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				table := rows{{"CONTAINER", "ORDER", "POLICY", "OPTIONS"}}
				for _, l := range r.GetLinks() {
					table.add(l.GetContainer(), fmt.Sprint(l.GetOrder()), l.GetPolicy(), orDash(strings.Join(linkOptions(l), ", ")))
				}
				return table.write(w)
			})
		}),
	}
}

func linkOptions(l *adminv1.PolicyLink) []string {
	var options []string
	if l.GetDisabled() {
		options = append(options, "disabled")
	}
	if l.GetEnforced() {
		options = append(options, "enforced")
	}
	for _, g := range l.GetGroups() {
		options = append(options, "group "+g)
	}
	for _, g := range l.GetDeniedGroups() {
		options = append(options, "not group "+g)
	}
	return options
}

func getNodesCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "nodes",
		Short: "Show every node that ever connected, and how far it follows",
		Args:  args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.fleet.ListNodes(ctx, &adminv1.ListNodesRequest{})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return printNodes(w, r.GetNodes()) })
		}),
	}
}

func printNodes(w io.Writer, nodes []*adminv1.Node) error {
	table := rows{{"NODE", "STATE", "POLICY IN FORCE", "REVISION", "ASSOCIATIONS", "FAILURES", "CERTIFICATE ENDS", "ADDRESS", "VERSION"}}
	for _, n := range nodes {
		revision := fmt.Sprint(n.GetRevision())
		if n.GetRevision() != n.GetAssignedRevision() {
			revision = fmt.Sprintf("%d of %d", n.GetRevision(), n.GetAssignedRevision())
		}
		table.add(n.GetName(), stateOf(n.GetState()), orDash(n.GetPolicy()), revision, fmt.Sprint(n.GetAssociations()), fmt.Sprint(n.GetFailures()),
			when(n.GetCertificateNotAfter()), orDash(n.GetAddress()), orDash(n.GetVersion()))
	}
	if err := table.write(w); err != nil {
		return err
	}
	for _, n := range nodes {
		if n.GetError() != "" {
			fmt.Fprintf(w, "\n%s refused its latest policy: %s\n", n.GetName(), n.GetError())
		}
		for _, note := range n.GetNotes() {
			fmt.Fprintf(w, "%s: %s\n", n.GetName(), note)
		}
	}
	return nil
}

func getSAsCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:               "sas [MACHINE]",
		Short:             "Show the security associations and failed negotiations that nodes reported last",
		ValidArgsFunction: c.complete(0, machineNames),
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) > 1 {
				return usagef("%s wants at most one MACHINE", cmd.CommandPath())
			}
			return nil
		},
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			request := &adminv1.ListAssociationsRequest{}
			if len(args) == 1 {
				request.Machine = args[0]
			}
			r, err := a.fleet.ListAssociations(ctx, request)
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return printAssociations(w, r) })
		}),
	}
}

func printAssociations(w io.Writer, r *adminv1.ListAssociationsResponse) error {
	table := rows{{"MACHINE", "KIND", "PEER", "LOCAL", "REMOTE", "MODE", "SUITE", "RULE", "IN", "OUT", "SINCE"}}
	for _, a := range r.GetAssociations() {
		rule := orDash(a.GetRule())
		if a.GetDefaultResponse() {
			rule = "default response"
		}
		table.add(a.GetMachine(), a.GetKind(), orDash(a.GetPeer()), a.GetLocalAddress(), a.GetRemoteAddress(), orDash(a.GetMode()), orDash(a.GetSuite()), rule,
			octets(a.GetInOctets()), octets(a.GetOutOctets()), when(a.GetEstablished()))
	}
	if err := table.write(w); err != nil {
		return err
	}
	if len(r.GetFailures()) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nFailed negotiations:\n")
	table = rows{{"MACHINE", "REMOTE", "REASON", "FAULT", "COUNT", "LAST", "DETAIL"}}
	for _, f := range r.GetFailures() {
		table.add(f.GetMachine(), f.GetRemoteAddress(), f.GetReason(), orDash(f.GetFault()), fmt.Sprint(f.GetCount()), when(f.GetTime()), f.GetDetail())
	}
	return table.write(w)
}

// octets writes a volume with a binary unit.
func octets(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%dB", n)
	}
	value, units := float64(n), "KMGTPE"
	i := -1
	for value >= unit && i < len(units)-1 {
		value /= unit
		i++
	}
	return fmt.Sprintf("%.1f%ciB", value, units[i])
}

func getDocumentsCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "documents [KIND [NAME]]",
		Short: "Show the policy documents; with --output yaml as they were written",
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) > 2 {
				return usagef("%s wants at most KIND and NAME", cmd.CommandPath())
			}
			return nil
		},
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			request := &adminv1.ListDocumentsRequest{}
			if len(args) > 0 {
				request.Kind = args[0]
			}
			if len(args) > 1 {
				request.Name = args[1]
			}
			r, err := a.documents.ListDocuments(ctx, request)
			if err != nil {
				return err
			}
			if a.output == "yaml" {
				return printDocuments(cmd.OutOrStdout(), r.GetDocuments())
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				table := rows{{"KIND", "NAME", "CHANGED", "BY", "DESCRIPTION"}}
				for _, d := range r.GetDocuments() {
					table.add(d.GetKind(), d.GetName(), when(d.GetChanged()), orDash(d.GetChangedBy()), orDash(oneLine(d.GetDescription())))
				}
				return table.write(w)
			})
		}),
	}
}
