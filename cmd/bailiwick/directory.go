package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func directoryCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "directory", Short: "Show and check how directories are read; release, discard or announce changes of many machines"}
	cmd.AddCommand(directoryStatusCommand(c), directoryCheckCommand(c), directoryHeldCommand(c), directoryReleaseCommand(c), directoryDiscardCommand(c),
		directoryRaiseCommand(c), directoryEventsCommand(c))
	return group(cmd)
}

func directoryStatusCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "status [SOURCE]",
		Short: "Show how each directory was read last, which change is held, and which machines vanished",
		Args:  upTo("SOURCE"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				r, err := a.fleet.GetDirectoryStatus(ctx, &adminv1.GetDirectoryStatusRequest{Source: args[0]})
				if err != nil {
					return err
				}
				return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return printDirectory(w, r) })
			}
			r, err := a.directories.ListSources(ctx, &adminv1.ListSourcesRequest{})
			if err != nil {
				return err
			}
			// One directory is shown as it always was.
			if len(r.GetSources()) == 1 {
				return a.print(cmd.OutOrStdout(), r.GetSources()[0], func(w io.Writer) error { return printDirectory(w, r.GetSources()[0]) })
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return printSources(w, r) })
		}),
	}
}

func printSources(w io.Writer, r *adminv1.ListSourcesResponse) error {
	for i, source := range r.GetSources() {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "Source %d of %d: %s\n", i+1, len(r.GetSources()), source.GetSource())
		if err := printDirectory(w, source); err != nil {
			return err
		}
	}
	if len(r.GetCollisions()) > 0 {
		fmt.Fprintf(w, "\nClaimed by several sources (the earlier has it):\n")
		for _, text := range r.GetCollisions() {
			fmt.Fprintln(w, "  "+text)
		}
	}
	return nil
}

func printDirectory(w io.Writer, r *adminv1.GetDirectoryStatusResponse) error {
	state := "never accepted"
	if r.GetAccepted() != nil {
		state = "accepted " + when(r.GetAccepted())
		if r.GetRestored() {
			state += ", not read since the controller started"
		}
	}
	table := rows{
		{"Source", r.GetKind() + " " + r.GetLocation()},
		{"Base", orDash(r.GetBase())},
		{"Protocol", protocolText(r)},
		{"Last read", when(r.GetLastRead())},
		{"In force", fmt.Sprintf("%s, %s, %s, %s (digest %s)", state, plural(int(r.GetMachines()), "machine"),
			plural(int(r.GetContainers()), "container"), plural(int(r.GetGroups()), "group"), short(r.GetDigest()))},
	}
	if g := r.GetGroupPolicy(); g != nil {
		table.add("Group Policy", groupPolicyText(g))
	}
	if r.GetLag() != nil {
		table.add("Lag", "at most "+r.GetLag().AsDuration().Round(time.Millisecond).String())
	}
	if r.GetLastFullRead() != nil {
		table.add("Read in full", when(r.GetLastFullRead()))
	}
	if r.GetNextRead() != nil {
		table.add("Next read", when(r.GetNextRead()))
	}
	if r.GetLastError() != "" {
		table.add("Error", fmt.Sprintf("%s (%s, %s in a row): the state in force stays", r.GetLastError(), when(r.GetLastErrorAt()), plural(int(r.GetFailures()), "failure")))
	}
	if n := r.GetCounts(); n != nil {
		table.add("Since start", fmt.Sprintf("%s, %s, %s, %d held, %s vanished", plural(int(n.GetReads()), "read"), plural(int(n.GetFailures()), "failure"),
			plural(int(n.GetChanges()), "change"), n.GetHeld(), plural(int(n.GetVanished()), "machine")))
	}
	if r.GetRaisedUntil() != nil {
		table.add("Announced", fmt.Sprintf("one change of up to %s, until %s", plural(int(r.GetRaisedMachines()), "machine"), when(r.GetRaisedUntil())))
	}
	for _, dn := range r.GetUnguarded() {
		table.add("Not guarded", dn+" has limits of its own, but is not in the directory")
	}
	if err := table.write(w); err != nil {
		return err
	}
	if notes := r.GetGroupPolicy().GetNotes(); len(notes) > 0 {
		fmt.Fprintf(w, "\nOf Group Policy is to be known:\n")
		for _, n := range notes {
			fmt.Fprintln(w, "  "+n)
		}
	}
	printHeld(w, r.GetHeld())
	if gone := r.GetVanished(); len(gone) > 0 {
		fmt.Fprintf(w, "\nMachines that vanished and keep their policy for now:\n")
		table := rows{{"MACHINE", "POLICY", "SINCE", "UNTIL", "WAS"}}
		for _, v := range gone {
			table.add(v.GetName(), orDash(v.GetPolicy()), when(v.GetSince()), when(v.GetUntil()), v.GetDn())
		}
		if err := table.write(w); err != nil {
			return err
		}
	}
	if problems := r.GetProblems(); len(problems) > 0 {
		fmt.Fprintf(w, "\nEntries that cannot be used:\n")
		for _, p := range problems {
			fmt.Fprintln(w, "  "+p)
		}
	}
	if failed := r.GetFailedTests(); len(failed) > 0 {
		fmt.Fprintf(w, "\nPolicy tests that fail with this directory:\n")
		for _, sentence := range failed {
			fmt.Fprintln(w, "  "+sentence)
		}
	}
	return nil
}

