package control

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// Enrollment redeems join tokens at one controller.
type Enrollment struct {
	address string
	now     func() time.Time
}

// NewEnrollment makes an Enrollment for the controller at address, host:port.
func NewEnrollment(address string, now func() time.Time) (Enrollment, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return Enrollment{}, fmt.Errorf("controller address %q: %w; write host:port", address, err)
	}
	return Enrollment{address, now}, nil
}

// connect opens a connection to a controller that shows the root that has the pinned key.
func (e Enrollment) connect(pin pki.KeyID) (*grpc.ClientConn, error) {
	host, _, err := net.SplitHostPort(e.address)
	if err != nil {
		return nil, err
	}
	return network{}.client(e.address, &tls.Config{
		ServerName: host,
		// The pin decides, not the system's roots (trust.TLSVerifyPinned).
		InsecureSkipVerify: true,
		VerifyConnection: controllerOnly(trust.TLSVerifyPinned(pin, e.now,
			trust.Options{Usages: []trust.Usage{trust.ServerAuth}, HostName: host})),
	})
}

// Names asks which names the machine of the token has. It does not consume the token.
func (e Enrollment) Names(ctx context.Context, token enroll.Token) (dnsName string, err error) {
	conn, err := e.connect(token.Pin)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	answer, err := nodev1.NewEnrollmentServiceClient(conn).Identify(ctx, &nodev1.IdentifyRequest{Token: token.Text()})
	if err != nil {
		return "", explain("ask controller "+e.address+" for the names of this machine", err)
	}
	return answer.GetDnsName(), nil
}

// Enroll redeems the token (identity.Joiner).
func (e Enrollment) Enroll(ctx context.Context, token enroll.Token, request []byte, hostname string) (identity.Issued, error) {
	conn, err := e.connect(token.Pin)
	if err != nil {
		return identity.Issued{}, err
	}
	defer conn.Close()
	answer, err := nodev1.NewEnrollmentServiceClient(conn).Enroll(ctx, &nodev1.EnrollRequest{Token: token.Text(), Csr: request, Hostname: hostname})
	if err != nil {
		return identity.Issued{}, explain("join through controller "+e.address, err)
	}
	return issued(answer.GetChain(), answer.GetTrustBundle())
}

// Submit asks for a certificate without a token, of a controller that shows the pinned root (identity.Requester).
func (e Enrollment) Submit(ctx context.Context, pin pki.KeyID, request []byte) (identity.Submission, error) {
	conn, err := e.connect(pin)
	if err != nil {
		return identity.Submission{}, err
	}
	defer conn.Close()
	answer, err := nodev1.NewEnrollmentServiceClient(conn).Submit(ctx, &nodev1.SubmitRequest{Csr: request})
	switch {
	case status.Code(err) == codes.ResourceExhausted:
		// Others ask as well, and there is room later.
		return identity.Submission{Busy: status.Convert(err).Message()}, nil
	case err != nil:
		return identity.Submission{}, explain("ask controller "+e.address+" for a certificate", err)
	case len(answer.GetChain()) == 0:
		return identity.Submission{AskAgainAfter: answer.GetAskAgainAfter().AsDuration()}, nil
	}
	got, err := issued(answer.GetChain(), answer.GetTrustBundle())
	return identity.Submission{Issued: &got}, err
}

func issued(chain [][]byte, encoded []byte) (identity.Issued, error) {
	bundle, err := trust.ParseBundle(encoded)
	if err != nil {
		return identity.Issued{}, fmt.Errorf("controller answered with a trust bundle that cannot be read: %w", err)
	}
	return identity.Issued{Chain: chain, Trust: bundle}, nil
}
