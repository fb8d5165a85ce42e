package controller

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/admin"
	"github.com/bailiwick-net/bailiwick/controller/revocation"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// The limits of messages, in octets. Reports are the largest that nodes send, documents the largest of administrators.
const (
	maxNodeMessage  = 4 << 20
	maxAdminMessage = 16 << 20
)

// tlsConfig is that of both TLS listeners. It asks for a certificate and verifies the proof of possession; whether the
// certificate is to be believed is for verifyPeer, on every call: a refusal in the handshake reaches a TLS 1.3 client
// after it began to write, as a broken connection without a reason.
func tlsConfig(certificate *serverCertificate) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: certificate.get,
		ClientAuth:     tls.RequestClientCert,
		// A resumed session would show the certificate of an earlier handshake.
		SessionTicketsDisabled: true,
	}
}

// peerVerifier holds the certificate of every caller against the trust bundle before any service sees the call. A caller
// without a certificate passes: a machine that joins has none, and each service decides whether it needs one.
type peerVerifier struct {
	bundle  func() trust.Bundle
	revoked func() trust.Revocations
	now     func() time.Time
	log     hclog.Logger
	// grace is how long after its end a certificate is still good for its own renewal.
	grace time.Duration
	// callers hears whose connection is no stranger's; nil tells nobody.
	callers *callers
}

// verify holds a chain against the trust bundle. With late a certificate that has ended within the grace is held against it
// as of its end: for the renewal of that certificate and nothing else.
func (v peerVerifier) verify(chain []*x509.Certificate, late bool) (trust.Verdict, error) {
	options := trust.Options{Usages: []trust.Usage{trust.ClientAuth}, Revoked: v.revoked()}
	now := v.now()
	verdict, err := v.bundle().Verify(now, chain, options)
	if reason, refused := trust.ReasonOf(err); !late || !refused || reason != trust.ReasonExpired {
		return verdict, err
	}
	if end := chain[0].NotAfter; end.Before(now) && now.Sub(end) <= v.grace {
		verdict, err = v.bundle().Verify(end, chain, options)
	}
	return verdict, err
}

// check verifies the caller's certificate, on every call of a connection, and says in the context whose it is.
func (v peerVerifier) check(ctx context.Context, method string) (context.Context, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Internal, "connection without a peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return ctx, nil
	}
	verdict, err := v.verify(info.State.PeerCertificates, method == nodev1.EnrollmentService_Renew_FullMethodName)
	if err != nil {
		v.log.Warn("caller's certificate refused", "address", p.Addr, "error", err)
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	v.callers.know(p.LocalAddr, p.Addr)
	return revocation.WithCaller(ctx, verdict), nil
}

func (v peerVerifier) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, err := v.check(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

func (v peerVerifier) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, err := v.check(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return handler(server, verifiedStream{stream, ctx})
}

// verifiedStream is a stream whose context says whose certificate it came with.
type verifiedStream struct {
	grpc.ServerStream
	ctx context.Context // as grpc.ServerStream returns it
}

// Context returns the context with the verified caller.
func (s verifiedStream) Context() context.Context { return s.ctx }

// nodeServer makes the gRPC server for nodes, tuned for many idle streams.
func nodeServer(config *tls.Config, verifier peerVerifier, idle time.Duration, log hclog.Logger) *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(credentials.NewTLS(config)),
		grpc.MaxRecvMsgSize(maxNodeMessage),
		grpc.MaxConcurrentStreams(16),
		grpc.ConnectionTimeout(20*time.Second),
		// grpc pools read buffers for plain TCP only: under TLS each would stay with its connection, 32 KiB of it.
		grpc.ReadBufferSize(0),
		// A node that went without a word is noticed within a minute; nodes ping every 30 s themselves.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idle, Time: 40 * time.Second, Timeout: 15 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(recoverUnary(log), verifier.unary),
		grpc.ChainStreamInterceptor(recoverStream(log), verifier.stream),
	)
}

// adminServer makes a gRPC server for administrators.
func adminServer(creds credentials.TransportCredentials, verifier peerVerifier, idle time.Duration, log hclog.Logger, authorize *admin.Authorizer) *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(creds),
		grpc.MaxRecvMsgSize(maxAdminMessage),
		grpc.ConnectionTimeout(20*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idle}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(recoverUnary(log), verifier.unary, authorize.Unary),
		grpc.ChainStreamInterceptor(recoverStream(log), verifier.stream, authorize.Stream),
	)
}

// recoverUnary keeps one bad request from ending the sessions of the whole fleet.
func recoverUnary(log hclog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (response any, err error) {
		defer func() {
			if p := recover(); p != nil {
				err = panicked(log, info.FullMethod, p)
			}
		}()
		return handler(ctx, request)
	}
}

func recoverStream(log hclog.Logger) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = panicked(log, info.FullMethod, p)
			}
		}()
		return handler(server, stream)
	}
}

func panicked(log hclog.Logger, method string, p any) error {
	log.Error("request handler panicked, this is a defect", "method", method, "panic", p, "stack", string(debug.Stack()))
	return status.Error(codes.Internal, "the controller hit a defect while it answered; its log has the place")
}

// listenSocket opens the admin socket. A socket that a dead process left is replaced, one that somebody answers on is not.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of the admin socket: %w", err)
	}
	dialer := net.Dialer{Timeout: time.Second}
	if conn, err := dialer.DialContext(ctx, "unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("admin socket %s is in use: is another controller running", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing the admin socket that an earlier controller left: %w", err)
	}
	// Between bind and chmod nobody else may connect. The peer's user is checked as well.
	old := unix.Umask(0o177)
	var open net.ListenConfig
	listener, err := open.Listen(ctx, "unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("opening the admin socket: %w", err)
	}
	return listener, nil
}

// stop ends a server: gracefully while there is time, then at once.
func stop(server *grpc.Server, grace time.Duration) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.GracefulStop()
	}()
	if !doneWithin(done, grace) {
		server.Stop()
		<-done
	}
}

// doneWithin reports whether something is done within some time.
func doneWithin(done <-chan struct{}, within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