// groupPolicyText tells what is read of Group Policy.
func groupPolicyText(g *adminv1.GroupPolicy) string {
	what := plural(int(g.GetSites()), "site")
	if g.GetAssignment() {
		what = fmt.Sprintf("%d policies, %s, %s", g.GetPolicies(), plural(int(g.GetLinks()), "link"), what)
	}
	text := what + ", as read " + when(g.GetLastRead())
	if g.GetLastRead() == nil {
		text = "not taken over yet"
	}
	if g.GetLastError() != "" {
		text += fmt.Sprintf("; since %s not taken over, the documents of before stay in force: %s", when(g.GetLastErrorAt()), g.GetLastError())
	}
	return text
}

// protocolText names the protocol, and why it is no better one.
func protocolText(r *adminv1.GetDirectoryStatusResponse) string {
	if r.GetProtocolNote() == "" {
		return orDash(r.GetProtocol())
	}
	return r.GetProtocol() + " (" + r.GetProtocolNote() + ")"
}

func printHeld(w io.Writer, h *adminv1.HeldChange) {
	if h == nil {
		return
	}
	state := "is held since " + when(h.GetSince())
	if h.GetDiscarded() != nil {
		state += " and was discarded " + when(h.GetDiscarded())
	}
	fmt.Fprintf(w, "\nA change of the directory %s: %s.\n  %s\n", state, h.GetReason(), h.GetSummary())
	for _, change := range h.GetChanges() {
		fmt.Fprintln(w, "  - "+change)
	}
	if more := int(h.GetTotal()) - len(h.GetChanges()); more > 0 {
		fmt.Fprintf(w, "  - and %d more\n", more)
	}
	fmt.Fprintf(w, "Apply it:  bailiwick directory release %s\nRefuse it: bailiwick directory discard %s\n", h.GetId(), h.GetId())
}

func directoryReleaseCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "release ID",
		Short: "Apply a held change of the directory",
		Args:  args("ID"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			r, err := a.fleet.ReleaseChange(ctx, &adminv1.ReleaseChangeRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "released: %s\n", r.GetSummary())
				return err
			})
		}),
	}
}

func directoryDiscardCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "discard ID",
		Short: "Note that a held change of the directory must not be applied",
		Args:  args("ID"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			r, err := a.fleet.DiscardChange(ctx, &adminv1.DiscardChangeRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, "discarded: it stays held for as long as the directory says so; correct the directory")
				return err
			})
		}),
	}
}
