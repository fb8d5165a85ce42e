package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/bailiwick-net/bailiwick/controller"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// domain is the root of the fleet's directory.
const domain = "dc=bank,dc=example"

// A fleet is a controller in this process, and the administrator's connection to it.
type fleet struct {
	controller *controller.Controller
	admin      *grpc.ClientConn
	// behind is how far the controller's clock is behind, a time.Duration.
	behind *atomic.Int64
	stop   context.CancelFunc
	ended  chan error
}

// machineLife is how long the certificates of machines are good for that are to end soon: the shortest that there is.
const machineLife = 24 * time.Hour

// startFleet starts a controller of so many machines, m0 to m(n-1), below a folder. Where left is not 0 its clock is so far behind
// that what it issues to machines ends after that time, until keepTime is called. Its log goes where nobody reads it, as a
// daemon's does in a fleet that nobody watches.
func startFleet(dir string, n int, left time.Duration) (*fleet, error) {
	var ldif strings.Builder
	ldif.WriteString("dn: " + domain + "\nobjectClass: domain\ndc: bank\n")
	for i := range n {
		fmt.Fprintf(&ldif, "\ndn: cn=m%d,%s\nobjectClass: device\ncn: m%d\n", i, domain, i)
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	machines, key, socket := filepath.Join(dir, "fleet.ldif"), filepath.Join(dir, "ca.secret"), filepath.Join(dir, "admin.sock")
	if err := errors.Join(os.WriteFile(machines, []byte(ldif.String()), 0o600), os.WriteFile(key, secret, 0o600)); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	ca := controller.CAConfig{Init: true, KeyFile: key}
	var behind atomic.Int64
	if left > 0 {
		ca.MachineLifetime = machineLife
		behind.Store(int64(machineLife - left))
	}
	ctx, stop := context.WithCancel(context.Background())
	c, err := controller.Load(ctx, controller.Config{
		StateDir: filepath.Join(dir, "state"), Listen: []string{"127.0.0.1:0"}, Names: []string{"127.0.0.1"},
		Admin:     controller.AdminConfig{Socket: socket},
		Directory: controller.DirectoryConfig{LDIF: &controller.LDIFConfig{Path: machines}},
		CA:        ca,
		Now:       func() time.Time { return time.Now().Add(-time.Duration(behind.Load())) },
		Log:       hclog.New(&hclog.LoggerOptions{Name: "controller", Level: hclog.Info, Output: log}),
	})
	if err != nil {
		stop()
		return nil, err
	}
	f := &fleet{controller: c, behind: &behind, stop: stop, ended: make(chan error, 1)}
	go func() { f.ended <- errors.Join(c.Run(ctx), log.Close()) }()
	select {
	case <-c.Ready():
	case err := <-f.ended:
		stop()
		return nil, fmt.Errorf("the controller ended while it started: %w", err)
	}
	if f.admin, err = grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// keepTime sets the controller's clock right.
func (f *fleet) keepTime() { f.behind.Store(0) }

func (f *fleet) address() string { return f.controller.NodeAddresses()[0].String() }

func (f *fleet) close() error {
	if f.admin != nil {
		f.admin.Close()
	}
	f.stop()
	return <-f.ended
}

// tokens makes a join token for each of the machines.
func (f *fleet) tokens(ctx context.Context, n int) ([]string, error) {
	client := adminv1.NewCredentialServiceClient(f.admin)
	texts := make([]string, n)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for i := range texts {
		group.Go(func() error {
			r, err := client.CreateToken(ctx, &adminv1.CreateTokenRequest{Machine: fmt.Sprintf("m%d", i)})
			if err != nil {
				return fmt.Errorf("making a join token for m%d: %w", i, err)
			}
			texts[i] = r.GetText()
			return nil
		})
	}
	return texts, group.Wait()
}

// link gives every machine a policy.
func (f *fleet) link(ctx context.Context) error {
	const document = "apiVersion: bailiwick.net/v1alpha1\nkind: Link\npolicy: " + stormPolicy + "\ncontainer: " + domain + "\norder: 1\n"
	_, err := adminv1.NewDocumentServiceClient(f.admin).Apply(ctx, &adminv1.ApplyRequest{Sources: []*adminv1.Source{{Name: "storm.yaml", Content: []byte(document)}}})
	return err
}
