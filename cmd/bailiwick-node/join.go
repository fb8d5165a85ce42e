package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/bailiwick-net/bailiwick/node"
)

// joinOptions are the flags of join.
type joinOptions struct {
	tokenFile, token, controller, name, pin string
	request                                 bool
	wait                                    time.Duration
}

func (o joinOptions) check() error {
	switch {
	case o.controller == "":
		return usageError{errors.New("join needs --controller")}
	case o.request && (o.tokenFile != "" || o.token != ""):
		return usageError{errors.New("join --request is for a machine without a token; leave --token-file and --token away")}
	case o.request && o.pin == "":
		return usageError{errors.New(`join --request needs --pin, by which the controller is known; "bailiwick enrollment pin" prints it`)}
	case !o.request && (o.tokenFile == "") == (o.token == ""):
		return usageError{errors.New("join needs one of --token-file and --token, or --request")}
	case !o.request && (o.pin != "" || o.wait != 0):
		return usageError{errors.New("join: --pin and --wait go with --request; a token holds the pin itself")}
	case o.wait < 0:
		return usageError{fmt.Errorf("join: --wait %v is negative", o.wait)}
	}
	return nil
}

func joinCommand(f *flags) *cobra.Command {
	var o joinOptions
	cmd := &cobra.Command{
		Use:   "join --controller HOST:PORT (--token-file FILE | --request --pin PIN)",
		Short: "Get a machine certificate: with a join token, or by an administrator's approval",
		Long: `join makes a key, which never leaves this machine, and exchanges a join token for a
certificate. Make the token with "bailiwick token create MACHINE". A token works once.

With --request it needs no token: it asks in the name of this machine, prints the key by
which administrators know the request, and waits until one approves or denies it with
"bailiwick enrollment approve KEY". Stopped and started again, it goes on waiting for the
same request. The pin, which "bailiwick enrollment pin" prints, is the same for all
machines of the fleet and no secret: it tells the right controller from any other.`,
		Example: `  bailiwick token create sql1 > token
  bailiwick-node join --controller controller.bank.example:7443 --token-file token

  bailiwick-node join --controller controller.bank.example:7443 --request --pin 5f0c...e1 --name sql1.bank.example`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.load(cmd)
			if err != nil {
				return usageError{err}
			}
			if err := o.check(); err != nil {
				return err
			}
			if o.request {
				return o.ask(cmd.Context(), c, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			if o.tokenFile != "" {
				content, err := readToken(o.tokenFile, cmd.InOrStdin())
				if err != nil {
					return err
				}
				o.token = content
			}
			joined, err := node.Join(cmd.Context(), c, o.controller, o.token, o.name)
			if err != nil {
				return err
			}
			return printJoined(cmd.OutOrStdout(), joined)
		},
	}
	local := cmd.Flags()
	local.StringVar(&o.controller, "controller", "", "address of the controller, host:port")
	local.StringVar(&o.tokenFile, "token-file", "", "file that holds the join token; - is standard input")
	local.StringVar(&o.token, "token", "", "the join token itself (other users of this machine can see it in the process list)")
	local.StringVar(&o.name, "name", "", "DNS name of this machine (default: what the controller says of the token; with --request the host's name)")
	local.BoolVar(&o.request, "request", false, "ask without a token, and wait for an administrator's approval")
	local.StringVar(&o.pin, "pin", "", "key id of the fleet's root, in hexadecimal, with --request")
	local.DurationVar(&o.wait, "wait", 0, "give up waiting after this time, with --request (default: never)")
	return cmd
}

// ask joins without a token.
func (o joinOptions) ask(ctx context.Context, c node.Config, out, told io.Writer) error {
	if o.wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.wait)
		defer cancel()
	}
	joined, err := node.JoinByRequest(ctx, c, node.JoinRequest{Controller: o.controller, Pin: o.pin, Name: o.name, Waiting: func(key, problem string) {
		if problem != "" {
			fmt.Fprintln(told, "still asking:", problem)
			return
		}
		fmt.Fprintf(told, "asking for a certificate; an administrator approves it, after comparing the key, with\n  bailiwick enrollment approve %s\nkey: %s\n", key[:16], key)
	}})
	if err != nil {
		return err
	}
	return printJoined(out, joined)
}
