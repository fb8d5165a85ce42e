package admin

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/bailiwick-net/bailiwick/controller/authority"
	"github.com/bailiwick-net/bailiwick/controller/distribute"
	"github.com/bailiwick-net/bailiwick/controller/enrollment"
	"github.com/bailiwick-net/bailiwick/controller/grouppolicy"
	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/resolver"
	"github.com/bailiwick-net/bailiwick/controller/revocation"
	"github.com/bailiwick-net/bailiwick/controller/secrets"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/guard"
	"github.com/bailiwick-net/bailiwick/directory/settings"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	lists "github.com/bailiwick-net/bailiwick/pki/revocation"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/plan"
	"github.com/bailiwick-net/bailiwick/policies/preshared"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// Config is what a Server works with: the parts of the controller that it shows and asks.
type Config struct {
	Store  *store.Store
	Mirror *mirror.Union
	// Sources are what the Mirror reads, in its order.
	Sources  []settings.CheckedSource
	Resolver *resolver.Resolver
	Sessions *distribute.Server
	Desk     *enrollment.Desk
	Secrets  *secrets.Keeper
	// Revocations is what is revoked.
	Revocations *revocation.Keeper
	Trust       func() trust.Bundle
	// Authority keeps the CAs.
	Authority *authority.Keeper
	// TrustDomain is that of the fleet.
	TrustDomain string
	// GroupPolicy tells what is read of Group Policy; nil for nothing.
	GroupPolicy func() []grouppolicy.Status
	// ReadGroupPolicy has it read now; nil for nothing.
	ReadGroupPolicy func()
	// Services are the servers that a plan tells about when machines lose them.
	Services []plan.Service
	Now      func() time.Time
	Log      hclog.Logger
}

// A Server implements the services of bailiwick.admin.v1.
type Server struct {
	adminv1.UnimplementedDocumentServiceServer
	adminv1.UnimplementedFleetServiceServer
	adminv1.UnimplementedCredentialServiceServer
	adminv1.UnimplementedSecretServiceServer
	adminv1.UnimplementedPlanServiceServer
	adminv1.UnimplementedAnalysisServiceServer
	adminv1.UnimplementedAuthorityServiceServer
	adminv1.UnimplementedEnrollmentRequestServiceServer
	adminv1.UnimplementedCertificateServiceServer
	adminv1.UnimplementedDirectoryServiceServer
	config Config
	plans  plans
}

// New makes a Server.
func New(c Config) *Server {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	return &Server{config: c}
}

// Register adds the services to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	adminv1.RegisterDocumentServiceServer(r, s)
	adminv1.RegisterFleetServiceServer(r, s)
	adminv1.RegisterCredentialServiceServer(r, s)
	adminv1.RegisterSecretServiceServer(r, s)
	adminv1.RegisterPlanServiceServer(r, s)
	adminv1.RegisterAnalysisServiceServer(r, s)
	adminv1.RegisterAuthorityServiceServer(r, s)
	adminv1.RegisterEnrollmentRequestServiceServer(r, s)
	adminv1.RegisterCertificateServiceServer(r, s)
	adminv1.RegisterDirectoryServiceServer(r, s)
}

// refuse maps an error to a status: the one place where that is done.
func refuse(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	for _, c := range []struct {
		err  error
		code codes.Code
		hint string
	}{
		{store.ErrNotFound, codes.NotFound, ""},
		{store.ErrConflict, codes.Aborted, "try again"},
		{store.ErrTooLarge, codes.ResourceExhausted, ""},
		{guard.ErrNothingHeld, codes.NotFound, "look at: bailiwick directory status"},
		{guard.ErrOtherHeld, codes.FailedPrecondition, "look at: bailiwick directory status"},
		{guard.ErrLimits, codes.InvalidArgument, ""},
		{mirror.ErrStopped, codes.Unavailable, ""},
		{mirror.ErrSource, codes.NotFound, "look at: bailiwick directory status"},
		{resolver.ErrNotReady, codes.Unavailable, "look at: bailiwick directory status"},
		{policies.ErrReference, codes.FailedPrecondition, ""},
		{directory.ErrSyntax, codes.InvalidArgument, ""},
		{secrets.ErrNotFound, codes.NotFound, "look at: bailiwick secret list"},
		{secrets.ErrLocked, codes.FailedPrecondition, ""},
		{secrets.ErrKey, codes.FailedPrecondition, ""},
		{secrets.ErrOverlap, codes.InvalidArgument, ""},
		{preshared.ErrInvalid, codes.InvalidArgument, ""},
		{revocation.ErrNothing, codes.NotFound, "look at: bailiwick cert list"},
		{revocation.ErrPermanent, codes.FailedPrecondition, "join the machine again with a new key: bailiwick token create MACHINE"},
		{revocation.ErrAuthority, codes.FailedPrecondition, ""},
		{revocation.ErrDirectory, codes.FailedPrecondition, ""},
		{revocation.ErrOlderList, codes.FailedPrecondition, "look at: bailiwick ca status"},
		{lists.ErrList, codes.InvalidArgument, ""},
		{trust.ErrRevocations, codes.ResourceExhausted, ""},
		{directory.ErrMove, codes.FailedPrecondition, ""},
		{directory.ErrInconsistent, codes.FailedPrecondition, ""},
	} {
		if errors.Is(err, c.err) {
			return withHint(c.code, err, c.hint)
		}
	}
	code, hint := enrollment.Code(err)
	// What a node may see of a stranger's token, an administrator may be told in plain words.
	if errors.Is(err, enroll.ErrTokenUnknown) {
		code, hint = codes.NotFound, ""
	}
	return withHint(code, err, hint)
}

func withHint(code codes.Code, err error, hint string) error {
	if hint == "" {
		return status.Error(code, err.Error())
	}
	return status.Error(code, err.Error()+"; "+hint)
}

// table returns the present assignments.
func (s *Server) table() (*resolver.Table, error) {
	if t := s.config.Resolver.Table(); t != nil {
		return t, nil
	}
	return nil, refuse(resolver.ErrNotReady)
}

// settled waits a moment for the assignments to follow a change, so that whoever asks next sees it.
func (s *Server) settled(ctx context.Context, revision int64) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := s.config.Resolver.Wait(ctx, revision); err != nil {
		s.config.Log.Debug("assignments do not follow the documents yet", "revision", revision, "error", err)
	}
}

// stamp leaves the zero time away.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
