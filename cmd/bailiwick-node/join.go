package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/bailiwick-net/bailiwick/node"
	"github.com/bailiwick-net/bailiwick/node/kerberos"
)

// joinOptions are the flags of join.
type joinOptions struct {
	tokenFile, token, controller, name, pin string
	request, kerberos                       bool
	account                                 kerberos.Settings
	wait                                    time.Duration
}

func (o joinOptions) check() error {
	switch {
	case o.controller == "":
		return usageError{errors.New("join needs --controller")}
	case o.request && o.kerberos:
		return usageError{errors.New("join: --request and --kerberos are two ways to join; choose one")}
	case !o.kerberos && o.account != kerberos.Settings{}:
		return usageError{errors.New("join: --keytab, --principal and --krb5-conf go with --kerberos")}
	case o.kerberos && (o.tokenFile != "" || o.token != "" || o.wait != 0):
		return usageError{errors.New("join --kerberos needs no token and waits for nobody; leave --token-file, --token and --wait away")}
	case o.kerberos && o.pin == "":
		return usageError{errors.New(`join --kerberos needs --pin, by which the controller is known; "bailiwick enrollment pin" prints it`)}
	case o.kerberos:
		return nil
	case o.request && (o.tokenFile != "" || o.token != ""):
		return usageError{errors.New("join --request is for a machine without a token; leave --token-file and --token away")}
	case o.request && o.pin == "":
		return usageError{errors.New(`join --request needs --pin, by which the controller is known; "bailiwick enrollment pin" prints it`)}
	case !o.request && (o.tokenFile == "") == (o.token == ""):
		return usageError{errors.New("join needs one of --token-file and --token, or --request, or --kerberos")}
	case !o.request && (o.pin != "" || o.wait != 0):
		return usageError{errors.New("join: --pin goes with --request and --kerberos, --wait with --request; a token holds the pin itself")}
	case o.wait < 0:
		return usageError{fmt.Errorf("join: --wait %v is negative", o.wait)}
	}
	return nil
}

func joinCommand(f *flags) *cobra.Command {
	var o joinOptions
	cmd := &cobra.Command{
		Use:   "join --controller HOST:PORT (--token-file FILE | --request --pin PIN | --kerberos --pin PIN)",
		Short: "Get a machine certificate: with a join token, an administrator's approval, or the machine's Kerberos account",
		Long: `join makes a key, which never leaves this machine, and exchanges a join token for a
certificate. Make the token with "bailiwick token create MACHINE". A token works once.

With --request it needs no token: it asks in the name of this machine, prints the key by
which administrators know the request, and waits until one approves or denies it with
"bailiwick enrollment approve KEY". Stopped and started again, it goes on waiting for the
same request. The pin, which "bailiwick enrollment pin" prints, is the same for all
machines of the fleet and no secret: it tells the right controller from any other.

With --kerberos it proves the machine's account in a Kerberos realm or Active Directory
domain with the machine's keytab, and asks nobody. The controller has to accept the realm.`,
		Example: `  bailiwick token create sql1 > token
  bailiwick-node join --controller controller.bank.example:7443 --token-file token

  bailiwick-node join --controller controller.bank.example:7443 --request --pin 5f0c...e1 --name sql1.bank.example

  bailiwick-node join --controller controller.bank.example:7443 --kerberos --pin 5f0c...e1`,
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
			if o.kerberos {
				joined, err := node.JoinByKerberos(cmd.Context(), c, node.JoinAccount{Controller: o.controller, Pin: o.pin, Name: o.name, Account: o.account})
				if err != nil {
					return err
				}
				return printJoined(cmd.OutOrStdout(), joined)
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
	local.StringVar(&o.name, "name", "", "DNS name of this machine (default: what the controller says of the token; with --request the host's name; with --kerberos the one in its keytab)")
	local.BoolVar(&o.request, "request", false, "ask without a token, and wait for an administrator's approval")
	local.StringVar(&o.pin, "pin", "", "key id of the fleet's root, in hexadecimal, with --request and --kerberos")
	local.BoolVar(&o.kerberos, "kerberos", false, "prove the machine's Kerberos account")
	local.StringVar(&o.account.Keytab, "keytab", "", "the machine's keytab (default "+kerberos.DefaultKeytab+")")
	local.StringVar(&o.account.Config, "krb5-conf", "", "the settings of Kerberos (default "+kerberos.DefaultConfig+")")
	local.StringVar(&o.account.Principal, "principal", "", "the machine's account, NAME@REALM (default: the only NAME$ of its keytab, or the only host/NAME)")
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
