package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func applyCommand(c *client) *cobra.Command {
	var files, without []string
	var dryRun bool
	var plan string
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create or replace the policy documents of files: all of them or none",
		Example: `  bailiwick apply -f policies.yaml
  bailiwick apply --dry-run -f policies.yaml -f links.yaml
  bailiwick apply -f renamed.yaml --delete "FilterAction/Old name"
  bailiwick apply --plan 2f6c0d5e8a4b7191d3c2b1a09f8e7d6c
  bailiwick export | sed s/old/new/ | bailiwick apply -f -`,
		Args: args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := func() (*adminv1.ApplyResponse, error) {
				if plan != "" {
					if len(files)+len(without) > 0 || dryRun {
						return nil, usagef("--plan applies the documents of the plan: leave -f, --delete and --dry-run away")
					}
					r, err := a.plans.ApplyPlan(ctx, &adminv1.ApplyPlanRequest{Id: plan})
					return r.GetApplied(), err
				}
				change, err := documentsChange(cmd.InOrStdin(), files, without)
				if err != nil {
					return nil, err
				}
				return a.documents.Apply(ctx, &adminv1.ApplyRequest{Sources: change.GetSources(), Delete: change.GetDelete(), DryRun: dryRun})
			}()
			if err != nil {
				return err
			}
			printProblems(cmd.ErrOrStderr(), "warning: ", r.GetWarnings())
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return printApplied(w, r, dryRun) })
		}),
	}
	documentFlags(cmd, &files, &without)
	cmd.Flags().StringVar(&plan, "plan", "", "ID of a plan: make exactly the change that was planned, or say what changed since")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check, tell what would change, and change nothing")
	return cmd
}

func readSources(stdin io.Reader, files []string) ([]*adminv1.Source, error) {
	if len(files) == 0 {
		return nil, usagef("which documents? name a file with -f, or - for standard input")
	}
	var sources []*adminv1.Source
	for _, file := range files {
		if file == "-" {
			content, err := io.ReadAll(stdin)
			if err != nil {
				return nil, fmt.Errorf("reading standard input: %w", err)
			}
			sources = append(sources, &adminv1.Source{Name: "standard input", Content: content})
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading documents: %w", err)
		}
		sources = append(sources, &adminv1.Source{Name: file, Content: content})
	}
	return sources, nil
}

func printApplied(w io.Writer, r *adminv1.ApplyResponse, dryRun bool) error {
	would := ""
	if dryRun {
		would = "would be "
	}
	for _, change := range r.GetChanges() {
		done := strings.ToLower(strings.TrimPrefix(change.GetAction().String(), "ACTION_"))
		if change.GetAction() == adminv1.Change_ACTION_UNCHANGED {
			fmt.Fprintf(w, "%s %q unchanged\n", change.GetKind(), change.GetName())
			continue
		}
		fmt.Fprintf(w, "%s %q %s%s\n", change.GetKind(), change.GetName(), would, done)
	}
	printAffected(w, r.GetMachinesChanged(), dryRun)
	return nil
}

// printAffected tells how far a change reaches.
func printAffected(w io.Writer, machines uint32, dryRun bool) {
	verb := "changes"
	if dryRun {
		verb = "would change"
	}
	switch machines {
	case 0:
		fmt.Fprintf(w, "no machine's policy %s\n", verb)
	case 1:
		fmt.Fprintf(w, "the policy of 1 machine %s\n", verb)
	default:
		if !dryRun {
			verb = "change"
		}
		fmt.Fprintf(w, "the policies of %d machines %s\n", machines, verb)
	}
}

func deleteCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "delete KIND NAME",
		Short: "Delete a policy document that no other one uses",
		Args:  args("KIND", "NAME"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			r, err := a.documents.Delete(ctx, &adminv1.DeleteRequest{Kind: args[0], Name: args[1]})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s %q deleted\n", args[0], args[1])
				return err
			})
		}),
	}
}

func renameCommand(c *client) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "rename KIND NAME NEW",
		Short: "Give a policy document another name, and change every document that names it in the same step",
		Args:  args("KIND", "NAME", "NEW"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			renamed, err := a.documents.Rename(ctx, &adminv1.RenameRequest{Kind: args[0], Name: args[1], NewName: args[2], DryRun: dryRun})
			if err != nil {
				return err
			}
			r := renamed.GetApplied()
			printProblems(cmd.ErrOrStderr(), "warning: ", r.GetWarnings())
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return printApplied(w, r, dryRun) })
		}),
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check, tell what would change, and change nothing")
	return cmd
}

func exportCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print every policy document as it was written, as one file that apply takes",
		Args:  args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.documents.ListDocuments(ctx, &adminv1.ListDocumentsRequest{})
			if err != nil {
				return err
			}
			return printDocuments(cmd.OutOrStdout(), r.GetDocuments())
		}),
	}
	cmd.AddCommand(foreignExports(c)...)
	return cmd
}

func printDocuments(w io.Writer, docs []*adminv1.Document) error {
	for i, d := range docs {
		if i > 0 {
			if _, err := io.WriteString(w, "---\n"); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(w, strings.Trim(d.GetContent(), "\n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}
