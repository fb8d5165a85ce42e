package distribute

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/bailiwick-net/bailiwick/controller/resolver"
	"github.com/bailiwick-net/bailiwick/controller/revocation"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// The limits of what a node may say.
const (
	maxText         = 128
	maxError        = 4096
	maxAssociations = 10_000
	maxFailures     = 1_000
	maxCounters     = 1_000
	maxNotes        = 100
	maxFacts        = 256
)

// session is one stream of one node. The goroutine of the stream's handler owns it, and sends; a second one receives.
//
//	admitted -- Settings --> (hello) -- Hello --> (open) -- replaced, not admitted, drained, stream over --> ended
//
// The settings come before the hello: they are how a node learns that it was admitted, which the opening of a stream
// does not tell it.
type session struct {
	server  *Server
	stream  nodev1.SessionService_ConnectServer
	machine directory.UUID
	name    string
	// address is that of the node's end of the connection, without a port; the zero value when it has none.
	address netip.Addr
	// notAfter is the end of the certificate, and with it of the session: the node opens another one with a renewed
	// certificate before that.
	notAfter time.Time
	// path leads from the certificate to a root, as it was verified.
	path []*x509.Certificate
	// issuer is the authority key identifier of the certificate.
	issuer []byte
	// wake has room for one hint, so that poking never blocks and hints join.
	wake chan struct{}
	// replaced is closed by the machine's next session, ended by this one when it is over.
	replaced chan struct{}
	ended    chan struct{}

	// Owned by the handler.
	sent      resolver.Assignment // the last assignment sent; its Revision is 0 before the first
	sentTrust trust.Digest
	// believedBy is the trust bundle that the certificate of this session was last held against.
	believedBy trust.Digest
	// sentIssuer is the CA that the last settings named.
	sentIssuer []byte
	// sentDenials is what this session told, once it has.
	sentDenials trust.Digest
	toldDenials bool
	// sentGroups is what this session told of groups, once it has.
	sentGroups trust.Digest
	toldGroups bool
	// sentSecrets are the names and revisions of the secrets that this session told, once it has.
	sentSecrets string
	toldSecrets bool
}

// poke asks the session to look at its assignment again. Any goroutine.
func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Connect implements nodev1.SessionServiceServer.
func (s *Server) Connect(stream nodev1.SessionService_ConnectServer) error {
	id, leaf, address, err := s.identify(stream.Context())
	if err != nil {
		return err
	}
	u := directory.UUID(id.UUID())
	if err := s.admit(s.config.Assignments.Assignment(u), id); err != nil {
		s.config.Log.Warn("session refused", "machine", id, "address", address, "error", err)
		return err
	}
	session := &session{
		server: s, stream: stream, machine: u, name: id.DNSName(), notAfter: leaf.NotAfter, issuer: leaf.AuthorityKeyId, path: pathOf(stream.Context()),
		wake: make(chan struct{}, 1), replaced: make(chan struct{}), ended: make(chan struct{}),
	}
	if from, err := netip.ParseAddrPort(address); err == nil {
		session.address = from.Addr().Unmap().WithZone("")
	}
	defer close(session.ended)
	select {
	case <-s.draining:
		return session.stopping()
	default:
	}
	if err := session.sendSettings(0); err != nil {
		return err
	}
	messages, failed := make(chan *nodev1.ConnectRequest), make(chan error, 1)
	go session.receive(messages, failed)
	hello, err := session.awaitHello(messages, failed)
	if err != nil {
		return err
	}
	if err := s.register(session, hello, address); err != nil {
		return err
	}
	defer s.unregister(session)
	s.config.Log.Info("node connected", "machine", session.name, "version", hello.GetVersion(), "revision", hello.GetRevision())
	err = session.run(hello, messages, failed)
	s.config.Log.Info("node disconnected", "machine", session.name, "error", err)
	return err
}

