package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/bailiwick-net/bailiwick/node"
	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/keyring"
	"github.com/bailiwick-net/bailiwick/node/localapi"
	"github.com/bailiwick-net/bailiwick/node/statistics"
)

// maxToken bounds a token file in octets.
const maxToken = 4096

func readToken(path string, stdin io.Reader) (string, error) {
	in := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("read the join token: %w", err)
		}
		defer file.Close()
		in = file
	}
	content, err := io.ReadAll(io.LimitReader(in, maxToken))
	if err != nil {
		return "", fmt.Errorf("read the join token: %w", err)
	}
	return strings.TrimSpace(string(content)), nil
}

func printJoined(w io.Writer, c identity.Credentials) error {
	leaf := c.Leaf()
	var names []string
	names = append(names, leaf.DNSNames...)
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	_, err := fmt.Fprintf(w, "joined as %s\n  subject   %s\n  names     %s\n  valid     %s to %s\n  issuer    %s\n  serial    %x\n  key       %s\n",
		c.Identity, leaf.Subject, strings.Join(names, ", "), stamp(leaf.NotBefore), stamp(leaf.NotAfter), leaf.Issuer, leaf.SerialNumber, identity.Where(c.Key))
	return err
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// show makes a command that asks the daemon and prints the answer.
func show[T any](f *flags, use, short string, ask func(*cobra.Command, *localapi.Client) (T, error), table func(io.Writer, T)) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.load(cmd)
			if err != nil {
				return usageError{err}
			}
			if c.Socket == "" {
				c.Socket = node.DefaultSocket
			}
			value, err := ask(cmd, localapi.NewClient(c.Socket))
			if err != nil {
				return err
			}
			return emit(cmd.OutOrStdout(), f.output, value, table)
		},
	}
	cmd.Flags().StringVarP(&f.output, "output", "o", "table", "table, json or yaml")
	return cmd
}

func emit[T any](w io.Writer, format string, value T, table func(io.Writer, T)) error {
	switch format {
	case "table":
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		table(tw, value)
		return tw.Flush()
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(value)
	case "yaml":
		encoded, err := json.Marshal(value)
		if err != nil {
			return err
		}
		converted, err := yaml.JSONToYAML(encoded)
		if err != nil {
			return err
		}
		_, err = w.Write(converted)
		return err
	}
	return usageError{fmt.Errorf("--output is %q, want table, json or yaml", format)}
}

func statusCommand(f *flags) *cobra.Command {
	return show(f, "status", "Show policy, certificate and associations of this machine",
		func(cmd *cobra.Command, c *localapi.Client) (localapi.Status, error) { return c.Status(cmd.Context()) }, printStatus)
}

func printStatus(w io.Writer, s localapi.Status) {
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	if s.KeyLog != "" {
		row("WARNING", "ALL KEYS ARE WRITTEN TO "+s.KeyLog+": whoever reads it reads all protected traffic of this machine")
	}
	row("machine", s.Identity)
	if !s.NotAfter.IsZero() {
		row("certificate", "valid until "+stamp(s.NotAfter))
	}
	row("key", s.Key)
	row("key problem", s.KeyProblem)
	policy := s.Policy
	if policy == "" {
		policy = "none yet"
	}
	if s.Probation {
		policy += " (on probation until the controller confirms)"
	}
	row("policy", policy)
	row("from", s.Container)
	if s.Revision != 0 {
		row("revision", fmt.Sprint(s.Revision))
	}
	row("bundle", s.Digest)
	session := "no session (" + strings.Join(s.Controllers, ", ") + ")"
	if s.Controller != "" {
		session = "session with " + s.Controller
	}
	row("controller", session)
	row("addresses", strings.Join(s.Addresses, ", "))
	for _, name := range s.Names {
		row("name", name)
	}
	row("datapath", s.Backend)
	row("associations", fmt.Sprintf("%d IKE, %d ESP, %d soft", s.IKESAs, s.ChildSAs, s.SoftSAs))
	if l := s.Local; l != nil && l.Suppressed != "" {
		row("local policy", l.Name+" does not count: "+l.Suppressed)
	}
	for _, r := range s.Rules {
		row("own rules", fmt.Sprintf("%s (%s, %d)", r.Name, r.Kind, len(r.Rules)))
	}
	for _, k := range s.Keys {
		row("preshared key", k.Name+keySource(k))
	}
	row("problem", s.Problem)
	for _, note := range s.Notes {
		row("note", note)
	}
	printFailures(row, s.Failures)
	var names []string
	for name, value := range s.Counters {
		if value != 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		row(name, fmt.Sprint(s.Counters[name]))
	}
}

// mostFailures bounds the failures that a table shows; the JSON form has them all.
const mostFailures = 10

