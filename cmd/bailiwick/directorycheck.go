package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/directory/ldap"
	"github.com/bailiwick-net/bailiwick/directory/settings"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func directoryCheckCommand(c *client) *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "check [SOURCE]",
		Short: "Test the directory settings against the live servers",
		Long: `Test the directory settings against the live servers: what works, what is missing, and how to grant it.

With --config the directory section of that file is tested from here; no controller is needed, and nothing is changed. Without it
the controller tests what it is configured with, from where it runs.

Exit codes: 0 when everything works, perhaps with warnings, 6 when something does not, 4 when the file is refused, 3 when there is no such source.`,
		Args: upTo("SOURCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			source := ""
			if len(args) > 0 {
				source = args[0]
			}
			if config != "" {
				ctx, cancel := context.WithTimeout(cmd.Context(), max(c.timeout, checkTime))
				defer cancel()
				return c.checkFile(ctx, cmd, config, source)
			}
			long := *c
			long.timeout = max(c.timeout, checkTime) // the whole directory is read
			return long.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
				r, err := a.directories.CheckSources(ctx, &adminv1.CheckSourcesRequest{Source: source})
				if err != nil {
					return err
				}
				return a.printChecks(cmd.OutOrStdout(), r)
			})(cmd, args)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "test the directory section of this configuration file of a controller, from here")
	return cmd
}

// checkTime is what a check may take at least, however short an answer is wanted otherwise.
const checkTime = 5 * time.Minute

func (c *client) checkFile(ctx context.Context, cmd *cobra.Command, path, source string) error {
	checked, err := settings.ReadFile(path)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	r := &adminv1.CheckSourcesResponse{}
	var names []string
	for _, s := range checked.Sources {
		names = append(names, s.Name)
		if source == "" || s.Name == source {
			r.Sources = append(r.Sources, describeCheck(s, s.Probe(ctx, time.Now)))
		}
	}
	if len(r.GetSources()) == 0 {
		return status.Errorf(codes.NotFound, "%s has no directory source %q, but %q", path, source, names)
	}
	return c.printChecks(cmd.OutOrStdout(), r)
}

func describeCheck(s settings.CheckedSource, findings []ldap.Finding) *adminv1.CheckedSource {
	out := &adminv1.CheckedSource{Source: s.Name, Location: s.Location(), Outcome: ldap.Worst(findings).String()}
	for _, f := range findings {
		out.Findings = append(out.Findings, &adminv1.CheckFinding{Subject: f.Subject, Outcome: f.Outcome.String(), Detail: f.Detail, Hint: f.Hint})
	}
	return out
}

// printChecks prints, and returns errFindings when something does not work.
func (c *client) printChecks(w io.Writer, r *adminv1.CheckSourcesResponse) error {
	err := c.print(w, r, func(w io.Writer) error { return writeChecks(w, r) })
	for _, s := range r.GetSources() {
		if err == nil && s.GetOutcome() == ldap.Failure.String() {
			return errFindings
		}
	}
	return err
}

func writeChecks(w io.Writer, r *adminv1.CheckSourcesResponse) error {
	for i, s := range r.GetSources() {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s: %s: %s\n", s.GetSource(), s.GetLocation(), s.GetOutcome())
		for _, f := range s.GetFindings() {
			fmt.Fprintf(w, "  %-8s %-14s %s\n", f.GetOutcome(), f.GetSubject(), f.GetDetail())
			if f.GetHint() != "" {
				fmt.Fprintf(w, "  %-8s %-14s -> %s\n", "", "", f.GetHint())
			}
		}
	}
	return nil
}
