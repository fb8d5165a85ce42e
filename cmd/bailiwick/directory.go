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
	cmd := &cobra.Command{Use: "directory", Short: "Show how the directory is read; release or discard a held change"}
	cmd.AddCommand(directoryStatusCommand(c), directoryReleaseCommand(c), directoryDiscardCommand(c))
	return group(cmd)
}

func directoryStatusCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the directory was read last, which change is held, and which machines vanished",
		Args:  args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.fleet.GetDirectoryStatus(ctx, &adminv1.GetDirectoryStatusRequest{})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return printDirectory(w, r) })
		}),
	}
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
	if err := table.write(w); err != nil {
		return err
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
