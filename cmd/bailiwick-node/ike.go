package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/bailiwick-net/bailiwick/node"
	"github.com/bailiwick-net/bailiwick/node/ike/trace"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// lookupTime bounds the question for the addresses of a peer's name. Without an answer the name alone must do.
const lookupTime = 2 * time.Second

func ikeCommand(f *flags) *cobra.Command {
	cmd := &cobra.Command{Use: "ike", Short: "Look at the negotiations with peers", Args: noArgs}
	cmd.AddCommand(traceCommand(f), wiresharkCommand())
	return cmd
}

func traceCommand(f *flags) *cobra.Command {
	var output string
	var history, follow bool
	cmd := &cobra.Command{
		Use:   "trace [PEER]",
		Short: "Show the messages and decisions of IKE, as they happen",
		Long: `trace prints one line for each message, decision and failure of IKE, until Ctrl-C. PEER is
the name by which the peer authenticates (or its first label), its address, or the SPI of
an IKE or ESP SA as "bailiwick-node sas" shows it; without PEER all peers are shown.

--history prints what the node remembers and ends; with --follow it goes on. The latest
128 lines and 16 failures of a peer are remembered, liveness checks are left out.

A line has these fields, separated by one space, "-" for what is not known:

  time  SPI-of-the-IKE-SA  address-of-the-peer  name-of-the-peer  kind  text

kind is sent, received, repeated (sent once more), dropped (with the reason first),
decided, state, failed (with reason and fault first), or lost (this reader was too slow).
The reasons are explained in node/ike/REASONS.md. No line holds a secret.

Exit codes: 0 ended by Ctrl-C, or at the end of the history; 1 nothing is remembered, or
the daemon refused; 2 wrong use; 4 the daemon does not run, or ended meanwhile.`,
		Example: `  bailiwick-node ike trace files1.bank.example
  bailiwick-node ike trace 10.1.0.5 --history
  bailiwick-node ike trace 5186b90b --history --follow --output json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("%q is not expected here: trace takes one peer", args[1])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return usageError{fmt.Errorf("--output is %q, want text or json", output)}
			}
			c, err := f.load(cmd)
			if err != nil {
				return usageError{err}
			}
			if c.Socket == "" {
				c.Socket = node.DefaultSocket
			}
			request := localapi.TraceRequest{History: history, Follow: follow || !history}
			if len(args) == 1 {
				request.Peer = args[0]
				request.Addresses = addressesOf(cmd.Context(), args[0])
			}
			encoder := json.NewEncoder(cmd.OutOrStdout())
			return localapi.NewClient(c.Socket).Trace(cmd.Context(), request, func(l trace.Line) error {
				if output == "json" {
					return encoder.Encode(l)
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), l)
				return err
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json (one object a line)")
	cmd.Flags().BoolVar(&history, "history", false, "print what is remembered")
	cmd.Flags().BoolVar(&follow, "follow", false, "with --history: go on with what happens now")
	return cmd
}

// addressesOf asks for the addresses of a name, so that a peer is found that has never authenticated.
func addressesOf(ctx context.Context, name string) []netip.Addr {
	if _, err := netip.ParseAddr(name); err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil { // the node may know the name all the same
		return nil
	}
	const most = 16
	return found[:min(len(found), most)]
}
