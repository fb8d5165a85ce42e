package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/foreign"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// foreignExport is a command that writes a policy for a program which is not our node.
type foreignExport struct {
	files         []string
	machine       string
	addresses     []string
	dns, dhcp     []string
	gateways      []string
	reverse       bool
	acceptWeaker  bool
	needsMachine  bool
	write         func(spd.Policy, foreign.Machine) (foreign.Config, error)
	name, program string
}

// foreignExports are the subcommands of export.
func foreignExports(c *client) []*cobra.Command {
	return []*cobra.Command{
		foreignCommand(c, &foreignExport{name: "netsh", program: "commands of PowerShell for a Windows peer (netsh itself has no IKEv2)", write: func(p spd.Policy, _ foreign.Machine) (foreign.Config, error) {
			return foreign.Windows(p)
		}}),
		foreignCommand(c, &foreignExport{name: "strongswan", program: "swanctl.conf of strongSwan", needsMachine: true, write: foreign.StrongSwan}),
		foreignCommand(c, &foreignExport{name: "libreswan", program: "ipsec.conf of libreswan", needsMachine: true, write: foreign.Libreswan}),
	}
}

func foreignCommand(c *client, e *foreignExport) *cobra.Command {
	cmd := &cobra.Command{
		Use:   e.name + " POLICY",
		Short: "Print a policy as " + e.program,
		Long: `Print a policy as ` + e.program + `, for a machine that does not run our node. The documents
are those of the controller, or of files. What the other program cannot say stands in the text as a comment; what it
would protect less than the policy asks for is refused unless --accept-weaker is given. Preshared keys are not in it:
comments tell where they go.`,
		Args: args("POLICY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			machine, err := e.facts()
			if err != nil {
				return err
			}
			docs, err := e.documents(c, cmd)
			if err != nil {
				return err
			}
			return e.print(c, cmd, docs, args[0], machine)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&e.files, "file", "f", nil, "file of documents, - for standard input, instead of asking the controller; may be given again")
	f.BoolVar(&e.reverse, "reverse", false, "for the other end of the policy's tunnels")
	f.BoolVar(&e.acceptWeaker, "accept-weaker", false, "print it although the other program protects less than the policy asks for; comments tell what")
	if e.needsMachine {
		f.StringVar(&e.machine, "machine", "", "DNS name of the machine, which is its identity unless a rule names another")
		f.StringArrayVar(&e.addresses, "address", nil, "address of the machine, for filters about me; may be given again")
		f.StringArrayVar(&e.dns, "dns-server", nil, "address that dns-servers stands for; may be given again")
		f.StringArrayVar(&e.dhcp, "dhcp-server", nil, "address that dhcp-server stands for; may be given again")
		f.StringArrayVar(&e.gateways, "gateway", nil, "address that default-gateway stands for; may be given again")
	}
	return cmd
}

// facts are those of the command line.
func (e *foreignExport) facts() (foreign.Machine, error) {
	m := foreign.Machine{Name: e.machine}
	if !e.needsMachine {
		return m, nil
	}
	if e.machine == "" || len(e.addresses) == 0 {
		return m, usagef("which machine? name it with --machine, and each of its addresses with --address")
	}
	for _, list := range []struct {
		flag string
		text []string
		to   *[]netip.Addr
	}{
		{"--address", e.addresses, &m.Facts.Addresses}, {"--dns-server", e.dns, &m.Facts.DNSServers},
		{"--dhcp-server", e.dhcp, &m.Facts.DHCPServers}, {"--gateway", e.gateways, &m.Facts.DefaultGateways},
	} {
		for _, s := range list.text {
			a, err := netip.ParseAddr(s)
			if err != nil {
				return m, usagef("%s %q is not an address", list.flag, s)
			}
			*list.to = append(*list.to, a)
		}
	}
	return m, nil
}

// documents come from the files, with the predefined ones beneath, or from the controller.
func (e *foreignExport) documents(c *client, cmd *cobra.Command) (policies.Documents, error) {
	var docs policies.Documents
	if len(e.files) == 0 {
		err := c.with(func(ctx context.Context, a *api, _ *cobra.Command, _ []string) error {
			r, err := a.documents.ListDocuments(ctx, &adminv1.ListDocumentsRequest{})
			if err != nil {
				return err
			}
			for _, d := range r.GetDocuments() {
				more, err := policies.Decode(d.GetKind()+" "+d.GetName(), []byte(d.GetContent()))
				if err != nil {
					return err
				}
				docs = docs.Merge(more)
			}
			return nil
		})(cmd, nil)
		return docs, err
	}
	sources, err := readSources(cmd.InOrStdin(), e.files)
	if err != nil {
		return docs, err
	}
	for _, s := range sources {
		more, err := policies.Decode(s.GetName(), s.GetContent())
		if err != nil {
			return docs, err
		}
		docs = docs.Merge(more)
	}
	for _, d := range predefined.Documents().All() {
		if !slices.ContainsFunc(docs.All(), func(o policies.Document) bool { return o.Kind() == d.Kind() && o.Key() == d.Key() }) {
			docs.Add(d)
		}
	}
	return docs, policies.Check(policies.Validate(docs))
}

// exported is the answer for programs.
type exported struct {
	Text    string           `json:"text"`
	Remarks []exportedRemark `json:"remarks"`
}

type exportedRemark struct {
	Rule    string `json:"rule"`
	Weaker  bool   `json:"weaker"`
	Message string `json:"message"`
}

func (e *foreignExport) print(c *client, cmd *cobra.Command, docs policies.Documents, name string, machine foreign.Machine) error {
	if _, ok := docs.Policy(name); !ok {
		return status.Errorf(codes.NotFound, "there is no policy %q", name)
	}
	p, err := docs.Effective(name)
	if err != nil {
		return err
	}
	if e.reverse {
		if p, err = foreign.Reverse(p); err != nil {
			return err
		}
	}
	config, err := e.write(p, machine)
	if err != nil {
		return err
	}
	weaker := config.Weaker()
	for _, r := range weaker {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s\n", r)
	}
	if len(weaker) > 0 && !e.acceptWeaker {
		return status.Errorf(codes.FailedPrecondition, "%s cannot say all that policy %q asks for, see above; --accept-weaker prints what it can", e.name, name)
	}
	if c.output != "table" {
		answer := exported{Text: string(config.Text), Remarks: []exportedRemark{}}
		for _, r := range config.Remarks {
			answer.Remarks = append(answer.Remarks, exportedRemark(r))
		}
		return c.printValue(cmd.OutOrStdout(), answer)
	}
	_, err = cmd.OutOrStdout().Write(config.Text)
	return err
}
