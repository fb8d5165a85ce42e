package main

import (
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/bailiwick-net/bailiwick/policies"
)

func schemaCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the policy documents, for editors; needs no controller",
		Example: `  bailiwick schema > bailiwick.schema.json
  sed -i '1i # yaml-language-server: $schema=bailiwick.schema.json' policies.yaml`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			text := policies.Schema()
			if c.output == "yaml" {
				var err error
				if text, err = yaml.JSONToYAML(text); err != nil {
					return fmt.Errorf("printing the schema: %w", err)
				}
			}
			_, err := cmd.OutOrStdout().Write(text)
			return err
		},
	}
}
