// Command bailiwick-node is the daemon of a machine, and the window onto it.
//
// It parses flags and prints; everything that is decided is decided in package node and below.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/bailiwick-net/bailiwick/node"
	"github.com/bailiwick-net/bailiwick/node/control"
	"github.com/bailiwick-net/bailiwick/node/custody"
	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/keyring"
	"github.com/bailiwick-net/bailiwick/node/localapi"
	"github.com/bailiwick-net/bailiwick/node/tpm"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitRefused     = 3 // the controller answered and refused
	exitUnreachable = 4 // nobody answered: the controller, or the local daemon
)

func main() { os.Exit(run(os.Args[1:])) }

// usageError is an error of the command line.
type usageError struct{ error }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if ended := new(custody.EndError); errors.As(err, &ended) {
		return ended.Code // the daemon has said why
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bailiwick-node:", err)
	}
	return exitCode(err)
}

// exitCode tells a script what an error means.
func exitCode(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, control.ErrRefused):
		return exitRefused
	case errors.Is(err, control.ErrUnreachable), errors.Is(err, localapi.ErrNotRunning), errors.Is(err, localapi.ErrEnded):
		return exitUnreachable
	}
	return exitFailed
}

// flags are the options that all commands share.
type flags struct {
	config string
	file   node.Config
	output string
}

// load reads the configuration file and puts the flags over it.
func (f *flags) load(cmd *cobra.Command) (node.Config, error) {
	c, err := node.Load(f.config, cmd.Flags().Changed("config"))
	if err != nil {
		return c, err
	}
	for flag, set := range map[string]func(){
		"state-dir":         func() { c.StateDir = f.file.StateDir },
		"socket":            func() { c.Socket = f.file.Socket },
		"log-level":         func() { c.LogLevel = f.file.LogLevel },
		"log-format":        func() { c.LogFormat = f.file.LogFormat },
		"encapsulation":     func() { c.Encapsulation = f.file.Encapsulation },
		"on-stop":           func() { c.OnStop = f.file.OnStop },
		"policy":            func() { c.Policy = f.file.Policy },
		"policy-name":       func() { c.PolicyName = f.file.PolicyName },
		"local-policy":      func() { c.LocalPolicy = f.file.LocalPolicy },
		"local-policy-name": func() { c.LocalPolicyName = f.file.LocalPolicyName },
		"secrets-dir":       func() { c.SecretsDir = f.file.SecretsDir },
		"datapath":          func() { c.Datapath = f.file.Datapath },
		"hardware-offload":  func() { c.HardwareOffload = f.file.HardwareOffload },
		"queues":            func() { c.Queues = f.file.Queues },
		"device":            func() { c.Device = f.file.Device },
		"audit-file":        func() { c.AuditFile = f.file.AuditFile },
		"identity-key":      func() { c.Identity.Key = f.file.Identity.Key },
		"tpm-device":        func() { c.Identity.Device = f.file.Identity.Device },
		"keylog":            func() { c.KeyLog = f.file.KeyLog },
	} {
		if given := cmd.Flags().Lookup(flag); given != nil && given.Changed {
			set()
		}
	}
	return c, nil
}

