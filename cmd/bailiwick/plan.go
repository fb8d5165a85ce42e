package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// planCommand shows what a change would do. Its subcommands are the other ways to make one.
func planCommand(c *client) *cobra.Command {
	var files, without []string
	request := &adminv1.PlanRequest{}
	cmd := &cobra.Command{
		Use:   "plan -f FILE",
		Short: "Tell what a change would do: who gets another policy, who is cut off from whom",
		Long: `plan tells what a change of the documents, or of the directory, would do before it is
made: which machines get another policy and by which link; between which of them
traffic becomes clear, protected or blocked; who loses DNS, the controller or the
directory; and which policy tests would fail. Nothing changes.

A plan of documents has an ID. "bailiwick apply --plan ID" makes exactly the change
that was planned, or refuses because documents or directory changed since.`,
		Example: `  bailiwick plan -f policies.yaml
  bailiwick plan link "Secure Server (Require Security)" ou=Servers,dc=bank,dc=example
  bailiwick plan move ws1 --to ou=SecureServers,dc=bank,dc=example`,
		Args: args(),
	}
	// Every form ends here.
	run := func(set func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
		return c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			if err := set(cmd, args); err != nil {
				return err
			}
			r, err := a.plans.Plan(ctx, request)
			if err != nil {
				return err
			}
			printProblems(cmd.ErrOrStderr(), "warning: ", r.GetWarnings())
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return printPlan(w, r) })
		})
	}
	cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
		change, err := documentsChange(cmd.InOrStdin(), files, without)
		request.Change = &adminv1.PlanRequest_Documents{Documents: change}
		return err
	})
	cmd.PersistentFlags().BoolVar(&request.Details, "details", false, "name every machine, pair and test; else as many as fit a screen")
	documentFlags(cmd, &files, &without)

	link, replace := &adminv1.PolicyLink{}, false
	linking := &cobra.Command{
		Use: "link POLICY CONTAINER-DN", Short: "Tell what a link would do", Args: args("POLICY", "CONTAINER-DN"),
		ValidArgsFunction: c.complete(0, policyNames),
		RunE: run(func(_ *cobra.Command, args []string) error {
			link.Policy, link.Container = args[0], args[1]
			request.Change = &adminv1.PlanRequest_Link{Link: &adminv1.LinkRequest{Link: link, Replace: replace}}
			return nil
		}),
	}
	linkFlags(linking.Flags(), link, &replace)
	unlinking := &cobra.Command{
		Use: "unlink POLICY CONTAINER-DN", Short: "Tell what the removal of a link would do", Args: args("POLICY", "CONTAINER-DN"),
		ValidArgsFunction: c.complete(0, policyNames),
		RunE: run(func(_ *cobra.Command, args []string) error {
			request.Change = &adminv1.PlanRequest_Unlink{Unlink: &adminv1.UnlinkRequest{Policy: args[0], Container: args[1]}}
			return nil
		}),
	}
	deleting := &cobra.Command{
		Use: "delete KIND NAME", Short: "Tell what the deletion of a document would do", Args: args("KIND", "NAME"),
		RunE: run(func(_ *cobra.Command, args []string) error {
			request.Change = &adminv1.PlanRequest_Documents{Documents: &adminv1.DocumentsChange{Delete: []*adminv1.DocumentName{{Kind: args[0], Name: args[1]}}}}
			return nil
		}),
	}
	renaming := &cobra.Command{
		Use: "rename KIND NAME NEW", Short: "Tell what another name of a document would do", Args: args("KIND", "NAME", "NEW"),
		RunE: run(func(_ *cobra.Command, args []string) error {
			request.Change = &adminv1.PlanRequest_Rename{Rename: &adminv1.RenameRequest{Kind: args[0], Name: args[1], NewName: args[2]}}
			return nil
		}),
	}
	to := ""
	moving := &cobra.Command{
		Use: "move MACHINE-OR-DN --to CONTAINER-DN", Short: "Tell what a move in the directory would do, and whether it would be held",
		Long: `move tells what would happen if somebody moved a machine, or a container with all
that is in it, in the directory. The controller never writes the directory: there is
nothing to apply.`,
		Args: args("MACHINE-OR-DN"), ValidArgsFunction: c.complete(0, machineNames),
		RunE: run(func(_ *cobra.Command, args []string) error {
			if to == "" {
				return usagef("move where? name the container with --to")
			}
			request.Change = &adminv1.PlanRequest_Move{Move: &adminv1.DirectoryMove{Dn: args[0], To: to}}
			return nil
		}),
	}
	moving.Flags().StringVar(&to, "to", "", "DN of the container to move to")
	held := &cobra.Command{
		Use: "held", Short: "Tell what a release of the held change of the directory would do", Args: args(),
		RunE: run(func(*cobra.Command, []string) error {
			request.Change = &adminv1.PlanRequest_Held{Held: &adminv1.HeldDirectoryChange{}}
			return nil
		}),
	}
	cmd.AddCommand(linking, unlinking, deleting, renaming, moving, held)
	return cmd
}

