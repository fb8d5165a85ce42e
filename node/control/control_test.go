package control

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// desk is a scripted controller.
type desk struct {
	nodev1.UnimplementedEnrollmentServiceServer
	nodev1.UnimplementedSessionServiceServer
	ca       *catest.CA
	enroll   func(*nodev1.EnrollRequest) (*nodev1.EnrollResponse, error)
	sessions chan grpc.BidiStreamingServer[nodev1.ConnectRequest, nodev1.ConnectResponse]
	end      chan struct{}
	// refuse, when set, is what the desk says to whoever opens a session, before anything else.
	refuse error
	// mute desks accept a session and say nothing.
	mute bool
}

func (d *desk) Enroll(_ context.Context, r *nodev1.EnrollRequest) (*nodev1.EnrollResponse, error) {
	return d.enroll(r)
}

func (d *desk) Connect(stream grpc.BidiStreamingServer[nodev1.ConnectRequest, nodev1.ConnectResponse]) error {
	if d.refuse != nil {
		return d.refuse
	}
	if !d.mute {
		if err := stream.Send(settings(time.Minute)); err != nil {
			return err
		}
		d.sessions <- stream
	}
	select {
	case <-d.end:
		return nil
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// settings is the greeting of a controller; the report interval tells one from another.
func settings(interval time.Duration) *nodev1.ConnectResponse {
	return &nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Settings{Settings: &nodev1.Settings{ReportInterval: durationpb.New(interval)}}}
}

// open serves the desk on loopback with the certificate and returns its address and how to stop it.
func (d *desk) open(t *testing.T, address string, certificate tls.Certificate) (string, func()) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13,
	})))
	nodev1.RegisterEnrollmentServiceServer(server, d)
	nodev1.RegisterSessionServiceServer(server, d)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	stop := func() { server.Stop(); <-served }
	t.Cleanup(stop)
	return listener.Addr().String(), stop
}

func newDesk(t *testing.T) *desk {
	return &desk{ca: catest.New(t), sessions: make(chan grpc.BidiStreamingServer[nodev1.ConnectRequest, nodev1.ConnectResponse], 1), end: make(chan struct{})}
}

func (d *desk) certificate(t *testing.T) tls.Certificate {
	return d.ca.Controller(t, []string{"controller.bank.example"}, netip.MustParseAddr("127.0.0.1"))
}

func member(t *testing.T, ca *catest.CA, controllers ...string) identity.Credentials {
	t.Helper()
	id := catest.Identity(t, "sql1.bank.example")
	machine := ca.Machine(t, id)
	chain, err := trust.ParseChain(machine.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	return identity.Credentials{Identity: id, Key: machine.PrivateKey.(crypto.Signer), Chain: chain, Trust: ca.Bundle(), Controllers: controllers}
}

// run starts a client and gives its events one by one.
func run(t *testing.T, c identity.Credentials, now func() time.Time) (*Client, func() Event) {
	t.Helper()
	return runWith(t, Config{Credentials: func() identity.Credentials { return c }, Now: now, Logger: hclog.NewNullLogger(),
		MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond})
}

func runWith(t *testing.T, config Config) (*Client, func() Event) {
	t.Helper()
	client := New(config)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range client.Events() { // Run must be able to deliver what it is at
		}
		if err := <-done; err != nil {
			t.Errorf("run ended with %v", err)
		}
	})
	return client, func() Event {
		t.Helper()
		for {
			select {
			case e := <-client.Events():
				if _, ok := e.(Resolved); !ok {
					return e
				}
			case <-time.After(20 * time.Second):
				t.Fatal("no event within 20 s")
			}
		}
	}
}

func TestSessionCarriesMessagesAndComesBack(t *testing.T) {
	d := newDesk(t)
	certificate := d.certificate(t)
	address, stop := d.open(t, "127.0.0.1:0", certificate)
	client, next := run(t, member(t, d.ca, address), time.Now)
	if e, ok := next().(Connected); !ok || e.Controller != address {
		t.Fatalf("first event %#v, want Connected to %s", e, address)
	}
	if m, ok := next().(Message); !ok || m.Response.GetSettings().GetReportInterval().AsDuration() != time.Minute {
		t.Fatalf("event %#v, want the settings that opened the session", m)
	}
	if !client.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Hello{Hello: &nodev1.Hello{Version: "v"}}}) {
		t.Fatal("the open session takes no message")
	}
	stream := <-d.sessions
	hello, err := stream.Recv()
	if err != nil || hello.GetHello().GetVersion() != "v" {
		t.Fatalf("controller received %v, %v; want the hello", hello, err)
	}
	if err := stream.Send(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Confirmed{Confirmed: &nodev1.Confirmed{Revision: 9}}}); err != nil {
		t.Fatal(err)
	}
	if m, ok := next().(Message); !ok || m.Response.GetConfirmed().GetRevision() != 9 {
		t.Fatalf("event %#v, want the confirmation", m)
	}

	stop()
	if e, ok := next().(Disconnected); !ok || e.Err == nil {
		t.Fatalf("event %#v, want Disconnected with a reason", e)
	}
	again := newDesk(t)
	again.ca = d.ca
	again.open(t, address, certificate)
	for {
		e := next()
		if _, ok := e.(Connected); ok {
			break
		}
		if _, ok := e.(Disconnected); !ok {
			t.Fatalf("event %#v while the controller was away, want Disconnected", e)
		}
	}
}

