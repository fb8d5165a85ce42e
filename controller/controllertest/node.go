package controllertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// Join is a machine that joins: every step of it can be scripted.
type Join struct {
	// Key is the machine's; Fresh makes another.
	Key *ecdsa.PrivateKey
	// Token is the text of the join token.
	Token string
	// Request is the certificate request; nil means the one for the names that the token is for.
	Request []byte

	fleet *Fleet
}

// Join prepares to join with a token and a fresh key.
func (f *Fleet) Join(token string) Join {
	f.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	return Join{Key: key, Token: token, fleet: f}
}

// enrollment connects to the enrolment service, trusting whoever shows the root that the token pins.
func (j Join) enrollment(address string) (nodev1.EnrollmentServiceClient, *grpc.ClientConn, error) {
	token, err := enroll.ParseToken(j.Token)
	if err != nil {
		return nil, nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true,
		VerifyConnection: trust.TLSVerifyPinned(token.Pin, j.fleet.nodeNow, trust.Options{Usages: []trust.Usage{trust.ServerAuth}, HostName: "127.0.0.1"}),
	})))
	if err != nil {
		return nil, nil, err
	}
	return nodev1.NewEnrollmentServiceClient(conn), conn, nil
}

// Try joins and returns the node. It may be called from any goroutine.
func (j Join) Try(ctx context.Context) (*Node, error) {
	client, conn, err := j.enrollment(j.fleet.Address())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	names, err := client.Identify(ctx, &nodev1.IdentifyRequest{Token: j.Token})
	if err != nil {
		return nil, err
	}
	request := j.Request
	if request == nil {
		if request, err = enroll.NewJoinRequest(j.Key, names.GetDnsName()); err != nil {
			return nil, err
		}
	}
	response, err := client.Enroll(ctx, &nodev1.EnrollRequest{Token: j.Token, Csr: request})
	if err != nil {
		return nil, err
	}
	return newNode(j.fleet, j.Key, response.GetChain(), response.GetTrustBundle())
}

// Submit asks without a token, in the name given. The node is nil while the request waits; the text is the request's key.
func (j Join) Submit(ctx context.Context, dnsName string) (*Node, string, error) {
	request := j.Request
	if request == nil {
		var err error
		if request, err = enroll.NewJoinRequest(j.Key, dnsName); err != nil {
			return nil, "", err
		}
	}
	conn, err := grpc.NewClient("passthrough:///"+j.fleet.Address(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, // the tests of the pin are others
	})))
	if err != nil {
		return nil, "", err
	}
	defer conn.Close()
	response, err := nodev1.NewEnrollmentServiceClient(conn).Submit(ctx, &nodev1.SubmitRequest{Csr: request})
	if err != nil || len(response.GetChain()) == 0 {
		return nil, response.GetRequest(), err
	}
	n, err := newNode(j.fleet, j.Key, response.GetChain(), response.GetTrustBundle())
	return n, response.GetRequest(), err
}

// Enrollments is the service of requests without a token over the admin socket.
func (f *Fleet) Enrollments() adminv1.EnrollmentRequestServiceClient {
	f.t.Helper()
	return adminv1.NewEnrollmentRequestServiceClient(f.Conn())
}

// Node joins a machine and fails the test when it cannot.
func (f *Fleet) Node(machine string) *Node {
	f.t.Helper()
	n, err := f.Join(f.Token(machine)).Try(f.Context())
	if err != nil {
		f.t.Fatalf("joining %s: %v", machine, err)
	}
	return n
}

// Joined is a node that joined by other means than Join.
func (f *Fleet) Joined(key *ecdsa.PrivateKey, chain [][]byte, bundle trust.Bundle) *Node {
	f.t.Helper()
	n, err := newNode(f, key, chain, bundle.Append(nil))
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

// A Node has a machine certificate and the fleet's trust bundle.
type Node struct {
	Certificate tls.Certificate
	Identity    pki.Identity
	Trust       trust.Bundle
	fleet       *Fleet
}

func newNode(f *Fleet, key *ecdsa.PrivateKey, chain [][]byte, encoded []byte) (*Node, error) {
	bundle, err := trust.ParseBundle(encoded)
	if err != nil {
		return nil, err
	}
	parsed, err := trust.ParseChain(chain)
	if err != nil {
		return nil, err
	}
	id, err := pki.IdentityFromCertificate(parsed[0])
	if err != nil {
		return nil, err
	}
	for _, usage := range []trust.Usage{trust.ClientAuth, trust.IPsecIKE} {
		if _, err := bundle.Verify(f.nodeNow(), parsed, trust.Options{Usages: []trust.Usage{usage}, IKEID: id.IKEID()}); err != nil {
			return nil, err
		}
	}
	return &Node{
		Certificate: tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: parsed[0]}, Identity: id, Trust: bundle, fleet: f,
	}, nil
}

// Dial connects with the given certificate, which need not be the node's own.
func (n *Node) Dial(certificate tls.Certificate) *grpc.ClientConn {
	n.fleet.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+n.fleet.Address(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true,
		// Whatever the server accepts: the test is about what it does with this certificate.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil },
		VerifyConnection: trust.TLSVerifyConnection(func() (trust.Bundle, trust.Options, error) {
			return n.Trust, trust.Options{Usages: []trust.Usage{trust.ServerAuth}, HostName: "127.0.0.1"}, nil
		}, n.fleet.nodeNow),
	})))
	if err != nil {
		n.fleet.t.Fatal(err)
	}
	n.fleet.t.Cleanup(func() { conn.Close() })
	return conn
}

// Renew asks for another certificate with a fresh key and the given names.
func (n *Node) Renew(names pki.Subject) (*Node, error) {
	n.fleet.t.Helper()
	return n.renew(n.fleet.Context(), names)
}

