package control

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/kerberos"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// An Account gets tickets for the machine.
type Account interface {
	Ticket(ctx context.Context, service kerberos.Principal) (kerberos.Ticket, error)
}

// EnrollAccount shows the machine's Kerberos account to a controller that shows the pinned root.
func (e Enrollment) EnrollAccount(ctx context.Context, pin pki.KeyID, account Account, request []byte, hostname string) (identity.Issued, error) {
	conn, err := e.connect(pin)
	if err != nil {
		return identity.Issued{}, err
	}
	defer conn.Close()
	client := nodev1.NewEnrollmentServiceClient(conn)
	var channel peer.Peer
	answer, err := client.ServicePrincipal(ctx, &nodev1.ServicePrincipalRequest{}, grpc.Peer(&channel))
	if err != nil {
		return identity.Issued{}, explain("ask controller "+e.address+" for its Kerberos service", err)
	}
	service, err := kerberos.ParsePrincipal(answer.GetPrincipal())
	if err != nil {
		return identity.Issued{}, fmt.Errorf("Kerberos service of controller %s: %w", e.address, err)
	}
	// Whoever took the controller over shall not get this machine to prove itself to another service.
	if len(service.Components) != 2 || service.Components[0] != kerberos.ServiceName {
		return identity.Issued{}, fmt.Errorf("controller %s calls its service %v, wanted %s/NAME: %w", e.address, service, kerberos.ServiceName, kerberos.ErrService)
	}
	info, ok := channel.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return identity.Issued{}, fmt.Errorf("connection to controller %s has no TLS", e.address)
	}
	// Should the connection break in between, the proof is for the former one, and is refused.
	exporter, err := kerberos.Exporter(&info.State)
	if err != nil {
		return identity.Issued{}, err
	}
	ticket, err := account.Ticket(ctx, service)
	if err != nil {
		return identity.Issued{}, err
	}
	proof, err := kerberos.Prove(e.now(), ticket, exporter, request)
	if err != nil {
		return identity.Issued{}, err
	}
	enrolled, err := client.Enroll(ctx, &nodev1.EnrollRequest{Kerberos: proof, Csr: request, Hostname: hostname})
	if err != nil {
		return identity.Issued{}, explain("join through controller "+e.address+" with a Kerberos account", err)
	}
	return issued(enrolled.GetChain(), enrolled.GetTrustBundle())
}
