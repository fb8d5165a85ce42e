package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func testCommand(c *client) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Run the policy tests that are kept beside the documents",
		Long: `test runs every assertion of every PolicyTest over the documents and the directory in
force. With -f it does so as if the documents of the files were applied, tests among
them. The exit code is 1 when an assertion fails.`,
		Example: `  bailiwick test
  bailiwick test -f policies.yaml -f tests.yaml`,
		Args: args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			request := &adminv1.RunTestsRequest{}
			if len(files) > 0 {
				var err error
				if request.Sources, err = readSources(cmd.InOrStdin(), files); err != nil {
					return err
				}
			}
			r, err := a.plans.RunTests(ctx, request)
			if err != nil {
				return err
			}
			err = a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				if len(r.GetResults()) == 0 {
					fmt.Fprintln(w, "there are no policy tests; see: policies/REFERENCE.md, PolicyTest")
				}
				printTests(w, r.GetResults(), true)
				return nil
			})
			if err == nil && r.GetFailed() > 0 {
				err = fmt.Errorf("%d of %s fail", r.GetFailed(), plural(len(r.GetResults()), "assertion"))
			}
			return err
		}),
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "file of YAML documents, - for standard input; may be given again")
	return cmd
}

// printTests prints results, one line for what holds; a failure says what was expected, what was found and why.
func printTests(w io.Writer, results []*adminv1.TestResult, alone bool) {
	if len(results) > 0 && !alone {
		fmt.Fprintln(w, "\nPolicy tests:")
	}
	for _, t := range results {
		name := fmt.Sprintf("%s, assertion %d", t.GetTest(), t.GetNumber())
		if t.GetName() != "" {
			name += " (" + t.GetName() + ")"
		}
		fmt.Fprintf(w, "%-5s  %s: %s\n", t.GetState(), name, t.GetAssertion())
		switch t.GetState() {
		case "fails":
			found := t.GetFound()
			if t.GetOffer() != "" {
				found += " with " + t.GetOffer()
			}
			fmt.Fprintf(w, "       expected %s, found %s: %s to %s, %s (%s)\n       %s\n", strings.Join(t.GetExpected(), " or "), found,
				t.GetClient(), t.GetServer(), t.GetTraffic(), plural(int(t.GetPairs()), "pair"), t.GetBecause())
		case "void":
			fmt.Fprintf(w, "       it checks nothing: %s\n", t.GetBecause())
		}
	}
}