// renew is Renew for a caller with a deadline of its own.
func (n *Node) renew(ctx context.Context, names pki.Subject) (*Node, error) {
	n.fleet.t.Helper()
	j := n.fleet.Join("")
	request, err := enroll.NewRequest(j.Key, names)
	if err != nil {
		return nil, err
	}
	response, err := nodev1.NewEnrollmentServiceClient(n.Dial(n.Certificate)).Renew(ctx, &nodev1.RenewRequest{Csr: request})
	if err != nil {
		return nil, err
	}
	return newNode(n.fleet, j.Key, response.GetChain(), response.GetTrustBundle())
}

// A Session is a scripted node's stream. One goroutine receives into a queue; the test takes from it.
type Session struct {
	stream   nodev1.SessionService_ConnectClient
	messages chan *nodev1.ConnectResponse
	failed   chan error
	t        testing.TB
	cancel   context.CancelFunc

	// Assigned is the latest assignment seen, Settings the latest settings.
	Assigned *nodev1.Assignment
	Settings *nodev1.Settings
}

// Connect opens a session and says hello.
func (n *Node) Connect(hello *nodev1.Hello) *Session {
	n.fleet.t.Helper()
	s := n.Open(n.Certificate)
	s.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Hello{Hello: hello}})
	return s
}

// Open opens a stream with a certificate and says nothing.
func (n *Node) Open(certificate tls.Certificate) *Session {
	n.fleet.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n.fleet.t.Cleanup(cancel)
	stream, err := nodev1.NewSessionServiceClient(n.Dial(certificate)).Connect(ctx)
	s := &Session{stream: stream, messages: make(chan *nodev1.ConnectResponse, 64), failed: make(chan error, 1), t: n.fleet.t, cancel: cancel}
	if err != nil {
		s.failed <- err
		return s
	}
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				s.failed <- err
				return
			}
			s.messages <- m
		}
	}()
	return s
}

// Close ends the session from the node's side.
func (s *Session) Close() { s.cancel() }

// Send says something; a stream that is over is found out by the next wait.
func (s *Session) Send(m *nodev1.ConnectRequest) {
	if s.stream != nil {
		_ = s.stream.Send(m)
	}
}

// next takes the next message, or the error that ended the stream.
func (s *Session) next() (*nodev1.ConnectResponse, error) {
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case m := <-s.messages:
		return m, nil
	default:
	}
	select {
	case m := <-s.messages:
		return m, nil
	case err := <-s.failed:
		// What arrived before the end comes first.
		select {
		case m := <-s.messages:
			s.failed <- err
			return m, nil
		default:
		}
		s.failed <- err
		return nil, err
	case <-timer.C:
		return nil, errors.New("nothing arrived in time")
	}
}

// WantAssignment waits for an assignment of the policy, and returns it.
func (s *Session) WantAssignment(policy string) *nodev1.Assignment {
	s.t.Helper()
	for {
		m, err := s.next()
		if err != nil {
			s.t.Fatalf("waiting for policy %q: %v", policy, err)
		}
		s.note(m)
		if a := m.GetAssignment(); a != nil && a.GetPolicy() == policy {
			return a
		} else if a != nil {
			s.t.Fatalf("assigned is %q at %q, wanted %q", a.GetPolicy(), a.GetContainer(), policy)
		}
	}
}

func (s *Session) note(m *nodev1.ConnectResponse) {
	if a := m.GetAssignment(); a != nil {
		s.Assigned = a
	}
	if x := m.GetSettings(); x != nil {
		s.Settings = x
	}
}

// WantBundle asks for the bundle of an assignment and opens it.
func (s *Session) WantBundle(a *nodev1.Assignment) spd.Policy {
	s.t.Helper()
	s.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Want{Want: &nodev1.Want{Digest: a.GetDigest()}}})
	for {
		m, err := s.next()
		if err != nil {
			s.t.Fatalf("waiting for the bundle of %q: %v", a.GetPolicy(), err)
		}
		s.note(m)
		if b := m.GetBundle(); b != nil {
			p, err := compile.Open(b.GetPolicy(), compile.Digest(a.GetDigest()))
			if err != nil {
				s.t.Fatal(err)
			}
			return p
		}
	}
}

// Acknowledge says that an assignment is in force and waits for the confirmation.
func (s *Session) Acknowledge(a *nodev1.Assignment) {
	s.t.Helper()
	s.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Acknowledgement{
		Acknowledgement: &nodev1.Acknowledgement{Revision: a.GetRevision(), Digest: a.GetDigest()},
	}})
	for {
		m, err := s.next()
		if err != nil {
			s.t.Fatalf("waiting for the confirmation of revision %d: %v", a.GetRevision(), err)
		}
		s.note(m)
		if c := m.GetConfirmed(); c != nil {
			if c.GetRevision() != a.GetRevision() {
				s.t.Fatalf("confirmed is revision %d, wanted %d", c.GetRevision(), a.GetRevision())
			}
			return
		}
	}
}

// WantEnd waits for the end of the session and returns why it ended.
func (s *Session) WantEnd() error {
	s.t.Helper()
	for {
		m, err := s.next()
		if err != nil {
			return err
		}
		s.note(m)
	}
}

// AcceptAssignment waits for an assignment, whichever it is, fetches its bundle and puts it into force.
func (s *Session) AcceptAssignment() *nodev1.Assignment {
	s.t.Helper()
	for s.Assigned == nil {
		m, err := s.next()
		if err != nil {
			s.t.Fatalf("waiting for an assignment: %v", err)
		}
		s.note(m)
	}
	a := s.Assigned
	s.WantBundle(a)
	s.Acknowledge(a)
	return a
}
