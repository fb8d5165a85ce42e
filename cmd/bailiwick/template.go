package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/policies/predefined"
)

func templateCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "template",
		Short: "Show policy documents to start from; needs no controller",
		Example: `  bailiwick template list
  bailiwick template show domain-isolation | bailiwick apply --dry-run -f -`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("%s wants list or show NAME", cmd.CommandPath())
		},
	}
	cmd.AddCommand(templateListCommand(c), templateShowCommand(c))
	return cmd
}

// templateEntry is a template as --output json and yaml print it.
type templateEntry struct {
	Name    string `json:"name"`
	Summary string `json:"summary"`
	Text    string `json:"text,omitempty"`
}

func templateListCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the templates",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			table, entries := rows{{"TEMPLATE", "WHAT FOR"}}, []templateEntry{}
			for _, t := range predefined.Templates() {
				table.add(t.Name, t.Summary)
				entries = append(entries, templateEntry{Name: t.Name, Summary: t.Summary})
			}
			if c.output == "table" {
				return table.write(cmd.OutOrStdout())
			}
			return c.printValue(cmd.OutOrStdout(), map[string]any{"templates": entries})
		},
	}
}

func templateShowCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Print the documents of a template, with comments, ready to apply",
		Args:  args("NAME"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return templateNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			all := predefined.Templates()
			i := slices.IndexFunc(all, func(t predefined.Template) bool { return t.Name == args[0] })
			if i < 0 {
				return status.Errorf(codes.NotFound, "there is no template %q; there are %s", args[0], strings.Join(templateNames(), ", "))
			}
			if c.output == "json" {
				return c.printValue(cmd.OutOrStdout(), templateEntry{all[i].Name, all[i].Summary, string(all[i].Text)})
			}
			_, err := cmd.OutOrStdout().Write(all[i].Text)
			return err
		},
	}
}

func templateNames() []string {
	var out []string
	for _, t := range predefined.Templates() {
		out = append(out, t.Name)
	}
	return out
}

// printValue writes a value that no controller sent, as JSON or YAML.
func (c *client) printValue(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err == nil && c.output == "yaml" {
		text, err = yaml.JSONToYAML(text)
	}
	if err != nil {
		return fmt.Errorf("printing the answer: %w", err)
	}
	_, err = fmt.Fprintln(w, strings.TrimRight(string(text), "\n"))
	return err
}
