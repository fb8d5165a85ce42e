package enrollment

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/bailiwick-net/bailiwick/controller/revocation"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/certlint"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/kerberos"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// A Service is the Desk as nodes reach it.
type Service struct {
	nodev1.UnimplementedEnrollmentServiceServer
	desk *Desk
}

// NewService makes a Service.
func NewService(desk *Desk) *Service { return &Service{desk: desk} }

// Identify implements nodev1.EnrollmentServiceServer.
func (s *Service) Identify(ctx context.Context, r *nodev1.IdentifyRequest) (*nodev1.IdentifyResponse, error) {
	ctx, cancel := inTime(ctx)
	defer cancel()
	id, err := s.desk.Names(ctx, r.GetToken())
	if err != nil {
		return nil, s.refuse(ctx, "a join token was presented", err)
	}
	return &nodev1.IdentifyResponse{MachineUuid: id.UUID().String(), DnsName: id.DNSName(), TrustDomain: id.TrustDomain()}, nil
}

// Enroll implements nodev1.EnrollmentServiceServer.
func (s *Service) Enroll(ctx context.Context, r *nodev1.EnrollRequest) (*nodev1.EnrollResponse, error) {
	ctx, cancel := inTime(ctx)
	defer cancel()
	if len(r.GetKerberos()) > 0 {
		return s.enrollAccount(ctx, r)
	}
	issued, err := s.desk.Enroll(ctx, r.GetToken(), r.GetCsr())
	if err != nil {
		return nil, s.refuse(ctx, "a machine wants to join", err)
	}
	return &nodev1.EnrollResponse{Chain: issued.Chain(), TrustBundle: s.desk.config.Trust().Append(nil)}, nil
}

// Renew implements nodev1.EnrollmentServiceServer.
func (s *Service) Renew(ctx context.Context, r *nodev1.RenewRequest) (*nodev1.RenewResponse, error) {
	ctx, cancel := inTime(ctx)
	defer cancel()
	leaf, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	issued, err := s.desk.Renew(ctx, leaf, r.GetCsr())
	if err != nil {
		return nil, s.refuse(ctx, "a machine wants to renew its certificate", err)
	}
	return &nodev1.RenewResponse{Chain: issued.Chain(), TrustBundle: s.desk.config.Trust().Append(nil)}, nil
}

// Submit implements nodev1.EnrollmentServiceServer.
func (s *Service) Submit(ctx context.Context, r *nodev1.SubmitRequest) (*nodev1.SubmitResponse, error) {
	ctx, cancel := inTime(ctx)
	defer cancel()
	address := ""
	if p, ok := peer.FromContext(ctx); ok {
		address = p.Addr.String()
	}
	submission, err := s.desk.Submit(ctx, r.GetCsr(), Submitter{Address: address, Via: "node"})
	if err != nil {
		return nil, s.refuse(ctx, "a machine asks without a token", err)
	}
	response := &nodev1.SubmitResponse{Request: submission.Request.Key.String(), AskAgainAfter: durationpb.New(AskAgainAfter)}
	if submission.Issued != nil {
		response.Chain, response.TrustBundle = submission.Issued.Chain(), s.desk.config.Trust().Append(nil)
	}
	return response, nil
}

// inTime ends a call a moment before its caller gives up, so that a caller hears why there was no answer, as that the store
// has none.
func inTime(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-min(time.Second, time.Until(deadline)/8)))
}

// AskAgainAfter is how long whoever waits for an approval is asked to leave between two questions.
const AskAgainAfter = 10 * time.Second

// caller reads the client certificate, which was verified before the call came here.
func (s *Service) caller(ctx context.Context) (*x509.Certificate, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Internal, "connection without a peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil, status.Error(codes.Unauthenticated, "no machine certificate was presented; join the machine with a token first")
	}
	leaf := info.State.PeerCertificates[0]
	if _, err := s.desk.MachineOf(leaf); err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return leaf, nil
}

// MachineOf reads whose machine certificate it is, and refuses those of others and of another fleet.
func (d *Desk) MachineOf(leaf *x509.Certificate) (pki.Identity, error) {
	id, err := pki.IdentityFromCertificate(leaf)
	if err != nil {
		return pki.Identity{}, err
	}
	if id.TrustDomain() != d.config.TrustDomain {
		return pki.Identity{}, fmt.Errorf("machine certificate is of the trust domain %q, this controller is of %q: %w", id.TrustDomain(), d.config.TrustDomain, pki.ErrIdentity)
	}
	return id, nil
}

// refuse logs a refusal and maps it to a status: the one place where that is done.
func (s *Service) refuse(ctx context.Context, what string, err error) error {
	code, hint := Code(err)
	address := ""
	if p, ok := peer.FromContext(ctx); ok {
		address = p.Addr.String()
	}
	s.desk.config.Log.Warn("certificate refused", "request", what, "address", address, "code", code, "error", err)
	text := err.Error()
	if hint != "" {
		text += "; " + hint
	}
	return status.Error(code, text)
}