// printFailures shows the latest failures, the latest last.
func printFailures(row func(name, value string), failures []localapi.Failure) {
	if n := len(failures); n > mostFailures {
		row("failures", fmt.Sprintf("%d, the latest of them:", n))
		failures = failures[n-mostFailures:]
	}
	for _, failure := range failures {
		peer := failure.Remote
		if failure.Peer != "" {
			peer += " " + failure.Peer
		}
		mode := "IKE SA"
		if failure.Child {
			mode = "Child SA"
		}
		row("failure", fmt.Sprintf("%s %s %s: %s (fault: %s) %s", stamp(failure.Time), peer, mode, failure.Reason, failure.Fault, failure.Detail))
	}
	if len(failures) > 0 {
		row("what to do", `see "bailiwick-node ike trace PEER --history", and node/ike/REASONS.md for the reasons`)
	}
}

func countersCommand(f *flags) *cobra.Command {
	cmd := show(f, "counters", "Show the statistics of IKE and IPsec, by the names of Windows",
		func(cmd *cobra.Command, c *localapi.Client) ([]statistics.Figure, error) {
			return c.Counters(cmd.Context())
		},
		func(w io.Writer, figures []statistics.Figure) {
			fmt.Fprintln(w, "GROUP\tNAME\tVALUE\tMEANING")
			for _, f := range figures {
				fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", f.Group, f.Name, f.Value, f.Meaning)
			}
		})
	cmd.Long = `counters prints the statistics of IKE and IPsec. The names are those of Windows' IP Security
Monitor: a main mode is an IKE SA, a quick mode a Child SA. Prometheus finds the same at
http://node/v1/metrics on the local socket:

  curl --unix-socket /run/bailiwick/node.sock http://node/v1/metrics`
	return cmd
}

func sasCommand(f *flags) *cobra.Command {
	return show(f, "sas", "Show the security associations of this machine",
		func(cmd *cobra.Command, c *localapi.Client) (localapi.Associations, error) {
			return c.Associations(cmd.Context())
		}, printAssociations)
}

func printAssociations(w io.Writer, a localapi.Associations) {
	fmt.Fprintln(w, "IKE\tPEER\tREMOTE\tSTATE\tSUITE\tREKEY")
	for _, s := range a.IKE {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", s.SPI, s.Peer, s.Remote, s.State, s.Suite, stamp(s.Rekey))
	}
	fmt.Fprintln(w, "\nESP IN\tOUT\tPEER\tRULE\tMODE\tSUITE\tLOCAL\tREMOTE\tPATH MTU\tIN\tOUT\t")
	for _, c := range a.Children {
		rule := c.Rule
		if c.DefaultResponse {
			rule = "default response"
		}
		current := ""
		if !c.Current {
			current = "being replaced"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.In, c.Out, c.Peer, rule, c.Mode, c.Suite,
			strings.Join(c.LocalTS, ","), strings.Join(c.RemoteTS, ","), pathMTU(c), octets(c.InOctets), octets(c.OutOctets), current)
	}
	if len(a.Soft) > 0 {
		fmt.Fprintln(w, "\nSOFT\tRULE\tUNTIL")
		for _, s := range a.Soft {
			fmt.Fprintf(w, "%s\t%s\t%s\n", s.Remote, s.Rule, stamp(s.Expires))
		}
	}
}

func pathMTU(c localapi.Child) string {
	if c.PathMTU == 0 {
		return c.PathMTUSource
	}
	return fmt.Sprintf("%d %s", c.PathMTU, c.PathMTUSource)
}

func octets(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, prefix := float64(n)/unit, 0
	for value >= unit && prefix < 4 {
		value, prefix = value/unit, prefix+1
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[prefix])
}

func filtersCommand(f *flags) *cobra.Command {
	return show(f, "filters", "Show the filters in force, in the order in which they are tried",
		func(cmd *cobra.Command, c *localapi.Client) ([]localapi.Filter, error) {
			return c.Filters(cmd.Context())
		},
		func(w io.Writer, filters []localapi.Filter) {
			fmt.Fprintln(w, "WEIGHT\tPACKETS\tFILTER\tRULE")
			for _, f := range filters {
				origin := f.Rule
				if f.Exempt != "" {
					origin = "exemption: " + f.Exempt
				}
				fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", f.Weight, f.Packets, f.Filter, origin)
			}
		})
}

func rekeyCommand(f *flags) *cobra.Command {
	var request localapi.Rekey
	cmd := &cobra.Command{
		Use: "rekey", Short: "Rekey an association now", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.load(cmd)
			if err != nil {
				return usageError{err}
			}
			if (request.IKE == "") == (request.Child == "") {
				return usageError{errors.New("rekey needs one of --ike and --child, an SPI as sas shows it")}
			}
			if c.Socket == "" {
				c.Socket = node.DefaultSocket
			}
			return localapi.NewClient(c.Socket).Rekey(cmd.Context(), request)
		},
	}
	cmd.Flags().StringVar(&request.IKE, "ike", "", "SPI of an IKE SA")
	cmd.Flags().StringVar(&request.Child, "child", "", "inbound SPI of an ESP SA")
	return cmd
}

// keySource tells where a preshared key is from.
func keySource(k keyring.State) string {
	text := " from the controller"
	if k.Source == "file" {
		text = " from a file of this machine"
	}
	if k.Hides {
		text += ", in place of the one that the controller delivered"
	}
	if !k.Until.IsZero() {
		text += ", the former value is accepted until " + stamp(k.Until)
	}
	return text
}