func command() *cobra.Command {
	f := &flags{}
	root := &cobra.Command{
		Use:   "bailiwick-node",
		Short: "Enforce the IPsec policy of this machine",
		Long: `bailiwick-node joins this machine to a fleet, enforces the policy that the fleet's
controller assigns to it, and shows what it does.

Exit codes: 0 done, 1 failed, 2 wrong use, 3 refused by the controller,
4 nobody answers (the controller, or the daemon on this machine).`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	persistent := root.PersistentFlags()
	persistent.StringVar(&f.config, "config", node.DefaultConfigFile, "configuration file")
	persistent.StringVar(&f.file.StateDir, "state-dir", node.DefaultStateDir, "directory of key, certificate and last good policy")
	persistent.StringVar(&f.file.Socket, "socket", node.DefaultSocket, "local socket")
	persistent.StringVar(&f.file.Identity.Key, "identity-key", "file", "where the machine's private key is made: file, tpm, or auto, which is the TPM where there is one")
	persistent.StringVar(&f.file.Identity.Device, "tpm-device", tpm.DefaultDevice, "the TPM 2.0: a device, or a unix socket")
	root.AddCommand(runCommand(f), joinCommand(f), leaveCommand(f), statusCommand(f), sasCommand(f), filtersCommand(f), rekeyCommand(f), ruleCommand(f), ikeCommand(f), countersCommand(f))
	return root
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}

// heldFlag tells the process that enforces from the one that holds the rules and starts it.
const heldFlag = "held"

func runCommand(f *flags) *cobra.Command {
	var held bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Enforce the policy until the process is told to stop",
		Long: `run enforces the policy of this machine until it is told to stop (SIGTERM).

It is two processes: one enforces, the other one holds the rules of nftables and starts
the first one again when it dies. While either lives no other program can remove the rules.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.load(cmd)
			if err != nil {
				return usageError{err}
			}
			if held {
				return node.Run(cmd.Context(), c, version(), cmd.ErrOrStderr(), custody.Inherit())
			}
			return node.Hold(cmd.Context(), c, append(slices.Clone(os.Args[1:]), "--"+heldFlag), cmd.ErrOrStderr())
		},
	}
	local := cmd.Flags()
	local.BoolVar(&held, heldFlag, false, "be the daemon of a holder")
	cobra.CheckErr(local.MarkHidden(heldFlag))
	local.StringVar(&f.file.LogLevel, "log-level", "info", "trace, debug, info, warn or error")
	local.StringVar(&f.file.LogFormat, "log-format", "text", "text or json")
	local.StringVar(&f.file.Encapsulation, "encapsulation", "always", "ESP in UDP: always, or only where a nat asks for it")
	local.StringVar(&f.file.OnStop, "on-stop", "block", "what must be protected when the daemon stops: block or release")
	local.StringVar(&f.file.Policy, "policy", "", "policy documents of a machine without controller")
	local.StringVar(&f.file.PolicyName, "policy-name", "", "the policy of these documents to put into force")
	local.StringVar(&f.file.LocalPolicy, "local-policy", "", "policy documents for while the directory assigns no policy to this machine")
	local.StringVar(&f.file.LocalPolicyName, "local-policy-name", "", "the policy of these documents (default: the only one)")
	local.StringVar(&f.file.SecretsDir, "secrets-dir", "", "directory of preshared keys (default: secrets in the state directory)")
	local.StringVar(&f.file.Datapath, "datapath", "auto", "who moves ESP: auto, which is the kernel where it has ESP, userspace, or xfrm (the kernel or nobody)")
	local.IntVar(&f.file.Queues, "queues", 0, "packet threads for ESP in user space, 1 to 64; 0 for one for every two processors, at most eight")
	local.BoolVar(&f.file.HardwareOffload, "hardware-offload", false, "ask for network devices that seal and open ESP, with the kernel's ESP alone")
	local.StringVar(&f.file.Device, "device", "", "name of the TUN device")
	local.StringVar(&f.file.AuditFile, "audit-file", "", "append the audit events to this file, one JSON object a line")
	local.StringVar(&f.file.KeyLog, "keylog", "", "DEBUGGING ONLY: write all keys to this file, which breaks the secrecy of all traffic")
	return cmd
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%q is not expected here", args[0])}
	}
	return nil
}

func leaveCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "leave",
		Short: "Forget key and certificate of this machine, and the preshared keys of its fleet",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.load(cmd)
			if err != nil {
				return usageError{err}
			}
			if c.StateDir == "" {
				c.StateDir = node.DefaultStateDir
			}
			store, err := identity.Open(c.StateDir)
			if err != nil {
				return err
			}
			return errors.Join(store.Leave(), keyring.Remove(store.Dir()))
		},
	}
}
