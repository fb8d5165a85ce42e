package strongswan

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// The addresses of every test: the outer network, and the network behind each end as an address on its loopback.
var (
	nodeOuter = netip.MustParseAddr("10.9.0.1")
	peerOuter = netip.MustParseAddr("10.9.0.2")
	nodeInner = netip.MustParseAddr("10.1.0.1")
	peerInner = netip.MustParseAddr("10.2.0.1")
	nodeNet   = netip.MustParsePrefix("10.1.0.0/24")
	peerNet   = netip.MustParsePrefix("10.2.0.0/24")
	otherNet  = netip.MustParsePrefix("10.3.0.0/24")
)

const (
	nodeName = "node.bank.example"
	peerName = "peer.bank.example"
	connName = "bailiwick"
	netName  = "net"
	pskName  = "partner"
	echoPort = 7007
)

var psk = []byte("a preshared key of the right length")

// nodeBinary is the daemon under test, built once.
var nodeBinary string

func TestMain(m *testing.M) {
	flag.Parse()
	// These tests wait for daemons most of the time: more of them than there are processors run side by side.
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := func() int {
		if os.Geteuid() != 0 {
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "interop")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		nodeBinary = filepath.Join(dir, "bailiwick-node")
		if out, err := exec.Command("go", "build", "-o", nodeBinary, "github.com/bailiwick-net/bailiwick/cmd/bailiwick-node").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build bailiwick-node: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}()
	os.Exit(code)
}

var labs atomic.Int32

// pair is a network of two hosts: a node of ours, and a strongSwan.
type pair struct {
	t          *testing.T
	ctx        context.Context
	node, peer *lab.Host
	dir        string
	process    *lab.Process
	client     *localapi.Client
	args       []string
	charon     *charon.Daemon
}