// documentFlags are those of a change of documents.
func documentFlags(cmd *cobra.Command, files, without *[]string) {
	cmd.Flags().StringArrayVarP(files, "file", "f", nil, "file of YAML documents, - for standard input; may be given again")
	cmd.Flags().StringArrayVar(without, "delete", nil, "document to delete in the same step, as KIND/NAME; may be given again")
}

func documentsChange(stdin io.Reader, files, without []string) (*adminv1.DocumentsChange, error) {
	change := &adminv1.DocumentsChange{}
	for _, text := range without {
		kind, name, ok := strings.Cut(text, "/")
		if !ok || kind == "" || name == "" {
			return nil, usagef("--delete %q is not KIND/NAME", text)
		}
		change.Delete = append(change.Delete, &adminv1.DocumentName{Kind: kind, Name: name})
	}
	if len(files) == 0 && len(without) > 0 {
		return change, nil
	}
	var err error
	change.Sources, err = readSources(stdin, files)
	return change, err
}

func printPlan(w io.Writer, r *adminv1.PlanResponse) error {
	for _, change := range r.GetDocuments() {
		fmt.Fprintf(w, "%s %q %s\n", change.GetKind(), change.GetName(), planned(change.GetAction()))
	}
	if r.GetDirectory() != "" {
		fmt.Fprintf(w, "Directory: %s\n", r.GetDirectory())
	}
	if r.GetHeld() != "" {
		fmt.Fprintf(w, "The guard would hold it: %s.\n", r.GetHeld())
	}
	fmt.Fprintf(w, "%d of %s would get another policy.\n", r.GetMachinesChanged(), plural(int(r.GetMachines()), "machine"))
	if err := printAssignments(w, r); err != nil {
		return err
	}
	if err := printPairs(w, r); err != nil {
		return err
	}
	if len(r.GetServices()) > 0 {
		table := rows{{"", "SERVICE", "MACHINES", "POLICY", "BECOMES", "BECAUSE"}}
		for _, s := range r.GetServices() {
			table.add(cut(s.GetCutOff()), s.GetService(), withWitness(uint64(s.GetCount()), s.GetWitness()), becomes(s.GetPolicyBefore(), s.GetPolicyAfter(), false),
				s.GetBefore()+" => "+s.GetAfter(), s.GetBecause())
		}
		fmt.Fprintln(w, "\nServers that machines reach otherwise:")
		if err := table.write(w); err != nil {
			return err
		}
	}
	if len(r.GetRefused()) > 0 {
		fmt.Fprintln(w, "\nMachines that the controller and their peers would refuse:")
		for i, m := range r.GetRefused() {
			if i == 10 {
				fmt.Fprintf(w, "  and %d more\n", len(r.GetRefused())-i)
				break
			}
			fmt.Fprintf(w, "  %s: its account is %s\n", m.GetMachine(), m.GetReason())
		}
	}
	printTests(w, r.GetTests(), false)
	if r.GetPairsUnjudged() > 0 {
		fmt.Fprintf(w, "\n%d pairs of machines are too many to be judged.\n", r.GetPairsUnjudged())
	}
	if n := r.GetMachinesUnaddressed(); n > 0 && r.GetMachinesChanged() > 0 {
		fmt.Fprintf(w, "\nNeither the directory nor a node tells an address of %s: filters that name addresses were taken not to be about them.\n", plural(int(n), "machine"))
	}
	if len(r.GetAssumptions()) > 0 {
		fmt.Fprintln(w, "\nNot known here:")
		for _, sentence := range r.GetAssumptions() {
			fmt.Fprintf(w, "  %s\n", sentence)
		}
	}
	if len(r.GetBlocked()) > 0 {
		fmt.Fprintln(w, "\nThe settings of the fleet do not let it be applied (blockApply):")
		printProblems(w, "  ", r.GetBlocked())
	}
	switch {
	case r.GetId() != "":
		fmt.Fprintf(w, "\nApply exactly this: bailiwick apply --plan %s\n", r.GetId())
	case r.GetTestsFailed() > 0 && len(r.GetDocuments()) > 0:
		fmt.Fprintln(w, "\nIt could not be applied: policy tests would fail.")
	}
	return nil
}