// Code maps an error of the Desk to the gRPC code and a hint for whoever asked.
func Code(err error) (codes.Code, string) {
	for _, c := range []struct {
		err  error
		code codes.Code
		hint string
	}{
		{enroll.ErrTokenFormat, codes.InvalidArgument, "copy the whole token, as it was printed"},
		{enroll.ErrTokenUnknown, codes.Unauthenticated, "ask for a new token: bailiwick token create MACHINE"},
		{enroll.ErrTokenUsed, codes.FailedPrecondition, "ask for a new token: bailiwick token create MACHINE"},
		{enroll.ErrTokenExpired, codes.FailedPrecondition, "ask for a new token: bailiwick token create MACHINE"},
		{enroll.ErrNameMismatch, codes.PermissionDenied, "the names of a certificate are those of the machine's directory entry; nothing was issued"},
		{enroll.ErrRequest, codes.InvalidArgument, ""},
		{ErrTokenLifetime, codes.InvalidArgument, ""},
		{ErrMachineUnknown, codes.FailedPrecondition, "look at: bailiwick get machines"},
		{ErrMachineDisabled, codes.PermissionDenied, "enable its account in the directory first"},
		{revocation.ErrKeyRevoked, codes.PermissionDenied, "join the machine with a new key: bailiwick token create MACHINE"},
		{revocation.ErrNotAdmitted, codes.PermissionDenied, "enable its account in the directory first"},
		{ErrTooOften, codes.ResourceExhausted, ""},
		{ErrBusy, codes.Unavailable, "try again in a minute"},
		{ErrSuperseded, codes.PermissionDenied, "if this machine is the right one, make it a new token: bailiwick token create MACHINE"},
		{ErrGraceOver, codes.PermissionDenied, "enrol the machine anew: bailiwick token create MACHINE"},
		{ErrOtherKey, codes.PermissionDenied, ""},
		{ErrKerberosClosed, codes.FailedPrecondition, "ask for a token, or for enrollment.kerberos in the controller's configuration"},
		{ErrBarred, codes.PermissionDenied, "if this machine is the right one, make it a token: bailiwick token create MACHINE"},
		{ErrKeytab, codes.Unavailable, ""},
		{ErrAccount, codes.PermissionDenied, "the account has to be that of exactly one machine of the directory; look at: bailiwick get machines"},
		{kerberos.ErrMalformed, codes.InvalidArgument, ""},
		{kerberos.ErrPrincipal, codes.InvalidArgument, ""},
		{kerberos.ErrEncryption, codes.Unauthenticated, "give the account of the machine and that of the controller keys of AES, and make their keytabs anew"},
		{kerberos.ErrService, codes.Unauthenticated, ""},
		{kerberos.ErrKeyVersion, codes.Unauthenticated, "if the password of the controller's account has changed, make its keytab anew, and let the machine ask again with a new ticket"},
		{kerberos.ErrTicketTime, codes.Unauthenticated, "ask again; if that does not help, set the clocks"},
		{kerberos.ErrClockSkew, codes.Unauthenticated, "set the clocks of machine and controller"},
		{kerberos.ErrRealm, codes.PermissionDenied, "realms that are accepted stand in enrollment.kerberos.realms of the controller's configuration"},
		{kerberos.ErrProof, codes.Unauthenticated, "ask again; nothing between machine and controller may end TLS"},
		{ErrRequestsClosed, codes.FailedPrecondition, "ask for a token, or for enrollment.requests in the controller's configuration"},
		{ErrRequestDenied, codes.PermissionDenied, ""},
		{ErrRequestMachine, codes.PermissionDenied, "the name has to be that of an enabled machine of the directory; ask an administrator"},
		{ErrQueueFull, codes.ResourceExhausted, "an administrator sees them with: bailiwick enrollment list"},
		{ErrDecided, codes.FailedPrecondition, ""},
		{ErrRequestName, codes.NotFound, "look at: bailiwick enrollment list"},
		{ErrNotReady, codes.Unavailable, "look at: bailiwick directory status"},
		{ca.ErrIssuerValidity, codes.FailedPrecondition, ""},
		{certlint.ErrFindings, codes.FailedPrecondition, ""},
		{pki.ErrName, codes.FailedPrecondition, "correct the name in the directory"},
		{ca.ErrJournal, codes.Unavailable, ""},
		{context.Canceled, codes.Canceled, ""},
		{context.DeadlineExceeded, codes.DeadlineExceeded, ""},
	} {
		if errors.Is(err, c.err) {
			return c.code, c.hint
		}
	}
	return codes.Internal, ""
}
