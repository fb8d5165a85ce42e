// Command bailiwick-controller runs the controller: it reads the directory, works out each machine's policy, issues
// certificates, and serves nodes and administrators. Flags win over the configuration file. It ends at SIGTERM or
// SIGINT, with 0.
//
// Exit codes: 0 stopped as asked, 1 failure, 2 wrong flags or configuration, 3 there is no CA yet.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/bailiwick-net/bailiwick/controller"
)

// The exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
	exitNoCA    = 3
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bailiwick-controller: "+err.Error())
		os.Exit(exitCode(err))
	}
}

// usageError is an error of the command line itself.
type usageError struct{ error }

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("there is no command %q", args[0])}
	}
	return nil
}

func exitCode(err error) int {
	var usage usageError
	switch {
	case errors.As(err, &usage), errors.Is(err, controller.ErrConfig):
		return exitUsage
	case errors.Is(err, controller.ErrNoCA):
		return exitNoCA
	}
	return exitFailure
}

// options are the flags, laid over the configuration file.
type options struct {
	configFile string
	logLevel   string
	logJSON    bool
	directory  string
	flags      controller.Config
}

func command() *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:   "bailiwick-controller",
		Short: "Run the Bailiwick controller",
		Example: `  bailiwick-controller --config /etc/bailiwick/controller.yaml
  bailiwick-controller --init --directory ldif:fleet.ldif --ca-key-file ca.secret --state-dir /var/lib/bailiwick/controller --name 192.0.2.1`,
		Args:          noArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return o.run(cmd, false) },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := root.PersistentFlags()
	f.StringVar(&o.configFile, "config", "", "configuration file (YAML)")
	f.StringVar(&o.directory, "directory", "", "the directory, as ldif:PATH; a directory server is described in the configuration file")
	f.StringVar(&o.flags.StateDir, "state-dir", "", "folder of the state and the CA (default "+controller.DefaultStateDir+")")
	f.StringVar(&o.flags.TrustDomain, "trust-domain", "", "the fleet's name in certificates (default: spelled by the directory's base)")
	f.StringSliceVar(&o.flags.Listen, "listen", nil, "address for nodes, host:port (default "+controller.DefaultListen+")")
	f.StringSliceVar(&o.flags.Names, "name", nil, "DNS name or address under which nodes reach the controller (default: those of this host)")
	f.StringVar(&o.flags.Admin.Socket, "admin-socket", "", "unix socket for administrators (default "+controller.DefaultAdminSocket+")")
	f.StringVar(&o.flags.Admin.Listen, "admin-listen", "", "address for administrators with a certificate, host:port (default none)")
	f.StringSliceVar(&o.flags.Store.Endpoints, "etcd-endpoints", nil, "URLs of an external etcd (default: an embedded one)")
	f.StringVar(&o.flags.Store.CAFile, "etcd-ca-file", "", "certificates that vouch for the external etcd (PEM)")
	f.StringVar(&o.flags.Store.CertFile, "etcd-cert-file", "", "client certificate for the external etcd (PEM)")
	f.StringVar(&o.flags.Store.KeyFile, "etcd-key-file", "", "key of the client certificate for the external etcd (PEM)")
	f.StringVar(&o.flags.CA.PassphraseFile, "ca-passphrase-file", "", "file with the passphrase of the CA's keys")
	f.StringVar(&o.flags.CA.KeyFile, "ca-key-file", "", "file of 32 or more random octets that unlocks the CA's keys")
	f.StringVar(&o.flags.CA.CertificateFile, "ca-certificate-file", "", "what a root that is kept off line answered the request of the issuing CA with (PEM)")
	f.BoolVar(&o.flags.CA.OfflineRoot, "offline-root", false, "with init: make a request for a root that is kept off line, and no root")
	f.StringVar(&o.logLevel, "log-level", "info", "trace, debug, info, warn or error")
	f.BoolVar(&o.logJSON, "log-json", false, "write the log as JSON")
	root.Flags().BoolVar(&o.flags.CA.Init, "init", false, "make the CA when there is none")
	root.AddCommand(&cobra.Command{
		Use:   "init",
		Short: "Make the CA and the state, and end",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return o.run(cmd, true) },
	})
	return root
}

func (o *options) run(cmd *cobra.Command, initOnly bool) error {
	config, err := o.config()
	if err != nil {
		return err
	}
	level := hclog.LevelFromString(o.logLevel)
	if level == hclog.NoLevel {
		return usageError{fmt.Errorf("log level %q, wanted trace, debug, info, warn or error", o.logLevel)}
	}
	config.Log = hclog.New(&hclog.LoggerOptions{Name: "controller", Level: level, JSONFormat: o.logJSON, Output: os.Stderr})
	controller.AdaptGRPC(config.Log)
	if initOnly {
		config.CA.Init = true
		// Nothing is served, so nothing shall be in the way.
		config.Listen, config.Admin.Listen = []string{"127.0.0.1:0"}, ""
		config.Admin.Socket = o.initSocket(config)
	}
	c, err := controller.Load(cmd.Context(), config)
	if err != nil {
		return err
	}
	if initOnly {
		return c.Close()
	}
	return c.Run(cmd.Context())
}

// initSocket is a socket of its own, for init may run beside nothing but its own state.
func (o *options) initSocket(config controller.Config) string {
	dir := config.StateDir
	if dir == "" {
		dir = controller.DefaultStateDir
	}
	return dir + "/init.sock"
}

// config lays the flags that were given over the file.
func (o *options) config() (controller.Config, error) {
	var c controller.Config
	if o.configFile != "" {
		var err error
		if c, err = controller.ReadConfig(o.configFile); err != nil {
			return controller.Config{}, err
		}
	}
	if o.directory != "" {
		if err := c.SetDirectory(o.directory); err != nil {
			return controller.Config{}, err
		}
	}
	for _, t := range []struct {
		into *string
		flag string
	}{
		{&c.StateDir, o.flags.StateDir}, {&c.TrustDomain, o.flags.TrustDomain},
		{&c.Admin.Socket, o.flags.Admin.Socket}, {&c.Admin.Listen, o.flags.Admin.Listen},
		{&c.Store.CAFile, o.flags.Store.CAFile}, {&c.Store.CertFile, o.flags.Store.CertFile}, {&c.Store.KeyFile, o.flags.Store.KeyFile},
		{&c.CA.CertificateFile, o.flags.CA.CertificateFile},
	} {
		if t.flag != "" {
			*t.into = t.flag
		}
	}
	if len(o.flags.Listen) > 0 {
		c.Listen = o.flags.Listen
	}
	if len(o.flags.Names) > 0 {
		c.Names = o.flags.Names
	}
	if len(o.flags.Store.Endpoints) > 0 {
		c.Store.Endpoints = o.flags.Store.Endpoints
	}
	// The two ways of unlocking exclude each other, so one given as a flag replaces either of the file.
	if o.flags.CA.PassphraseFile != "" || o.flags.CA.KeyFile != "" {
		c.CA.PassphraseFile, c.CA.KeyFile = o.flags.CA.PassphraseFile, o.flags.CA.KeyFile
	}
	c.CA.Init = c.CA.Init || o.flags.CA.Init
	c.CA.OfflineRoot = c.CA.OfflineRoot || o.flags.CA.OfflineRoot
	return c, nil
}