// newPair makes the network. Everything is gone when the test ends.
func newPair(t *testing.T) *pair {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	// The directory goes after the processes that write to it.
	dir := shortDir(t)
	l, err := lab.New(fmt.Sprintf("bwio-%d-", labs.Add(1)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	p := &pair{t: t, ctx: ctx, dir: dir}
	p.client = localapi.NewClient(filepath.Join(p.dir, "node.sock"))
	for _, h := range []struct {
		host         **lab.Host
		name         string
		inner, outer netip.Addr
	}{{&p.node, "node", nodeInner, nodeOuter}, {&p.peer, "peer", peerInner, peerOuter}} {
		host, err := l.Host(h.name)
		if err != nil {
			t.Fatal(err)
		}
		*h.host = host
		if err := host.AddAddress("lo", netip.PrefixFrom(h.inner, 32)); err != nil {
			t.Fatal(err)
		}
	}
	end := func(h *lab.Host, a netip.Addr) lab.End {
		return lab.End{Host: h, Device: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(a, 24)}}
	}
	if err := l.Link(end(p.node, nodeOuter), end(p.peer, peerOuter)); err != nil {
		t.Fatal(err)
	}
	// Both ends have a route in clear, so that whatever is not protected would show on the wire.
	p.run(p.node, "ip", "route", "add", peerNet.String(), "via", peerOuter.String(), "src", nodeInner.String())
	p.run(p.peer, "ip", "route", "add", nodeNet.String(), "via", nodeOuter.String(), "src", peerInner.String())
	for _, h := range []*lab.Host{p.node, p.peer} {
		if err := serveEcho(ctx, h); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(p.showLogs)
	return p
}

// shortDir is a temporary directory whose path leaves room for the name of a unix socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "io")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (p *pair) run(h *lab.Host, command ...string) {
	p.t.Helper()
	if _, err := h.Run(command...); err != nil {
		p.t.Fatal(err)
	}
}

// showLogs prints what both daemons logged when the test failed.
func (p *pair) showLogs() {
	if !p.t.Failed() {
		return
	}
	for _, file := range []string{"node.log", "charon/charon.log"} {
		content, err := os.ReadFile(filepath.Join(p.dir, file))
		if err != nil {
			continue
		}
		const most = 12000
		if len(content) > most {
			content = content[len(content)-most:]
		}
		p.t.Logf("%s:\n%s", file, content)
	}
}

// startNode starts the daemon with a policy of its own and waits until it enforces it.
func (p *pair) startNode(policy policy) {
	p.t.Helper()
	state := filepath.Join(p.dir, "state")
	if err := os.MkdirAll(filepath.Join(state, "secrets"), 0o700); err != nil {
		p.t.Fatal(err)
	}
	key := psk
	if policy.key != nil {
		key = policy.key
	}
	for file, content := range map[string][]byte{
		filepath.Join(state, "secrets", pskName): key,
		filepath.Join(p.dir, "policy.yaml"):      policy.document(),
	} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	p.args = append([]string{
		nodeBinary, "run", "--state-dir", state, "--socket", filepath.Join(p.dir, "node.sock"), "--log-level", "trace",
		"--policy", filepath.Join(p.dir, "policy.yaml"), "--policy-name", policyName,
	}, policy.args...)
	p.restartNode()
}

func (p *pair) restartNode() {
	p.t.Helper()
	out, err := os.OpenFile(filepath.Join(p.dir, "node.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Close()
	cmd := p.node.Command(p.args...)
	cmd.Stdout, cmd.Stderr = out, out
	if p.process, err = p.node.Start(cmd); err != nil {
		p.t.Fatal(err)
	}
	p.until("the node enforces its policy", func() (bool, error) {
		select {
		case <-p.process.Done():
			return false, errors.New("the node ended")
		default:
		}
		s, err := p.client.Status(p.ctx)
		return err == nil && s.Policy == policyName, nil
	})
}

// startPeer starts strongSwan.
func (p *pair) startPeer(config charon.Config) {
	p.t.Helper()
	config.Host, config.Dir = p.peer, filepath.Join(p.dir, "charon")
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		p.t.Fatal(err)
	}
	var err error
	if p.charon, err = charon.Start(p.ctx, config); err != nil {
		p.t.Fatal(err)
	}
}

// until polls every 20 ms, for half a minute.
func (p *pair) until(what string, done func() (bool, error)) {
	p.t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if err != nil {
			p.t.Fatalf("waiting until %s: %v", what, err)
		}
		if ok {
			return
		}
		select {
		case <-deadline.C:
			p.t.Fatalf("waiting until %s: it took too long", what)
		case <-p.ctx.Done():
			p.t.Fatalf("waiting until %s: %v", what, p.ctx.Err())
		case <-tick.C:
		}
	}
}

// serveEcho answers every connection on the host with what it sent.
func serveEcho(ctx context.Context, host *lab.Host) error {
	return host.Do(func() error {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf(":%d", echoPort))
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				context.AfterFunc(ctx, func() { _ = conn.Close() })
				go func() {
					_, _ = io.Copy(conn, conn)
					_ = conn.Close()
				}()
			}
		}()
		return nil
	})
}

// side is one end of the pair.
type side int

const (
	fromNode side = iota
	fromPeer
)

// String names the side.
func (s side) String() string { return [...]string{"node", "peer"}[s] }

func (p *pair) dial(from side, timeout time.Duration) (conn net.Conn, err error) {
	host, source, target := p.node, nodeInner, peerInner
	if from == fromPeer {
		host, source, target = p.peer, peerInner, nodeInner
	}
	dialer := net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{IP: source.AsSlice()}}
	err = host.Do(func() error {
		conn, err = dialer.DialContext(p.ctx, "tcp4", netip.AddrPortFrom(target, echoPort).String())
		return err
	})
	return conn, err
}

// exchange connects, sends the marker and reads it back.
func (p *pair) exchange(from side, timeout time.Duration) error {
	conn, err := p.dial(from, timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	return roundTrip(conn, marker, timeout)
}

// marker is payload that would be recognised on the wire.
var marker = bytes.Repeat([]byte("bailiwick-marker "), 40)

func roundTrip(conn net.Conn, payload []byte, timeout time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := conn.Write(payload); err != nil {
		return err
	}
	answer := make([]byte, len(payload))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if !bytes.Equal(answer, payload) {
		return errors.New("the answer differs from what was sent")
	}
	return nil
}

// talk requires that an exchange succeeds.
func (p *pair) talk(from side) {
	p.t.Helper()
	if err := p.exchange(from, 20*time.Second); err != nil {
		p.t.Fatalf("exchange from the %s: %v", from, err)
	}
}

// capture records what passes the node's device.
func (p *pair) capture() *lab.Capture {
	p.t.Helper()
	c, err := p.node.Capture("eth0")
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}
