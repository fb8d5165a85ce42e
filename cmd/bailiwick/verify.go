package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// errFindings ends a command that has printed why documents do not pass.
var errFindings = errors.New("findings")

func verifyCommand(c *client) *cobra.Command {
	var files []string
	var pairs bool
	var failOn string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Look for what is wrong, dangerous or without effect in all policy documents",
		Long: `Look for what is wrong, dangerous or without effect in all policy documents, with those of files in their place as if
they were applied: names of nothing, filters that no packet reaches, offers that nobody chooses, servers that machines
could not reach any more, preshared keys of many machines, weak algorithms, CAs that end.

With --pairs it finds the pairs of machines whose policies cannot negotiate, instead.

The exit code is 6 when there is a finding of the severity of --fail-on or a graver one, or a pair that cannot negotiate.
Which severity keeps a change from being applied is said by blockApply of the Settings document.`,
		Example: `  bailiwick verify
  bailiwick verify -f changed.yaml --fail-on warning -o json
  bailiwick verify --pairs`,
		Args: args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			limit, ok := map[string]int{"error": 3, "warning": 2, "info": 1, "never": 4}[failOn]
			if !ok {
				return usagef("--fail-on %q, wanted error, warning, info or never", failOn)
			}
			var sources []*adminv1.Source
			if len(files) > 0 {
				var err error
				if sources, err = readSources(cmd.InOrStdin(), files); err != nil {
					return err
				}
			}
			if pairs {
				return a.verifyPairs(ctx, cmd.OutOrStdout(), sources, limit)
			}
			r, err := a.analysis.Verify(ctx, &adminv1.VerifyRequest{Sources: sources})
			if err != nil {
				return err
			}
			if err := a.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return printFindings(w, r) }); err != nil {
				return err
			}
			if limit <= 3 && r.GetErrors() > 0 || limit <= 2 && r.GetWarnings() > 0 || limit <= 1 && r.GetInfos() > 0 {
				return errFindings
			}
			return nil
		}),
	}
	f := cmd.Flags()
	f.StringArrayVarP(&files, "file", "f", nil, "file of YAML documents as if they were applied, - for standard input; may be given again")
	f.BoolVar(&pairs, "pairs", false, "find the pairs of machines that cannot negotiate")
	f.StringVar(&failOn, "fail-on", "error", "severity that makes the command fail: error, warning, info or never")
	return cmd
}

func printFindings(w io.Writer, r *adminv1.VerifyResponse) error {
	for _, f := range r.GetFindings() {
		place := f.GetSource()
		if f.GetLine() > 0 {
			place += fmt.Sprintf(":%d:%d", f.GetLine(), f.GetColumn())
		}
		if place != "" { // what is no document has none
			place += ": "
		}
		fmt.Fprintf(w, "%s %s: %s%s: %s\n", f.GetSeverity(), f.GetCode(), place, f.GetDocument(), f.GetSentence())
		if f.GetHint() != "" {
			fmt.Fprintf(w, "  hint: %s\n", f.GetHint())
		}
	}
	_, err := fmt.Fprintf(w, "%s, %s, %s\n", plural(int(r.GetErrors()), "error"), plural(int(r.GetWarnings()), "warning"), plural(int(r.GetInfos()), "remark"))
	return err
}

func (a *api) verifyPairs(ctx context.Context, w io.Writer, sources []*adminv1.Source, limit int) error {
	r, err := a.analysis.ListPairs(ctx, &adminv1.ListPairsRequest{Sources: sources})
	if err != nil {
		return err
	}
	if err := a.print(w, r, func(w io.Writer) error { return printTroubles(w, r) }); err != nil {
		return err
	}
	if limit <= 3 && len(r.GetPairs()) > 0 {
		return errFindings
	}
	return nil
}

func printTroubles(w io.Writer, r *adminv1.ListPairsResponse) error {
	for _, p := range r.GetPairs() {
		verb := "cannot negotiate with"
		if p.GetLater() {
			verb = "cannot rekey with"
		}
		fmt.Fprintf(w, "%s %s %s (%s): %s\n", p.GetInitiatorPolicy(), verb, p.GetResponderPolicy(), plural(int(p.GetMachinePairs()), "pair"), p.GetMismatch().GetSentence())
		table := rows{
			{"  witness", fmt.Sprintf("%s (%s) to %s (%s)", p.GetInitiator(), p.GetInitiatorRule(), p.GetResponder(), orDash(p.GetResponderRule()))},
			{"  packet", p.GetPacket() + ", which comes to " + p.GetResult()},
			{"  first mismatch", p.GetMismatch().GetCode()},
			{"  " + p.GetInitiator(), listOr(p.GetMismatch().GetInitiator())},
			{"  " + p.GetResponder(), listOr(p.GetMismatch().GetResponder())},
		}
		if len(p.GetAssumed()) > 0 {
			table.add("  assumed", "an address of "+strings.Join(p.GetAssumed(), " and ")+" that no filter names")
		}
		if err := table.write(w); err != nil {
			return err
		}
	}
	for _, m := range r.GetIncomplete() {
		fmt.Fprintf(w, "not every kind of packet was looked at between %s\n", m)
	}
	for _, m := range r.GetLeftOut() {
		fmt.Fprintf(w, "left out: %s\n", m)
	}
	_, err := fmt.Fprintf(w, "%s of %s and %s: %s cannot negotiate\n", plural(int(r.GetExamined()), "pair"), plural(int(r.GetKinds()), "kind")+" of machines",
		plural(int(r.GetBundles()), "bundle"), plural(len(r.GetPairs()), "group"))
	return err
}

func listOr(list []string) string {
	const most = 6
	if len(list) > most {
		list = append(list[:most:most], fmt.Sprintf("%d others", len(list)-most))
	}
	if len(list) == 0 {
		return "nothing"
	}
	return strings.Join(list, "; ")
}
