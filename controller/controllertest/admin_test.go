package controllertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// administrator has a certificate for the admin API issued.
func (f *Fleet) administrator(account string) tls.Certificate {
	f.t.Helper()
	subject, err := pki.NewAdministrator("bank.example", account)
	if err != nil {
		f.t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	csr, err := enroll.NewRequest(key, subject)
	if err != nil {
		f.t.Fatal(err)
	}
	r, err := f.Credentials().IssueAdministrator(f.Context(), &adminv1.IssueAdministratorRequest{Account: account, Csr: csr})
	if err != nil {
		f.t.Fatalf("certifying administrator %s: %v", account, err)
	}
	return tls.Certificate{Certificate: r.GetChain(), PrivateKey: key}
}

// remote connects to the admin listener.
func (f *Fleet) remote(certificates ...tls.Certificate) *grpc.ClientConn {
	f.t.Helper()
	// What the server makes of the client is the matter here.
	conn, err := grpc.NewClient("passthrough:///"+f.AdminAddress().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: certificates,
	})))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	return conn
}

func TestAdministratorOverTheNetwork(t *testing.T) {
	f := New(t, Bank)
	f.Config.Admin.Listen = "127.0.0.1:0"
	f.Start()
	alice := f.remote(f.administrator("alice"))
	if r, err := adminv1.NewFleetServiceClient(alice).ListMachines(f.Context(), &adminv1.ListMachinesRequest{}); err != nil || len(r.GetMachines()) != 4 {
		t.Errorf("alice sees %d machines, error %v", len(r.GetMachines()), err)
	}
	_, err := adminv1.NewDocumentServiceClient(alice).Link(f.Context(), &adminv1.LinkRequest{
		Link: &adminv1.PolicyLink{Policy: "Client (Respond Only)", Container: "dc=bank,dc=example"},
	})
	if err != nil {
		t.Fatal(err)
	}
	byAlice := 0
	for _, d := range f.documents().GetDocuments() {
		if d.GetChangedBy() == "alice" {
			byAlice++
		}
	}
	if byAlice != 1 {
		t.Errorf("%d documents are by alice, wanted her link", byAlice)
	}
	// Nobody makes administrators over the network.
	_, err = adminv1.NewCredentialServiceClient(alice).IssueAdministrator(f.Context(), &adminv1.IssueAdministratorRequest{Account: "mallory"})
	wantRefusal(t, err, codes.PermissionDenied, "unix socket only")

	list := func(certificates ...tls.Certificate) error {
		_, err := adminv1.NewFleetServiceClient(f.remote(certificates...)).ListMachines(f.Context(), &adminv1.ListMachinesRequest{})
		return err
	}
	wantRefusal(t, list(), codes.Unauthenticated, "administrator's certificate")
	wantRefusal(t, list(f.Node("sql1").Certificate), codes.PermissionDenied, "not of an administrator")
	wantRefusal(t, list(catest.New(t).Administrator(t, "alice")), codes.Unauthenticated, "unknown issuer")
}

func TestAdminServicesAreNotOnTheNodeListener(t *testing.T) {
	f := Start(t, Bank)
	n := f.Node("sql1")
	conn := n.Dial(f.administrator("alice"))
	_, err := adminv1.NewFleetServiceClient(conn).ListMachines(f.Context(), &adminv1.ListMachinesRequest{})
	wantRefusal(t, err, codes.Unimplemented, "")
	_, err = nodev1.NewEnrollmentServiceClient(f.Conn()).Identify(f.Context(), &nodev1.IdentifyRequest{})
	wantRefusal(t, err, codes.Unimplemented, "")
}

func TestHealth(t *testing.T) {
	f := Start(t, Bank)
	for name, conn := range map[string]*grpc.ClientConn{"node listener": f.Node("ws1").Dial(tls.Certificate{}), "admin socket": f.Conn()} {
		r, err := healthpb.NewHealthClient(conn).Check(f.Context(), &healthpb.HealthCheckRequest{})
		if err != nil || r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%s: health is %v, error %v", name, r.GetStatus(), err)
		}
	}
}
