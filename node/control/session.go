package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// Event is something that the session brings. The set is closed.
type Event interface{ event() }

// Connected says that the controller admitted the node; the agent answers with Client.Send of a Hello.
type Connected struct{ Controller string }

// Disconnected says that the session ended, or that none came about.
type Disconnected struct {
	Err   error
	Retry time.Duration
}

// Resolved tells the addresses of the controller, before the connection is tried: they must stay reachable.
type Resolved struct{ Addresses []netip.AddrPort }

// Message is what the controller said.
type Message struct{ Response *nodev1.ConnectResponse }

func (Connected) event()    {}
func (Disconnected) event() {}
func (Resolved) event()     {}
func (Message) event()      {}

// Config configures a Client.
type Config struct {
	// Credentials gives the present credentials; it is called for every connection.
	Credentials func() identity.Credentials
	// Denials are whom not to believe, a controller among them; nil knows of nobody.
	Denials func() trust.Denials
	// Mark is the socket mark that the node's own rules let pass; 0 for none.
	Mark   int
	Now    func() time.Time
	Logger hclog.Logger
	// MinBackoff and MaxBackoff bound the wait between attempts; 0 means 500 ms and 60 s. The wait is drawn from the
	// upper half of a range that doubles, so that a fleet does not come back as one.
	MinBackoff, MaxBackoff time.Duration
	// AnswerTimeout bounds the wait for the controller's first message; 0 means 20 s.
	AnswerTimeout time.Duration
}

// Client keeps one session with a controller open. Run owns it; Send and Renew may be called from anywhere.
type Client struct {
	config Config
	events chan Event
	out    chan *nodev1.ConnectRequest
	conn   atomic.Pointer[grpc.ClientConn]
}

// New makes a Client.
func New(config Config) *Client {
	if config.MinBackoff == 0 {
		config.MinBackoff = 500 * time.Millisecond
	}
	if config.MaxBackoff == 0 {
		config.MaxBackoff = time.Minute
	}
	if config.AnswerTimeout == 0 {
		config.AnswerTimeout = 20 * time.Second
	}
	return &Client{config: config, events: make(chan Event, 16), out: make(chan *nodev1.ConnectRequest, 16)}
}

// Events delivers what the session brings, in order. It is closed when Run ends.
func (c *Client) Events() <-chan Event { return c.events }

// Send queues a message for the session. False means that the queue is full or no session is open: whoever sends state
// sends it again after the next Connected.
func (c *Client) Send(m *nodev1.ConnectRequest) bool {
	if c.conn.Load() == nil {
		return false
	}
	select {
	case c.out <- m:
		return true
	default:
		return false
	}
}

// Renew asks for a new certificate over the open connection (identity.Issuer). With a certificate that has ended there is
// no session, so it connects for this alone: within a grace the controller still renews it.
func (c *Client) Renew(ctx context.Context, request []byte) (identity.Issued, error) {
	if conn := c.conn.Load(); conn != nil {
		return renew(ctx, conn, request)
	}
	credentials := c.config.Credentials()
	if len(credentials.Chain) == 0 || !c.config.Now().After(credentials.Leaf().NotAfter) {
		return identity.Issued{}, ErrUnreachable
	}
	failure := ErrUnreachable
	for _, address := range credentials.Controllers {
		// Which addresses the controller has is told by the attempts to open a session.
		conn, err := c.dial(address, nil)
		if err != nil {
			failure = err
			continue
		}
		got, err := renew(ctx, conn, request)
		conn.Close()
		if err == nil {
			return got, nil
		}
		failure = err
	}
	return identity.Issued{}, failure
}

func renew(ctx context.Context, conn *grpc.ClientConn, request []byte) (identity.Issued, error) {
	answer, err := nodev1.NewEnrollmentServiceClient(conn).Renew(ctx, &nodev1.RenewRequest{Csr: request})
	if err != nil {
		return identity.Issued{}, explain("renew the machine certificate", err)
	}
	return issued(answer.GetChain(), answer.GetTrustBundle())
}

