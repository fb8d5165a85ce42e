package admin

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/pki"
)

// An Actor is who calls.
type Actor struct {
	// Name is the user, or the account of the certificate.
	Name string
	// Local says that the call came over the unix socket.
	Local bool
}

type actorKey struct{}

// actor returns who calls; the interceptors have put it there.
func actor(ctx context.Context) Actor {
	a, _ := ctx.Value(actorKey{}).(Actor)
	return a
}

// An Authorizer finds out who calls, and refuses whoever is no administrator.
type Authorizer struct {
	// TrustDomain is that of the certificates which count.
	TrustDomain string
}

// Unary is a grpc.UnaryServerInterceptor.
func (a *Authorizer) Unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	who, err := a.identify(ctx)
	if err != nil {
		return nil, err
	}
	return handler(context.WithValue(ctx, actorKey{}, who), request)
}

// Stream is a grpc.StreamServerInterceptor. Handlers of streams get no Actor.
func (a *Authorizer) Stream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if _, err := a.identify(stream.Context()); err != nil {
		return err
	}
	return handler(server, stream)
}

func (a *Authorizer) identify(ctx context.Context) (Actor, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Actor{}, status.Error(codes.Internal, "connection without a peer")
	}
	switch info := p.AuthInfo.(type) {
	case socketUser:
		return Actor{Name: info.name(), Local: true}, nil
	case credentials.TLSInfo:
		if len(info.State.PeerCertificates) == 0 {
			break
		}
		// It was verified before the call came here; now counts whose it is: a machine's certificate is good for TLS too.
		subject, err := pki.SubjectFromCertificate(info.State.PeerCertificates[0])
		if err != nil {
			return Actor{}, status.Error(codes.Unauthenticated, err.Error())
		}
		administrator, ok := subject.(pki.Administrator)
		if !ok {
			return Actor{}, status.Errorf(codes.PermissionDenied, "the certificate is that of %v, not of an administrator", subject)
		}
		if administrator.TrustDomain() != a.TrustDomain {
			return Actor{}, status.Errorf(codes.PermissionDenied, "the certificate is of the trust domain %q, this controller is of %q", administrator.TrustDomain(), a.TrustDomain)
		}
		return Actor{Name: administrator.Account()}, nil
	}
	return Actor{}, status.Error(codes.Unauthenticated, "an administrator's certificate is needed")
}