func planned(a adminv1.Change_Action) string {
	done := strings.ToLower(strings.TrimPrefix(a.String(), "ACTION_"))
	if a == adminv1.Change_ACTION_UNCHANGED {
		return done
	}
	return "would be " + done
}

// cut marks what cuts machines off.
func cut(off bool) string {
	if off {
		return "!"
	}
	return ""
}

func becomes(before, after string, changed bool) string {
	switch {
	case before != after:
		return before + " => " + after
	case changed:
		return after + " (changed)"
	}
	return after
}

func withWitness(n uint64, witness string) string { return fmt.Sprintf("%d (%s)", n, witness) }

func printAssignments(w io.Writer, r *adminv1.PlanResponse) error {
	if len(r.GetAssignments()) == 0 {
		return nil
	}
	table := rows{{"MACHINES", "BEFORE", "AFTER", "FROM", "BECAUSE", "NAMES"}}
	for _, a := range r.GetAssignments() {
		names := strings.Join(a.GetMachines(), " ")
		if n := int(a.GetCount()) - len(a.GetMachines()); n > 0 {
			names += fmt.Sprintf(" and %d more", n)
		}
		before, after := a.GetBefore().GetPolicy(), a.GetAfter().GetPolicy()
		if before == after && a.GetBefore().GetDigest() != a.GetAfter().GetDigest() {
			after += " (changed)"
		}
		table.add(fmt.Sprint(a.GetCount()), orDash(before), orDash(after), orDash(a.GetAfter().GetContainer()), orDash(a.GetAfter().GetBecause()), names)
	}
	if err := table.write(w); err != nil {
		return err
	}
	if n := r.GetAssignmentsOmitted(); n > 0 {
		fmt.Fprintf(w, "and %d more rows, with --details\n", n)
	}
	return nil
}

func printPairs(w io.Writer, r *adminv1.PlanResponse) error {
	if len(r.GetPairs()) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nTraffic between %d pairs of machines is treated otherwise", r.GetMachinePairs())
	if n := r.GetMachinePairsCutOff(); n > 0 {
		fmt.Fprintf(w, ", and between %d of them some is cut off (!)", n)
	}
	fmt.Fprintln(w, ":")
	table := rows{{"", "PAIRS", "FROM", "TO", "BECOMES", "TRAFFIC", "AS"}}
	for _, p := range r.GetPairs() {
		c, s := p.GetClient(), p.GetServer()
		for i, t := range p.GetTraffic() {
			row := []string{"", "", "", ""}
			if i == 0 {
				row = []string{cut(p.GetCutOff()), fmt.Sprint(p.GetCount()), becomes(c.GetBefore(), c.GetAfter(), c.GetDigestBefore() != c.GetDigestAfter()),
					becomes(s.GetBefore(), s.GetAfter(), s.GetDigestBefore() != s.GetDigestAfter())}
			}
			table.add(append(row, t.GetBefore()+" => "+t.GetAfter(), strings.Join(t.GetTraffic(), ", "), c.GetWitness()+" to "+s.GetWitness())...)
		}
	}
	if err := table.write(w); err != nil {
		return err
	}
	if n := r.GetPairsOmitted(); n > 0 {
		fmt.Fprintf(w, "and %d more rows, with --details\n", n)
	}
	return nil
}
