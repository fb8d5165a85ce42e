package ldap

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/e2e/lab/slapd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that must happen.
const patience = 20 * time.Second

var base = directory.MustParseDN("dc=bank,dc=example")

// lab is a running slapd with the Bank in it.
type lab struct {
	*testing.T
	*slapd.Server
}

func start(t *testing.T, o slapd.Options) *lab {
	t.Helper()
	return &lab{t, slapd.ForTest(t, o)}
}

func startBank(t *testing.T) *lab {
	t.Helper()
	l := start(t, slapd.Options{})
	l.loadBank()
	return l
}

func (l *lab) loadBank() {
	l.Helper()
	bank, err := os.ReadFile("../../e2e/bank/bank.ldif")
	if err != nil {
		l.Fatal(err)
	}
	if err := l.Load(l.Context(), bank); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) modify(ldif string) {
	l.Helper()
	if err := l.Modify(l.Context(), ldif); err != nil {
		l.Fatal(err)
	}
}

func moveMachine(name, from, to string) string {
	return "dn: cn=" + name + ",OU=" + from + ",dc=bank,dc=example\nchangetype: modrdn\nnewrdn: cn=" + name +
		"\ndeleteoldrdn: 1\nnewsuperior: OU=" + to + ",dc=bank,dc=example\n"
}

// config is LDAPS with a simple bind.
func (l *lab) config(edit ...func(*Config)) Config {
	c := Config{
		URL: l.LDAPS, Base: base, CAFile: l.CAFile, Bind: Simple{DN: l.RootDN, PasswordFile: l.PasswordFile},
		Interval: 100 * time.Millisecond, Timeout: 5 * time.Second, DoubtTime: -1,
	}
	for _, e := range edit {
		e(&c)
	}
	return c
}

// clear is plain LDAP through a proxy, whose bytes can be counted.
func (l *lab) clear(p *proxy, edit ...func(*Config)) Config {
	return l.config(append([]func(*Config){func(c *Config) {
		c.URL, c.CAFile, c.AllowClear, c.PageSize = "ldap://"+p.address(), "", true, 3
	}}, edit...)...)
}

// readOnce connects and reads as a first poll does.
func readOnce(t *testing.T, c Config) (*directory.Snapshot, error) {
	t.Helper()
	target, err := c.target()
	if err != nil {
		t.Fatal(err)
	}
	s, done, err := target.open(t.Context())
	if err != nil {
		return nil, err
	}
	defer done()
	snap, _, err := s.readStable(false, directory.Digest{})
	return snap, err
}

func wantBank(t *testing.T, s *directory.Snapshot, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if c, m, g := s.Len(); c != 5 || m != 7 || g != 2 || len(s.Problems()) > 0 {
		t.Fatalf("the Bank has %d containers, %d machines, %d groups, problems %v; want 5, 7, 2 and none", c, m, g, s.Problems())
	}
}

// source opens a source and closes it with the test.
type source struct {
	*testing.T
	*Source
}

func (l *lab) open(c Config) source {
	l.Helper()
	s, err := Open(c)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { s.Close() })
	return source{l.T, s}
}

func (s source) wantSnapshot() *directory.Snapshot {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	snap, err := s.Next(ctx)
	if err != nil {
		s.Fatalf("Next: %v; want a snapshot", err)
	}
	return snap
}

func (s source) wantError(kind error) error {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	snap, err := s.Next(ctx)
	if snap != nil || !errors.Is(err, kind) {
		s.Fatalf("Next = %v, %v; want %v", snap, err, kind)
	}
	return err
}

// A proxy passes TCP on. What the server sends over all connections together is counted; the hook runs once, when the
// count reaches its position, before the byte there is passed on, and may cut the connections.
type proxy struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu struct {
		sync.Mutex
		target string
		sent   int
		at     int
		hook   func()
		conns  []net.Conn
	}
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l}
	p.mu.target = u.Host
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// arm starts counting anew and sets the hook; a nil hook cuts.
func (p *proxy) arm(at int, hook func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if hook == nil {
		hook = p.cut
	}
	p.mu.sent, p.mu.at, p.mu.hook = 0, at, hook
}

func (p *proxy) sent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.sent
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.mu.conns {
		c.Close()
	}
	p.mu.conns = nil
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target := p.mu.target
		p.mu.Unlock()
		server, err := net.Dial("tcp", target)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.mu.conns = append(p.mu.conns, client, server)
		p.mu.Unlock()
		p.wg.Go(func() {
			defer server.Close()
			_, _ = io.Copy(server, client)
		})
		p.wg.Go(func() {
			defer client.Close()
			p.pass(client, server)
		})
	}
}

func (p *proxy) pass(client, server net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		b := buf[:n]
		p.mu.Lock()
		var hook func()
		before := n
		if p.mu.hook != nil && p.mu.sent+n >= p.mu.at {
			hook, before = p.mu.hook, p.mu.at-p.mu.sent
			p.mu.hook = nil
		}
		p.mu.sent += n
		p.mu.Unlock()
		if _, err := client.Write(b[:before]); err != nil {
			return
		}
		if hook != nil {
			hook()
		}
		if _, err := client.Write(b[before:]); err != nil {
			return
		}
	}
}

func mention(t *testing.T, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not mention %q", err, w)
		}
	}
}