// A stream exists before the controller has looked at the caller: the node must not take it for a session, and must not
// come back ever faster.
func TestRefusedSessionNeverLooksConnected(t *testing.T) {
	for _, code := range []codes.Code{codes.Unauthenticated, codes.PermissionDenied} {
		t.Run(code.String(), func(t *testing.T) {
			d := newDesk(t)
			d.refuse = status.Error(code, "certificate is of another fleet")
			address, _ := d.open(t, "127.0.0.1:0", d.certificate(t))
			client, next := run(t, member(t, d.ca, address), time.Now)
			// The client of run waits 1 ms at first and 10 ms at most.
			for i, ms := range []int{1, 2, 4, 8, 10, 10} {
				most := time.Duration(ms) * time.Millisecond
				e, ok := next().(Disconnected)
				if !ok || !errors.Is(e.Err, ErrRefused) || !strings.Contains(e.Err.Error(), "another fleet") {
					t.Fatalf("event %d is %#v, want Disconnected with the controller's words", i, e)
				}
				if e.Retry < most/2 || e.Retry > most {
					t.Errorf("wait %d is %v, want %v to %v", i, e.Retry, most/2, most)
				}
				if client.Send(&nodev1.ConnectRequest{}) {
					t.Errorf("after refusal %d the client takes a message", i)
				}
			}
		})
	}
}

func TestSilentControllerIsNoSession(t *testing.T) {
	d := newDesk(t)
	d.mute = true
	address, _ := d.open(t, "127.0.0.1:0", d.certificate(t))
	c := member(t, d.ca, address)
	_, next := runWith(t, Config{Credentials: func() identity.Credentials { return c }, Now: time.Now, Logger: hclog.NewNullLogger(),
		MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond, AnswerTimeout: 50 * time.Millisecond})
	for range 2 {
		if e, ok := next().(Disconnected); !ok || !errors.Is(e.Err, ErrUnreachable) {
			t.Fatalf("event %#v, want Disconnected because the controller says nothing", e)
		}
	}
}

// A controller that ends the session while the node sends tells the node why.
func TestReasonOfTheEndReachesASendingNode(t *testing.T) {
	d := newDesk(t)
	address, _ := d.open(t, "127.0.0.1:0", d.certificate(t))
	client, next := run(t, member(t, d.ca, address), time.Now)
	if e, ok := next().(Connected); !ok {
		t.Fatalf("event %#v, want Connected", e)
	}
	<-d.sessions
	close(d.end)
	for {
		client.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Report{Report: &nodev1.Report{}}})
		switch e := next().(type) {
		case Message:
		case Disconnected:
			if !strings.Contains(e.Err.Error(), "controller ended the session") {
				t.Errorf("session ended with %v, want that the controller ended it", e.Err)
			}
			return
		default:
			t.Fatalf("event %#v, want the end of the session", e)
		}
	}
}

func TestSessionRefusesWhoIsNotTheController(t *testing.T) {
	fleet, foreign := newDesk(t), newDesk(t)
	tests := []struct {
		name        string
		certificate tls.Certificate
		now         func() time.Time
		want        string
	}{
		{"foreign fleet", foreign.certificate(t), time.Now, "issue"},
		{"a machine of the fleet", fleet.ca.Machine(t, catest.Identity(t, "ws1.bank.example")), time.Now, ""},
		{"other name", fleet.ca.Controller(t, []string{"elsewhere.bank.example"}), time.Now, "127.0.0.1"},
		{"clock a year ahead", fleet.certificate(t), func() time.Time { return time.Now().AddDate(1, 0, 0) }, "clock"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			address, _ := newDesk(t).open(t, "127.0.0.1:0", tt.certificate)
			_, next := run(t, member(t, fleet.ca, address), tt.now)
			e, ok := next().(Disconnected)
			if !ok || !errors.Is(e.Err, ErrUnreachable) || !strings.Contains(e.Err.Error(), tt.want) {
				t.Errorf("event %T %v, want Disconnected for a reason that names %q", e, e.Err, tt.want)
			}
		})
	}
}

func TestEnrollmentPinsTheRootAndSaysWhatTheControllerSaid(t *testing.T) {
	d := newDesk(t)
	address, _ := d.open(t, "127.0.0.1:0", d.certificate(t))
	token := enroll.NewToken([enroll.EntropySize]byte{1}, d.ca.Pin())
	e, err := NewEnrollment(address, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	d.enroll = func(r *nodev1.EnrollRequest) (*nodev1.EnrollResponse, error) {
		if r.GetToken() != token.Text() || r.GetHostname() != "sql1" {
			t.Errorf("controller received token %t and name %q", r.GetToken() == token.Text(), r.GetHostname())
		}
		return nil, status.Error(codes.PermissionDenied, "join token was used before")
	}
	_, err = e.Enroll(t.Context(), token, []byte("csr"), "sql1")
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "used before") {
		t.Errorf("used token: %v, want ErrRefused with the controller's words", err)
	}
	foreign := enroll.NewToken([enroll.EntropySize]byte{1}, catest.New(t).Pin())
	if _, err := e.Enroll(t.Context(), foreign, []byte("csr"), "sql1"); err == nil || !strings.Contains(err.Error(), "not the controller that made the token") {
		t.Errorf("token of another fleet: %v, want an error that says so", err)
	}
	if _, err := NewEnrollment("controller", time.Now); err == nil || !strings.Contains(err.Error(), "host:port") {
		t.Errorf("address without port: %v, want an error that says how to write it", err)
	}
}

func TestUnreachableControllerIsSaid(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	_, next := run(t, member(t, catest.New(t), address), time.Now)
	for range 3 {
		if e, ok := next().(Disconnected); !ok || !errors.Is(e.Err, ErrUnreachable) {
			t.Fatalf("event %#v, want Disconnected because nobody answers", e)
		}
	}
}