// identify reads the certificate of the peer, which was verified before the call came here. A connection without one
// gets no further.
func (s *Server) identify(ctx context.Context) (id pki.Identity, leaf *x509.Certificate, address string, err error) {
	refuse := func(code codes.Code, format string, args ...any) (pki.Identity, *x509.Certificate, string, error) {
		return pki.Identity{}, nil, "", status.Errorf(code, format, args...)
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return refuse(codes.Internal, "connection without a peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return refuse(codes.Unauthenticated, "no machine certificate was presented; join the machine with a token first")
	}
	leaf = info.State.PeerCertificates[0]
	if id, err = pki.IdentityFromCertificate(leaf); err != nil {
		return refuse(codes.Unauthenticated, "%v", err)
	}
	if id.TrustDomain() != s.config.TrustDomain {
		return refuse(codes.Unauthenticated, "machine certificate is of the trust domain %q, this controller is of %q", id.TrustDomain(), s.config.TrustDomain)
	}
	return id, leaf, p.Addr.String(), nil
}

// pathOf is the path that the certificate of the peer was verified with.
func pathOf(ctx context.Context) []*x509.Certificate {
	caller, _ := revocation.Caller(ctx)
	return caller.Path
}

func (s *Server) admit(a resolver.Assignment, id pki.Identity) error {
	switch {
	case a.Standing.Admitted():
		return nil
	case a.Standing == resolver.Disabled:
		return status.Errorf(codes.PermissionDenied, "machine %v is disabled in the directory; enable its account, then it may connect", id)
	}
	return status.Errorf(codes.PermissionDenied, "machine %v is not in the directory; add its entry, or join it again if its entry was made anew", id)
}

// receive forwards what the node says until the stream is over.
func (s *session) receive(messages chan<- *nodev1.ConnectRequest, failed chan<- error) {
	for {
		m, err := s.stream.Recv()
		if err != nil {
			failed <- err
			return
		}
		select {
		case messages <- m:
		case <-s.ended:
			return
		}
	}
}

func (s *session) awaitHello(messages <-chan *nodev1.ConnectRequest, failed <-chan error) (*nodev1.Hello, error) {
	timer := time.NewTimer(s.server.config.HelloTimeout)
	defer timer.Stop()
	select {
	case m := <-messages:
		hello := m.GetHello()
		if hello == nil {
			return nil, status.Error(codes.InvalidArgument, "a session begins with a hello")
		}
		if len(hello.GetVersion()) > maxText || len(hello.GetInstance()) > maxText {
			return nil, status.Errorf(codes.InvalidArgument, "version or instance in the hello is longer than %d octets", maxText)
		}
		return hello, nil
	case err := <-failed:
		return nil, over(err)
	case <-timer.C:
		return nil, status.Errorf(codes.DeadlineExceeded, "no hello within %v", s.server.config.HelloTimeout)
	case <-s.server.draining:
		return nil, s.stopping()
	}
}

// register makes this the session of its machine and ends the one before.
func (s *Server) register(session *session, hello *nodev1.Hello, address string) error {
	now := s.config.Now()
	s.table.Lock()
	if s.table.drained {
		s.table.Unlock()
		return session.stopping()
	}
	old := s.table.sessions[session.machine]
	s.table.sessions[session.machine] = session
	s.table.Unlock()
	if old != nil {
		close(old.replaced)
		s.config.Log.Info("a second session of the machine ends the first", "machine", session.name)
	}
	s.update(session.machine, func(n *node) {
		n.record.Name, n.record.Version, n.record.LastSeen = session.name, hello.GetVersion(), now.UTC()
		n.record.Issuer, n.record.CertificateEnds = hex.EncodeToString(session.issuer[:min(len(session.issuer), maxIssuer)]), session.notAfter.UTC()
		if len(hello.GetTrustDigest()) == len(trust.Digest{}) {
			n.record.Trust = hex.EncodeToString(hello.GetTrustDigest())
		}
		n.address, n.since = address, now
		if session.address.IsValid() {
			n.record.Address = session.address
		}
	})
	return nil
}

func (s *Server) unregister(session *session) {
	s.table.Lock()
	present := s.table.sessions[session.machine] == session
	if present {
		delete(s.table.sessions, session.machine)
	}
	s.table.Unlock()
	if present {
		s.update(session.machine, func(n *node) { n.since, n.record.LastSeen = time.Time{}, s.config.Now().UTC() })
	}
}

// locateTime bounds the wait for the assignment of a machine that is at another site than before.
const locateTime = 5 * time.Second

func (s *session) run(hello *nodev1.Hello, messages <-chan *nodev1.ConnectRequest, failed <-chan error) error {
	if s.address.IsValid() {
		// A controller that cannot work out assignments now has those of before; the session is woken by new ones.
		ctx, cancel := context.WithTimeout(s.stream.Context(), locateTime)
		err := s.server.config.Assignments.Locate(ctx, s.machine, s.address)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return status.Errorf(codes.Unavailable, "the controller is not ready: %v", err)
		}
	}
	if _, err := s.server.config.Assignments.Adopt(s.stream.Context(), s.machine, hello.GetRevision(), hello.GetDigest()); err != nil {
		return status.Errorf(codes.Unavailable, "the controller is not ready: %v", err)
	}
	copy(s.sentTrust[:], hello.GetTrustDigest())
	if err := s.refresh(); err != nil {
		return err
	}
	for {
		select {
		case m := <-messages:
			if err := s.handle(m); err != nil {
				return err
			}
		case <-s.wake:
			if err := s.refresh(); err != nil {
				return err
			}
		case err := <-failed:
			return over(err)
		case <-s.replaced:
			return status.Error(codes.Aborted, "another session of this machine began; if there is no second node with a copy of its key, this is a reconnect")
		case <-s.server.draining:
			if err := s.sendSettings(s.server.reconnectAfter()); err != nil {
				return err
			}
			return s.stopping()
		}
	}
}

