// Package controllertest runs a whole controller in this process, over a directory in a file and with its state in a
// folder of the test, and scripts nodes that join it and hold sessions with it. Only tests import it.
package controllertest

import (
	"context"
	"crypto/rand"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/bailiwick-net/bailiwick/controller"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// Patience bounds every wait: long enough for a loaded machine, and reached only by a test that fails.
const Patience = 30 * time.Second

// Bank is the tree that most tests begin with: dc=bank,dc=example with sql1 in SecureServers, files1 in Servers, ws1 and
// ws2 in Workstations.
const Bank = `dn: dc=bank,dc=example
objectClass: domain
dc: bank

dn: ou=SecureServers,dc=bank,dc=example
objectClass: organizationalUnit
ou: SecureServers

dn: ou=Servers,dc=bank,dc=example
objectClass: organizationalUnit
ou: Servers

dn: ou=Workstations,dc=bank,dc=example
objectClass: organizationalUnit
ou: Workstations

dn: cn=sql1,ou=SecureServers,dc=bank,dc=example
objectClass: device
cn: sql1

dn: cn=files1,ou=Servers,dc=bank,dc=example
objectClass: device
cn: files1

dn: cn=ws1,ou=Workstations,dc=bank,dc=example
objectClass: device
cn: ws1

dn: cn=ws2,ou=Workstations,dc=bank,dc=example
objectClass: device
cn: ws2
`

// BankLinks links the three predefined policies to the Bank's containers.
const BankLinks = `apiVersion: bailiwick.net/v1alpha1
kind: Link
policy: Client (Respond Only)
container: dc=bank,dc=example
order: 1
---
apiVersion: bailiwick.net/v1alpha1
kind: Link
policy: Server (Request Security)
container: ou=Servers,dc=bank,dc=example
order: 1
---
apiVersion: bailiwick.net/v1alpha1
kind: Link
policy: Secure Server (Require Security)
container: ou=SecureServers,dc=bank,dc=example
order: 1
`

// A Fleet is a controller and everything around it. It belongs to the goroutine of the test.
type Fleet struct {
	// Config is what the controller was started with; it may be changed before Start or Restart.
	Config controller.Config
	// Dir holds everything that the fleet writes.
	Dir string
	// NodeClock is that of the scripted nodes; nil means time.Now.
	NodeClock func() time.Time

	t       testing.TB
	running *running
	admin   *grpc.ClientConn
}

// running is one run of the controller.
type running struct {
	controller *controller.Controller
	cancel     context.CancelFunc
	ended      chan error
}

// New prepares a fleet over the given LDIF; Start starts it.
func New(t testing.TB, ldif string) *Fleet {
	t.Helper()
	dir := t.TempDir()
	f := &Fleet{t: t, Dir: dir}
	f.WriteDirectory(ldif)
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "ca.secret")
	if err := os.WriteFile(key, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	level := hclog.Off
	if testing.Verbose() {
		level = hclog.Info
	}
	f.Config = controller.Config{
		StateDir: filepath.Join(dir, "state"), Listen: []string{"127.0.0.1:0"}, Names: []string{"127.0.0.1", "controller.bank.example"},
		Admin:     controller.AdminConfig{Socket: f.Socket()},
		Directory: controller.DirectoryConfig{LDIF: &controller.LDIFConfig{Path: f.LDIF()}},
		CA:        controller.CAConfig{Init: true, KeyFile: key},
		Log:       hclog.New(&hclog.LoggerOptions{Name: "controller", Level: level, Output: logWriter{t}}),
	}
	return f
}

// Start starts a fleet over the given LDIF and waits until it serves nodes.
func Start(t testing.TB, ldif string) *Fleet {
	t.Helper()
	f := New(t, ldif)
	f.Start()
	return f
}

// logWriter sends the controller's log to the test's.
type logWriter struct{ t testing.TB }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// LDIF is the path of the directory.
func (f *Fleet) LDIF() string { return filepath.Join(f.Dir, "fleet.ldif") }

// nodeNow is the time for the scripted nodes.
func (f *Fleet) nodeNow() time.Time {
	if f.NodeClock != nil {
		return f.NodeClock()
	}
	return time.Now()
}

// Socket is the path of the admin socket.
func (f *Fleet) Socket() string { return filepath.Join(f.Dir, "admin.sock") }

// WriteDirectory replaces the directory, in one step as an administrator should.
func (f *Fleet) WriteDirectory(ldif string) {
	f.t.Helper()
	next := f.LDIF() + ".next"
	if err := os.WriteFile(next, []byte(ldif), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(next, f.LDIF()); err != nil {
		f.t.Fatal(err)
	}
}

// Launch starts the controller without waiting for it to serve nodes.
func (f *Fleet) Launch() {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c, err := controller.Load(ctx, f.Config)
	if err != nil {
		cancel()
		f.t.Fatalf("loading the controller: %v", err)
	}
	r := &running{controller: c, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- c.Run(ctx) }()
	f.running = r
	f.t.Cleanup(f.Stop)
}

// Start starts the controller and waits until it serves nodes.
func (f *Fleet) Start() {
	f.t.Helper()
	f.Launch()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case <-f.running.controller.Ready():
	case err := <-f.running.ended:
		f.t.Fatalf("the controller ended while it started: %v", err)
	case <-timer.C:
		f.t.Fatalf("the controller does not serve nodes after %v", Patience)
	}
}

// Stop stops the controller and fails the test if it ends with an error. It does nothing when none runs.
func (f *Fleet) Stop() {
	f.t.Helper()
	r := f.running
	if r == nil {
		return
	}
	f.running = nil
	if f.admin != nil {
		f.admin.Close()
		f.admin = nil
	}
	r.cancel()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case err := <-r.ended:
		if err != nil {
			f.t.Errorf("the controller ended with %v", err)
		}
	case <-timer.C:
		f.t.Fatalf("the controller does not stop within %v", Patience)
	}
}

