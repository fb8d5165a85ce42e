package guest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/lab/guest/agentapi"
)

// newClient speaks HTTP/2 over the one connection that there is.
func newClient(conn net.Conn) *http.Client {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	var mu sync.Mutex
	return &http.Client{Transport: &http.Transport{
		Protocols: &protocols, DisableCompression: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if conn == nil {
				return nil, errors.New("the serial port of the guest is closed")
			}
			c := conn
			conn = nil
			return c, nil
		},
	}}
}

// post sends a request and returns the answer, whose body the caller closes.
func (g *Guest) post(ctx context.Context, path string, query url.Values, body io.Reader) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "guest", Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), body)
	if err != nil {
		return nil, err
	}
	response, err := g.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the guest to %s: %w", strings.TrimPrefix(path, "/"), err)
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		said, err := io.ReadAll(response.Body)
		return nil, fmt.Errorf("ask the guest to %s %s: %w", strings.TrimPrefix(path, "/"), query.Encode(), errors.Join(errors.New(strings.TrimSpace(string(said))), err))
	}
	return response, nil
}

// call is post for an answer that is read whole.
func (g *Guest) call(ctx context.Context, path string, query url.Values, body []byte) ([]byte, error) {
	response, err := g.post(ctx, path, query, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(response.Body)
}

// Run runs a command in the guest and returns its standard output.
func (g *Guest) Run(command ...string) (string, error) {
	return g.RunContext(context.Background(), command...)
}

// RunContext is Run with a bound on its time.
func (g *Guest) RunContext(ctx context.Context, command ...string) (string, error) {
	request, err := json.Marshal(agentapi.Command{Args: command})
	if err != nil {
		return "", err
	}
	answer, err := g.call(ctx, agentapi.PathRun, nil, request)
	if err != nil {
		return "", err
	}
	var result agentapi.Result
	if err := json.Unmarshal(answer, &result); err != nil {
		return "", err
	}
	return result.Output, failure(command, result)
}

func failure(command []string, result agentapi.Result) error {
	if result.Code == 0 {
		return nil
	}
	return fmt.Errorf("%s, in the guest: exit code %d: %s", strings.Join(command, " "), result.Code, strings.TrimSpace(result.Stderr))
}

// Process is a process in a guest.
type Process struct {
	guest *Guest
	pid   int
	done  chan struct{}
	err   error // valid when done is closed
}

// Start starts a command in the guest with further settings of its environment.
func (g *Guest) Start(env []string, command ...string) (*Process, error) {
	request, err := json.Marshal(agentapi.Command{Args: command, Env: env})
	if err != nil {
		return nil, err
	}
	//nolint:bodyclose // read, and closed, until the process ends
	response, err := g.post(context.Background(), agentapi.PathStart, nil, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	in := bufio.NewReader(response.Body)
	line, err := in.ReadString('\n')
	if err == nil {
		line = strings.TrimSpace(line)
	}
	p := &Process{guest: g, done: make(chan struct{})}
	if p.pid, err = strconv.Atoi(line); err != nil {
		_ = response.Body.Close()
		return nil, fmt.Errorf("start %s in the guest: process ID %q: %w", command[0], line, err)
	}
	go func() {
		defer close(p.done)
		defer response.Body.Close()
		var result agentapi.Result
		if p.err = json.NewDecoder(in).Decode(&result); p.err == nil {
			p.err = failure(command, result)
		}
	}()
	return p, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits until the process has ended.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Kill ends the process at once and waits for it.
func (p *Process) Kill() error {
	err := p.signal(unix.SIGKILL)
	if err == nil {
		<-p.done
	}
	return err
}

// Stop asks the process to end, and kills it after grace.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.signal(unix.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(grace):
		return p.Kill()
	}
}

func (p *Process) signal(s syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	query := url.Values{"pid": {strconv.Itoa(p.pid)}, "signal": {strconv.Itoa(int(s))}}
	_, err := p.guest.call(context.Background(), agentapi.PathSignal, query, nil)
	return err
}

// WriteFile writes a file of the guest, for root alone, and makes its directory.
func (g *Guest) WriteFile(ctx context.Context, path string, content []byte) error {
	_, err := g.call(ctx, agentapi.PathWrite, url.Values{"path": {path}}, content)
	return err
}

// ReadFile reads a file of the guest.
func (g *Guest) ReadFile(ctx context.Context, path string) ([]byte, error) {
	return g.call(ctx, agentapi.PathRead, url.Values{"path": {path}}, nil)
}

// ServeEcho answers every TCP connection to the port, on any address of the guest, with what it sends.
func (g *Guest) ServeEcho(ctx context.Context, port uint16) error {
	_, err := g.call(ctx, agentapi.PathEcho, url.Values{"port": {strconv.Itoa(int(port))}}, nil)
	return err
}

// DialContext connects from within the guest. The connection ends with the context.
func (g *Guest) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	in, out := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	//nolint:bodyclose // the stream closes it
	response, err := g.post(ctx, agentapi.PathDial, url.Values{"network": {network}, "address": {address}}, in)
	if err != nil {
		cancel()
		_ = out.Close()
		return nil, err
	}
	return newStream(response.Body, out, cancel), nil
}

// stream is a connection made of the two bodies of a request. Its deadlines end it.
type stream struct {
	in     io.ReadCloser
	out    *io.PipeWriter
	cancel context.CancelFunc
	mu     struct {
		sync.Mutex
		timer   *time.Timer
		expired bool
	}
}

func newStream(in io.ReadCloser, out *io.PipeWriter, cancel context.CancelFunc) *stream {
	return &stream{in: in, out: out, cancel: cancel}
}

// Read reads what the guest's end gets.
func (s *stream) Read(b []byte) (int, error) {
	n, err := s.in.Read(b)
	return n, s.explain(err)
}

// Write writes what the guest's end sends.
func (s *stream) Write(b []byte) (int, error) {
	n, err := s.out.Write(b)
	return n, s.explain(err)
}

func (s *stream) explain(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.mu.expired {
		return os.ErrDeadlineExceeded
	}
	return err
}

// Close ends the connection.
func (s *stream) Close() error {
	s.mu.Lock()
	if s.mu.timer != nil {
		s.mu.timer.Stop()
	}
	s.mu.Unlock()
	err := errors.Join(s.out.Close(), s.in.Close())
	s.cancel()
	return err
}

// SetDeadline ends the connection at a time, for good: a later deadline does not bring it back.
func (s *stream) SetDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.timer != nil {
		s.mu.timer.Stop()
		s.mu.timer = nil
	}
	if !t.IsZero() {
		s.mu.timer = time.AfterFunc(time.Until(t), func() {
			s.mu.Lock()
			s.mu.expired = true
			s.mu.Unlock()
			s.cancel()
			_ = s.out.CloseWithError(os.ErrDeadlineExceeded)
		})
	}
	return nil
}

// SetReadDeadline is SetDeadline.
func (s *stream) SetReadDeadline(t time.Time) error { return s.SetDeadline(t) }

// SetWriteDeadline is SetDeadline.
func (s *stream) SetWriteDeadline(t time.Time) error { return s.SetDeadline(t) }

// LocalAddr names the serial port.
func (s *stream) LocalAddr() net.Addr { return agentapi.Port{}.LocalAddr() }

// RemoteAddr names the serial port.
func (s *stream) RemoteAddr() net.Addr { return agentapi.Port{}.RemoteAddr() }
