package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func explainFlowCommand(c *client) *cobra.Command {
	r := &adminv1.ExplainFlowRequest{}
	var protocol string
	var files []string
	cmd := &cobra.Command{
		Use:   "flow FROM --to TO",
		Short: "Tell what becomes of a flow between two machines, and why",
		Long: `Tell what becomes of the first packet of a flow, of its answer, and of the packets after those: by which rule of
either machine, and what a negotiation of the two comes to. No packet is sent.

FROM and TO are machines by short name, DNS name, DN or UUID, or addresses. A machine has the addresses that its node
reported, else those of the directory, unless --from-address or --to-address say otherwise; names are not asked of the
name service.`,
		Example: `  bailiwick explain flow ws1 --to files1 --proto tcp --port 445
  bailiwick explain flow ws1 --to 192.0.2.7 --proto udp --port 53
  bailiwick explain flow ws1 --to files1 --port 445 -f changed.yaml`,
		Args:              args("FROM"),
		ValidArgsFunction: c.complete(0, machineNames),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			r.From = args[0]
			if r.GetTo() == "" {
				return usagef("to which machine? name it with --to")
			}
			number, err := protocolNumber(protocol)
			if err != nil {
				return err
			}
			if r.Protocol = number; hasPorts(number) && r.GetDestinationPort() == 0 {
				return usagef("to which port? name it with --port")
			}
			if number == 1 && !cmd.Flags().Changed("icmp-type") {
				r.IcmpType = 8
			}
			if len(files) > 0 {
				if r.Sources, err = readSources(cmd.InOrStdin(), files); err != nil {
					return err
				}
			}
			answer, err := a.analysis.ExplainFlow(ctx, r)
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), answer, func(w io.Writer) error { return printFlow(w, answer) })
		}),
	}
	f := cmd.Flags()
	f.StringVar(&r.To, "to", "", "the machine or address that the flow goes to")
	f.StringVar(&protocol, "proto", "tcp", "tcp, udp, icmp, sctp or the number of an IP protocol")
	f.Uint32Var(&r.DestinationPort, "port", 0, "destination port")
	f.Uint32Var(&r.SourcePort, "source-port", 0, "source port; without it, one that programs take by chance")
	f.Uint32Var(&r.IcmpType, "icmp-type", 0, "type of ICMP; without it, an echo request")
	f.StringVar(&r.FromAddress, "from-address", "", "address of the machine that begins")
	f.StringVar(&r.ToAddress, "to-address", "", "address of the other machine")
	f.StringArrayVarP(&files, "file", "f", nil, "file of YAML documents as if they were applied, - for standard input; may be given again")
	return cmd
}

func hasPorts(protocol uint32) bool {
	switch protocol {
	case 6, 17, 33, 132, 136:
		return true
	}
	return false
}

func protocolNumber(text string) (uint32, error) {
	if n, ok := map[string]uint32{"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "icmpv6": 58, "sctp": 132, "udp-lite": 136, "dccp": 33}[strings.ToLower(text)]; ok {
		return n, nil
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil || n == 0 {
		return 0, usagef("protocol %q, wanted tcp, udp, icmp, sctp or a number of 1-255", text)
	}
	return uint32(n), nil
}

// printFlow draws the packets as arrows between the two ends.
func printFlow(w io.Writer, r *adminv1.ExplainFlowResponse) error {
	table := rows{}
	for _, e := range []struct {
		head string
		end  *adminv1.FlowEnd
	}{{"From", r.GetFrom()}, {"To", r.GetTo()}} {
		text := e.end.GetName()
		if e.end.GetNode() {
			text += fmt.Sprintf("  %s (%s)  policy %s", e.end.GetAddress(), e.end.GetAddressSource(), e.end.GetPolicy())
		}
		table.add(e.head, text)
		for _, a := range e.end.GetAssumed() {
			table.add("", "assumed: "+a)
		}
	}
	table.add("Result", r.GetResult()+": "+r.GetSentence())
	if err := table.write(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	table = rows{{"", "PACKET", "RESULT", "CODE", "SENT BY", "RECEIVED BY"}}
	arrows := map[string]string{"clear": "------>", "fallback": "- - - >", "ipsec": "======>", "blocked": "---X"}
	for i, s := range r.GetSteps() {
		arrow := arrows[s.GetResult()]
		if s.GetCode() == "no-request" {
			arrow = ""
		} else if i%2 == 1 {
			arrow = mirror(arrow)
		}
		table.add(arrow, s.GetName(), s.GetResult(), s.GetCode(), match(s.GetSender()), match(s.GetReceiver()))
	}
	if err := table.write(w); err != nil {
		return err
	}
	said := ""
	for _, s := range r.GetSteps() {
		if s.GetSentence() != said {
			said = s.GetSentence()
			fmt.Fprintf(w, "%s: %s\n", s.GetName(), said)
		}
	}
	return printNegotiation(w, r.GetNegotiation())
}

func mirror(arrow string) string {
	var out strings.Builder
	for i := len(arrow) - 1; i >= 0; i-- {
		c := arrow[i]
		if c == '>' {
			c = '<'
		}
		out.WriteByte(c)
	}
	return out.String()
}

func match(m *adminv1.FlowMatch) string {
	switch {
	case m.GetExemption() != "":
		return fmt.Sprintf("exemption %s (%s)", m.GetExemption(), m.GetAction())
	case m.GetFilter() == "":
		return fmt.Sprintf("no filter (%s)", m.GetAction())
	}
	return fmt.Sprintf("%s (%s, weight %s)", m.GetFilter(), m.GetAction(), m.GetWeight())
}

func printNegotiation(w io.Writer, n *adminv1.FlowNegotiation) error {
	if n == nil {
		return nil
	}
	rule := n.GetResponderRule()
	if n.GetDefaultResponse() {
		rule = "default response"
	}
	fmt.Fprintln(w)
	table := rows{{"Negotiation", fmt.Sprintf("%s (%s) asks %s (%s)", n.GetInitiator(), n.GetInitiatorRule(), n.GetResponder(), orDash(rule))}}
	switch {
	case n.GetSilent():
		table.add("Outcome", n.GetResponder()+" does not answer IKE")
	case n.GetMismatch() != nil:
		table.add("Outcome", "no: "+n.GetMismatch().GetSentence())
		mismatch(&table, n, n.GetMismatch())
	case n.GetElsewhere() != "":
		table.add("Outcome", "a tunnel to "+n.GetElsewhere()+", whose policy is not looked at")
	default:
		table.add("IKE SA", n.GetIke())
		table.add("Authentication", fmt.Sprintf("%s, answered by %s", n.GetInitiatorAuthentication(), n.GetResponderAuthentication()))
		table.add("Child SA", fmt.Sprintf("%s, %s mode, %s to %s", n.GetEsp(), n.GetMode(),
			strings.Join(n.GetInitiatorSelectors(), ", "), strings.Join(n.GetResponderSelectors(), ", ")))
	}
	if m := n.GetLater(); m != nil {
		table.add("Later", m.GetSentence())
		mismatch(&table, n, m)
	}
	return table.write(w)
}

func mismatch(table *rows, n *adminv1.FlowNegotiation, m *adminv1.Mismatch) {
	table.add("First mismatch", m.GetCode())
	for _, side := range []struct {
		name string
		list []string
	}{{n.GetInitiator(), m.GetInitiator()}, {n.GetResponder(), m.GetResponder()}} {
		for i, text := range append(side.list, "nothing")[:max(len(side.list), 1)] {
			head := ""
			if i == 0 {
				head = "  " + side.name
			}
			table.add(head, text)
		}
	}
}