func (s *session) stopping() error {
	return status.Error(codes.Unavailable, "the controller is stopping, come back later")
}

// over turns the end of the stream into the handler's result.
func over(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (s *session) send(r *nodev1.ConnectResponse) error { return s.stream.Send(r) }

func (s *session) sendSettings(reconnectAfter time.Duration) error {
	settings := &nodev1.Settings{ReportInterval: durationpb.New(s.server.config.ReportInterval)}
	if reconnectAfter > 0 {
		settings.ReconnectAfter = durationpb.New(reconnectAfter)
	}
	s.nameIssuer(settings)
	return s.send(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Settings{Settings: settings}})
}

// refresh sends what the node does not have yet: the trust bundle, and its assignment if it is another than the one
// sent last. It ends the session of a machine that is no longer admitted.
func (s *session) refresh() error {
	if err := s.revoked(); err != nil {
		return err
	}
	a := s.server.config.Assignments.Assignment(s.machine)
	if !a.Standing.Admitted() {
		return status.Errorf(codes.PermissionDenied, "machine %s is %v in the directory; its session ends", s.name, a.Standing)
	}
	bundle := s.server.config.Trust()
	if bundle.Digest() != s.sentTrust {
		err := s.send(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_TrustBundle{
			TrustBundle: &nodev1.TrustBundle{Content: bundle.Append(nil)},
		}})
		if err != nil {
			return err
		}
		s.sentTrust = bundle.Digest()
	}
	// After the bundle: who is not believed any more must still learn whom not to believe.
	if err := s.believed(bundle); err != nil {
		return err
	}
	// After the bundle that the certificate which it leads to is believed by.
	if err := s.followIssuer(); err != nil {
		return err
	}
	if err := s.sendDenials(); err != nil {
		return err
	}
	// Before the policy that names them.
	if err := s.sendGroups(); err != nil {
		return err
	}
	if err := s.sendSecrets(a); err != nil {
		return err
	}
	// Revision 0: no policy could be worked out, and never was. The node keeps what it has.
	if a.Revision == 0 || a.Revision == s.sent.Revision && a.Digest == s.sent.Digest {
		return nil
	}
	err := s.send(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Assignment{Assignment: &nodev1.Assignment{
		Revision: a.Revision, Digest: a.Digest[:], Policy: a.Policy, Container: a.Container,
	}}})
	if err != nil {
		return err
	}
	s.sent = a
	return nil
}

func (s *session) handle(m *nodev1.ConnectRequest) error {
	// Nodes report every half minute or so, which is often enough to look at the clock.
	if !s.server.config.Now().Before(s.notAfter) {
		return status.Errorf(codes.Unauthenticated, "the certificate of %s expired at %s; its session ends", s.name, s.notAfter.UTC().Format(time.RFC3339))
	}
	switch m := m.GetMessage().(type) {
	case *nodev1.ConnectRequest_Want:
		return s.want(m.Want.GetDigest())
	case *nodev1.ConnectRequest_Acknowledgement:
		return s.acknowledge(m.Acknowledgement)
	case *nodev1.ConnectRequest_Report:
		return s.report(m.Report)
	case *nodev1.ConnectRequest_TrustAcknowledgement:
		return s.acknowledgeTrust(m.TrustAcknowledgement)
	case *nodev1.ConnectRequest_Hello:
		return status.Error(codes.InvalidArgument, "a session has one hello")
	}
	// A message of a newer node: it gets no answer, and nothing depends on it.
	return nil
}