// Restart stops the controller and starts it again over the same state, at the same address.
func (f *Fleet) Restart() {
	f.t.Helper()
	f.Config.Listen = []string{f.Address()}
	f.Stop()
	f.Start()
}

// Address is where nodes connect.
func (f *Fleet) Address() string { return f.running.controller.NodeAddresses()[0].String() }

// AdminAddress is where administrators with a certificate connect.
func (f *Fleet) AdminAddress() net.Addr { return f.running.controller.AdminAddress() }

// Conn is a connection to the admin socket.
func (f *Fleet) Conn() *grpc.ClientConn {
	f.t.Helper()
	if f.admin == nil {
		conn, err := grpc.NewClient("unix:"+f.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			f.t.Fatal(err)
		}
		f.admin = conn
	}
	return f.admin
}

// Documents is the document service over the admin socket.
func (f *Fleet) Documents() adminv1.DocumentServiceClient {
	f.t.Helper()
	return adminv1.NewDocumentServiceClient(f.Conn())
}

// Machines is the fleet service over the admin socket.
func (f *Fleet) Machines() adminv1.FleetServiceClient {
	f.t.Helper()
	return adminv1.NewFleetServiceClient(f.Conn())
}

// Credentials is the credential service over the admin socket.
func (f *Fleet) Credentials() adminv1.CredentialServiceClient {
	f.t.Helper()
	return adminv1.NewCredentialServiceClient(f.Conn())
}

// Apply applies documents and fails the test when they are refused.
func (f *Fleet) Apply(yaml string) *adminv1.ApplyResponse {
	f.t.Helper()
	response, err := f.Documents().Apply(f.Context(), &adminv1.ApplyRequest{Sources: []*adminv1.Source{{Name: "test.yaml", Content: []byte(yaml)}}})
	if err != nil {
		f.t.Fatalf("applying documents: %v", err)
	}
	return response
}

// Token makes a join token for a machine.
func (f *Fleet) Token(machine string) string {
	f.t.Helper()
	response, err := f.Credentials().CreateToken(f.Context(), &adminv1.CreateTokenRequest{Machine: machine})
	if err != nil {
		f.t.Fatalf("making a join token for %s: %v", machine, err)
	}
	return response.GetText()
}

// Context ends with the patience of the test.
func (f *Fleet) Context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	f.t.Cleanup(cancel)
	return ctx
}

// Eventually asks again until what it asks for holds, and fails the test when it does not in time.
func (f *Fleet) Eventually(what string, holds func() bool) {
	f.t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			f.t.Fatalf("not within %v: %s", Patience, what)
		}
	}
}
