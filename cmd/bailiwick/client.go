package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/bailiwick-net/bailiwick/pki/trust"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// defaultSocket is where the controller listens unless it was configured otherwise.
const defaultSocket = "/run/bailiwick/controller.sock"

// client is how commands reach the controller, and how they print.
type client struct {
	socket  string
	server  string
	cert    string
	key     string
	ca      string
	output  string
	timeout time.Duration
}

func (c *client) flags(f *pflag.FlagSet) {
	socket := os.Getenv("BAILIWICK_SOCKET")
	if socket == "" {
		socket = defaultSocket
	}
	f.StringVar(&c.socket, "socket", socket, "unix socket of the controller; the variable BAILIWICK_SOCKET names another default")
	f.StringVar(&c.server, "server", "", "address of the controller's admin listener, host:port, instead of the socket")
	f.StringVar(&c.cert, "cert", "", "administrator's certificate (PEM), with --server")
	f.StringVar(&c.key, "key", "", "key of the certificate (PEM), with --server")
	f.StringVar(&c.ca, "ca", "", "certificates of the fleet's CA (PEM), with --server")
	f.StringVarP(&c.output, "output", "o", "table", "table, json or yaml")
	f.DurationVar(&c.timeout, "timeout", 30*time.Second, "how long to wait for the controller")
}

func (c *client) validate() error {
	switch c.output {
	case "table", "json", "yaml":
	default:
		return usagef("output %q, wanted table, json or yaml", c.output)
	}
	if c.server == "" && (c.cert != "" || c.key != "" || c.ca != "") {
		return usagef("--cert, --key and --ca go with --server")
	}
	if c.server != "" && (c.cert == "" || c.key == "" || c.ca == "") {
		return usagef("--server needs --cert, --key and --ca; make them with: bailiwick administrator create ACCOUNT")
	}
	return nil
}

// api is an open connection.
type api struct {
	*client
	conn         *grpc.ClientConn
	documents    adminv1.DocumentServiceClient
	fleet        adminv1.FleetServiceClient
	directories  adminv1.DirectoryServiceClient
	credentials  adminv1.CredentialServiceClient
	secrets      adminv1.SecretServiceClient
	plans        adminv1.PlanServiceClient
	analysis     adminv1.AnalysisServiceClient
	enrollment   adminv1.EnrollmentRequestServiceClient
	certificates adminv1.CertificateServiceClient
	authorities  adminv1.AuthorityServiceClient
}

// with makes the RunE of a command that talks to the controller.
func (c *client) with(run func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a, err := c.open()
		if err != nil {
			return err
		}
		defer a.conn.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
		defer cancel()
		return run(ctx, a, cmd, args)
	}
}

// maxMessage bounds an answer, in octets: the machines of the largest fleet fit.
const maxMessage = 256 << 20

func (c *client) open() (*api, error) {
	target, creds := "unix:"+c.socket, insecure.NewCredentials()
	if c.server != "" {
		config, err := c.tls()
		if err != nil {
			return nil, err
		}
		target, creds = "passthrough:///"+c.server, credentials.NewTLS(config)
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("preparing the connection to %s: %w", target, err)
	}
	return &api{
		client: c, conn: conn, documents: adminv1.NewDocumentServiceClient(conn),
		fleet: adminv1.NewFleetServiceClient(conn), directories: adminv1.NewDirectoryServiceClient(conn), credentials: adminv1.NewCredentialServiceClient(conn),
		secrets: adminv1.NewSecretServiceClient(conn),
		plans:   adminv1.NewPlanServiceClient(conn), analysis: adminv1.NewAnalysisServiceClient(conn),
		enrollment:   adminv1.NewEnrollmentRequestServiceClient(conn),
		certificates: adminv1.NewCertificateServiceClient(conn),
		authorities:  adminv1.NewAuthorityServiceClient(conn),
	}, nil
}

func (c *client) tls() (*tls.Config, error) {
	host, _, err := net.SplitHostPort(c.server)
	if err != nil {
		return nil, usagef("--server %q is not host:port", c.server)
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("reading the administrator's certificate: %w", err)
	}
	text, err := os.ReadFile(c.ca)
	if err != nil {
		return nil, fmt.Errorf("reading the CA's certificates: %w", err)
	}
	bundle, err := trust.ParseBundlePEM(0, text)
	if err != nil {
		return nil, fmt.Errorf("reading the CA's certificates %s: %w", c.ca, err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: host, Certificates: []tls.Certificate{pair},
		// The fleet's CA decides, not the system's roots (trust.TLSVerifyConnection).
		InsecureSkipVerify: true,
		VerifyConnection: trust.TLSVerifyConnection(func() (trust.Bundle, trust.Options, error) {
			return bundle, trust.Options{Usages: []trust.Usage{trust.ServerAuth}, HostName: host}, nil
		}, time.Now),
	}, nil
}

// complete makes a completion function from a list that the controller is asked for.
func (c *client) complete(position int, list func(ctx context.Context, a *api) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) != position {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		a, err := c.open()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		defer a.conn.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
		defer cancel()
		names, err := list(ctx, a)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func machineNames(ctx context.Context, a *api) ([]string, error) {
	r, err := a.fleet.ListMachines(ctx, &adminv1.ListMachinesRequest{})
	var names []string
	for _, m := range r.GetMachines() {
		names = append(names, m.GetName())
	}
	return names, err
}

func policyNames(ctx context.Context, a *api) ([]string, error) {
	r, err := a.documents.ListPolicies(ctx, &adminv1.ListPoliciesRequest{})
	var names []string
	for _, p := range r.GetPolicies() {
		names = append(names, p.GetName())
	}
	return names, err
}
