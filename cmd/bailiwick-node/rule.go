package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/bailiwick-net/bailiwick/node"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

func ruleCommand(f *flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rule",
		Short: "Add, list and delete rules of this machine's own, beside the policy of the fleet",
		Long: `rule manages rules that stand beside the policy, whichever that is: of all filters that
describe a packet the most specific one decides, as among the rules of one policy.

What is exempt from every policy (IKE, ESP, loopback, neighbour discovery, DHCP, the
controller, break-glass ports) is exempt from these rules as well. The fleet's
administrator sees that they are there (bailiwick get nodes).`,
		Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("rule: there is no %q", args[0])}
			}
			return usageError{errors.New("rule: add, list or delete?")}
		},
	}
	list := show(f, "list", "List the rules of this machine's own",
		func(cmd *cobra.Command, c *localapi.Client) ([]localapi.Rules, error) {
			s, err := c.Status(cmd.Context())
			if s.Rules == nil {
				s.Rules = []localapi.Rules{}
			}
			return s.Rules, err
		}, printRules)
	cmd.AddCommand(ruleAddCommand(f), list, ruleDeleteCommand(f))
	return cmd
}

func printRules(w io.Writer, sets []localapi.Rules) {
	fmt.Fprintln(w, "NAME\tKIND\tRULE\tACTION\tFILTERS\tFROM")
	for _, s := range sets {
		for _, r := range s.Rules {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", s.Name, s.Kind, r.ID, r.Action, r.Filters, s.File)
		}
	}
}

// client finds the daemon.
func (f *flags) client(cmd *cobra.Command) (*localapi.Client, error) {
	c, err := f.load(cmd)
	if err != nil {
		return nil, usageError{err}
	}
	if c.Socket == "" {
		c.Socket = node.DefaultSocket
	}
	return localapi.NewClient(c.Socket), nil
}

// maxRuleFile is more than a file of policy documents may have, so that the daemon says so.
const maxRuleFile = 5 << 20

func ruleAddCommand(f *flags) *cobra.Command {
	var persistent bool
	cmd := &cobra.Command{
		Use:   "add FILE",
		Short: "Put the rules of a file into force",
		Long: `add reads policy documents with one policy and puts its rules into force beside those
of the fleet's policy. The policy's name is that of the rules. Predefined filter lists
and filter actions need not be in the file. "-" is standard input.

The rules end with the daemon, or with "rule delete"; with --persistent they outlive it,
and are in force at the next start before the controller was heard.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("rule add wants one FILE")}
			}
			client, err := f.client(cmd)
			if err != nil {
				return err
			}
			in := cmd.InOrStdin()
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("read the rules: %w", err)
				}
				defer file.Close()
				in = file
			}
			text, err := io.ReadAll(io.LimitReader(in, maxRuleFile))
			if err != nil {
				return fmt.Errorf("read the rules: %w", err)
			}
			added, err := client.AddRules(cmd.Context(), localapi.AddRules{File: args[0], Text: string(text), Persistent: persistent})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "rules %s are in force (%s, %d)\n", added.Name, added.Kind, len(added.Rules))
			return err
		},
	}
	cmd.Flags().BoolVar(&persistent, "persistent", false, "keep them when the daemon ends")
	return cmd
}

func ruleDeleteCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Take rules of this machine's own out of force",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("rule delete wants one NAME, as rule list shows it")}
			}
			client, err := f.client(cmd)
			if err != nil {
				return err
			}
			if err := client.DeleteRules(cmd.Context(), localapi.DeleteRules{Name: args[0]}); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "rules %s are not in force any more\n", args[0])
			return err
		},
	}
}