// want sends the bundle of the node's own assignment. Asking for another one happens when the assignment changed
// between: the node then hears of the new one; asking for something it was never assigned gets nothing.
func (s *session) want(digest []byte) error {
	if !bytes.Equal(digest, s.sent.Digest[:]) || s.sent.Revision == 0 {
		s.server.config.Log.Debug("node wants a bundle that is not assigned to it", "machine", s.name, "assigned", s.sent.Digest.Short())
		return nil
	}
	bundle, ok := s.server.config.Assignments.Bundle(s.sent.Digest)
	if !ok {
		// Replaced a moment ago; the wake-up for the new assignment is on its way.
		s.poke()
		return nil
	}
	return s.send(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Bundle{
		Bundle: &nodev1.Bundle{Digest: bundle.Digest[:], Policy: bundle.Policy},
	}})
}

func (s *session) acknowledge(a *nodev1.Acknowledgement) error {
	if s.sent.Revision == 0 || a.GetRevision() > s.sent.Revision {
		return status.Errorf(codes.InvalidArgument, "revision %d is acknowledged, which was never sent; the last one sent is %d", a.GetRevision(), s.sent.Revision)
	}
	if len(a.GetError()) > maxError {
		return status.Errorf(codes.InvalidArgument, "error in the acknowledgement is longer than %d octets", maxError)
	}
	now, current := s.server.config.Now().UTC(), a.GetRevision() == s.sent.Revision
	if a.GetError() != "" {
		s.server.config.Log.Warn("node refused a policy and keeps the one before", "machine", s.name, "revision", a.GetRevision(), "policy", s.sent.Policy, "error", a.GetError())
		s.server.update(s.machine, func(n *node) { n.record.Error = a.GetError() })
		return nil
	}
	if current && !bytes.Equal(a.GetDigest(), s.sent.Digest[:]) {
		return status.Errorf(codes.InvalidArgument, "revision %d is acknowledged with the digest %x, it was sent with %s", a.GetRevision(), clip(a.GetDigest()), s.sent.Digest)
	}
	if current {
		sent := s.sent
		s.server.update(s.machine, func(n *node) {
			n.record.Revision, n.record.Digest = sent.Revision, sent.Digest.String()
			n.record.Policy, n.record.Container = sent.Policy, sent.Container
			n.record.Acknowledged, n.record.Error = now, ""
		})
		s.server.config.Log.Info("node has a policy in force", "machine", s.name, "policy", sent.Policy, "revision", sent.Revision, "digest", sent.Digest.Short())
	}
	// An older revision is confirmed as well: the node reached the controller under it, which is all that is asked.
	return s.send(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Confirmed{
		Confirmed: &nodev1.Confirmed{Revision: a.GetRevision()},
	}})
}

func clip(b []byte) []byte { return b[:min(len(b), len(compile.Digest{}))] }

// resolved counts the addresses of all DNS names.
func resolved(f *nodev1.Facts) (n int) {
	for _, name := range f.GetNames() {
		n += len(name.GetAddresses())
	}
	return n
}

// report keeps the latest state of the node.
func (s *session) report(r *nodev1.Report) error {
	for _, limit := range []struct {
		what    string
		n, most int
	}{
		{"associations", len(r.GetAssociations()), maxAssociations}, {"failures", len(r.GetFailures()), maxFailures},
		{"counters", len(r.GetCounters()), maxCounters}, {"notes", len(r.GetNotes()), maxNotes},
		{"own addresses", len(r.GetFacts().GetAddresses()), maxFacts}, {"DNS servers", len(r.GetFacts().GetDnsServers()), maxFacts},
		{"DHCP servers", len(r.GetFacts().GetDhcpServers()), maxFacts}, {"gateways", len(r.GetFacts().GetDefaultGateways()), maxFacts},
		{"remote access addresses", len(r.GetFacts().GetRemoteAddresses()), maxFacts},
		{"broadcast addresses", len(r.GetFacts().GetBroadcasts()), maxFacts}, {"controllers", len(r.GetFacts().GetControllers()), maxFacts},
		{"DNS names", len(r.GetFacts().GetNames()), maxFacts}, {"addresses of DNS names", resolved(r.GetFacts()), maxFacts * maxFacts},
	} {
		if limit.n > limit.most {
			return status.Error(codes.InvalidArgument, fmt.Sprintf("report has %d %s, more than %d: leave some out and say so", limit.n, limit.what, limit.most))
		}
	}
	now := s.server.config.Now()
	s.server.table.Lock()
	defer s.server.table.Unlock()
	n := s.server.table.nodes[s.machine]
	n.report, n.reported = r, now
	return nil
}