// Run keeps the session open until ctx ends: it tries the controllers in turn, waiting longer after each failure.
func (c *Client) Run(ctx context.Context) error {
	defer close(c.events)
	backoff := c.config.MinBackoff
	for attempt := 0; ctx.Err() == nil; attempt++ {
		controllers := c.config.Credentials().Controllers
		if len(controllers) == 0 {
			return errors.New("no controller address is configured")
		}
		address := controllers[attempt%len(controllers)]
		lived, hint, err := c.session(ctx, address)
		if ctx.Err() != nil {
			return nil
		}
		if lived {
			backoff = c.config.MinBackoff
		}
		wait := max(backoff/2+rand.N(backoff/2+1), hint)
		backoff = min(backoff*2, c.config.MaxBackoff)
		c.config.Logger.Warn("no session with the controller, the policy in force stays", "controller", address, "retry", wait.Round(time.Millisecond), "error", err)
		if !c.deliver(ctx, Disconnected{Err: err, Retry: wait}) {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
	return nil
}

func (c *Client) deliver(ctx context.Context, e Event) bool {
	select {
	case c.events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// longLived is how long a session stands before its end is no longer taken for a refusal.
const longLived = 10 * time.Second

// session runs one session to its end. lived says that it was open for a while, so that the next attempt need not wait
// long; hint is the least wait that the controller asked for.
func (c *Client) session(ctx context.Context, address string) (lived bool, hint time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	conn, err := c.dial(address, func(addrs []netip.AddrPort) { c.deliver(ctx, Resolved{addrs}) })
	if err != nil {
		cancel()
		return false, 0, err
	}
	defer conn.Close()
	stream, err := nodev1.NewSessionServiceClient(conn).Connect(ctx)
	if err != nil {
		cancel()
		return false, 0, explain("open a session with "+address, err)
	}
	received, failed, done := make(chan *nodev1.ConnectResponse), make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		receive(ctx, stream, received, failed)
	}()
	defer func() { cancel(); <-done }()

	// That there is a stream says nothing yet: it exists before the controller has looked at who opens it.
	first, err := c.answer(ctx, received, failed)
	if err != nil {
		return false, 0, explain("open a session with "+address, err)
	}
	c.drain()
	c.conn.Store(conn)
	defer c.conn.Store(nil)
	start := c.config.Now()
	c.config.Logger.Info("session with the controller is open", "controller", address)
	if !c.deliver(ctx, Connected{address}) {
		return false, 0, ctx.Err()
	}
	take := func(response *nodev1.ConnectResponse) bool {
		if s := response.GetSettings(); s != nil {
			hint = s.GetReconnectAfter().AsDuration()
		}
		return c.deliver(ctx, Message{response})
	}
	ended := func(err error) (bool, time.Duration, error) {
		return c.config.Now().Sub(start) > longLived, hint, explain("session with "+address, err)
	}
	if !take(first) {
		return false, hint, ctx.Err()
	}
	outgoing := c.out
	for {
		select {
		case <-ctx.Done():
			return true, hint, ctx.Err()
		case err := <-failed:
			return ended(err)
		case response := <-received:
			if !take(response) {
				return true, hint, ctx.Err()
			}
		case m := <-outgoing:
			if err := stream.Send(m); err != nil {
				if !errors.Is(err, io.EOF) {
					return ended(err)
				}
				outgoing = nil // the stream is over, and the receiver gets the reason
			}
		}
	}
}

// receive forwards what the controller says until the stream is over, then tells why.
func receive(ctx context.Context, stream nodev1.SessionService_ConnectClient, received chan<- *nodev1.ConnectResponse, failed chan<- error) {
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			err = errors.New("controller ended the session")
		}
		if err != nil {
			failed <- err
			return
		}
		select {
		case received <- response:
		case <-ctx.Done():
			failed <- ctx.Err()
			return
		}
	}
}

// answer waits for the controller's first message. Until it is there, the controller may still refuse.
func (c *Client) answer(ctx context.Context, received <-chan *nodev1.ConnectResponse, failed <-chan error) (*nodev1.ConnectResponse, error) {
	timer := time.NewTimer(c.config.AnswerTimeout)
	defer timer.Stop()
	select {
	case response := <-received:
		return response, nil
	case err := <-failed:
		return nil, err
	case <-timer.C:
		return nil, fmt.Errorf("%w: connected, but no answer within %v", ErrUnreachable, c.config.AnswerTimeout)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// drain forgets messages that were queued for an earlier session.
func (c *Client) drain() {
	for {
		select {
		case <-c.out:
		default:
			return
		}
	}
}

func (c *Client) dial(address string, resolved func([]netip.AddrPort)) (*grpc.ClientConn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	credentials := c.config.Credentials()
	n := network{mark: c.config.Mark, resolved: resolved}
	return n.client(address, &tls.Config{
		ServerName: host,
		// The fleet's trust bundle decides, not the system's roots (trust.TLSVerifyConnection).
		InsecureSkipVerify: true,
		VerifyConnection: controllerOnly(trust.TLSVerifyConnection(func() (trust.Bundle, trust.Options, error) {
			o := trust.Options{Usages: []trust.Usage{trust.ServerAuth}, HostName: host}
			if c.config.Denials != nil {
				o.Denied = c.config.Denials()
			}
			return c.config.Credentials().Trust, o, nil
		}, c.config.Now)),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certificate := credentials.TLS()
			return &certificate, nil
		},
	})
}
