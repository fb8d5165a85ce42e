// Package pair holds what tests share that put one node and one strongSwan on the two ends of a wire: the network, the
// node's daemon with a policy as an administrator writes it, the strongSwan of another suite or of a guest, and the
// exchanges and expectations of both.
//
// Its invariant: both ends are binaries that people run; everything is gone when the test ends. It leaves namespaces to
// e2e/lab, strongSwan to e2e/lab/charon, and what is to be shown to the tests.
package pair

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/e2e/lab/guest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// The addresses of every test: those of the wire, and the network behind each end as an address on its loopback.
var (
	NodeOuter  = netip.MustParseAddr("10.9.0.1")
	PeerOuter  = netip.MustParseAddr("10.9.0.2")
	NodeOuter6 = netip.MustParseAddr("fd09::1")
	PeerOuter6 = netip.MustParseAddr("fd09::2")
	NodeInner  = netip.MustParseAddr("10.1.0.1")
	PeerInner  = netip.MustParseAddr("10.2.0.1")
	NodeNet    = netip.MustParsePrefix("10.1.0.0/24")
	PeerNet    = netip.MustParsePrefix("10.2.0.0/24")
)

// The names of every test.
const (
	NodeName = "node.bank.example"
	PeerName = "peer.bank.example"
	ConnName = "bailiwick" // strongSwan's connection
	NetName  = "net"       // its child
	PSKName  = "partner"
	EchoPort = 7007
	device   = "eth0"
)

// PSK is the preshared key of the ends.
var PSK = []byte("a preshared key of the right length")

// nodeBinary is the daemon under test, built by Main.
var nodeBinary string

// Main builds the node and runs the tests of a package, as many at a time as parallel says.
func Main(m *testing.M, parallel int, setups ...func(dir string) (cleanup func() error, err error)) {
	flag.Parse()
	os.Exit(run(m, parallel, setups))
}

func run(m *testing.M, parallel int, setups []func(string) (func() error, error)) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := flag.Set("test.parallel", fmt.Sprint(parallel)); err != nil {
		return fail(err)
	}
	if os.Geteuid() != 0 {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "pair")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	nodeBinary = filepath.Join(dir, "bailiwick-node")
	if out, err := exec.Command("go", "build", "-o", nodeBinary, "github.com/bailiwick-net/bailiwick/cmd/bailiwick-node").CombinedOutput(); err != nil {
		return fail(fmt.Errorf("build bailiwick-node: %w\n%s", err, out))
	}
	for _, setup := range setups {
		cleanup, err := setup(dir)
		if err != nil {
			return fail(err)
		}
		defer func() {
			if err := cleanup(); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
	}
	return m.Run()
}

var pairs atomic.Int32

// Pair is a node of ours and a strongSwan.
type Pair struct {
	T    testing.TB
	Ctx  context.Context // ends with the test, or before it takes too long
	Node *lab.Host
	Peer *lab.Host    // where strongSwan runs; nil with a guest
	NAT  *lab.Host    // between them, with WithNAT
	VM   *guest.Guest // the guest, or nil

	Process *lab.Process // the node's daemon
	Client  *localapi.Client
	Charon  *charon.Daemon

	Dir  string // what both daemons keep and log, until the test ends
	Path Path   // where exchanges go: Inner, or what the policy of StartNode protects

	args []string
}

// WithHost makes a network of two hosts, where strongSwan is that of Debian 12 or of the root that its configuration names.
func WithHost(t testing.TB, prefix string) *Pair {
	t.Helper()
	p, l := newPair(t, prefix)
	p.addPeer(l)
	if err := l.Link(end(p.Node, device, NodeOuter), end(p.Peer, device, PeerOuter)); err != nil {
		t.Fatal(err)
	}
	p.Run(p.Peer, "ip", "route", "add", NodeNet.String(), "via", NodeOuter.String(), "src", PeerInner.String())
	p.route()
	return p
}

func end(h *lab.Host, device string, a netip.Addr) lab.End {
	return lab.End{Host: h, Device: device, Addresses: []netip.Prefix{netip.PrefixFrom(a, 24)}}
}

// addPeer adds the host of strongSwan, with the network behind it.
func (p *Pair) addPeer(l *lab.Lab) {
	p.T.Helper()
	var err error
	if p.Peer, err = l.Host("peer"); err != nil {
		p.T.Fatal(err)
	}
	if err := errors.Join(p.Peer.AddAddress("lo", netip.PrefixFrom(PeerInner, 32)), p.Peer.ServeEcho(p.Ctx, EchoPort)); err != nil {
		p.T.Fatal(err)
	}
}

// WithGuest makes a host on the switch of a guest that SetUp has prepared. No two tests may use a guest at one time.
func WithGuest(t testing.TB, prefix string, bridge *lab.Bridge, g *guest.Guest) *Pair {
	t.Helper()
	p, _ := newPair(t, prefix)
	p.VM = g
	if err := bridge.Attach(lab.End{Host: p.Node, Device: device, Addresses: []netip.Prefix{netip.PrefixFrom(NodeOuter, 24), netip.PrefixFrom(NodeOuter6, 64)}}); err != nil {
		t.Fatal(err)
	}
	p.route()
	// What an earlier test left there; the node of this test has the addresses of that one, and another device.
	p.InGuest("sh", "-c", "ip xfrm state flush; ip xfrm policy flush; ip neigh flush dev "+guest.Device)
	return p
}

// Beside makes a further node on the switch of a guest, at another address.
func Beside(p *Pair, prefix string, bridge *lab.Bridge, address netip.Addr) *Pair {
	p.T.Helper()
	second, _ := newPair(p.T, prefix)
	second.VM = p.VM
	if err := bridge.Attach(end(second.Node, device, address)); err != nil {
		p.T.Fatal(err)
	}
	return second
}

// SetUp gives a guest the addresses of a peer, and an echo service.
func SetUp(ctx context.Context, g *guest.Guest) error {
	for _, command := range [][]string{
		{"addr", "add", PeerOuter.String() + "/24", "dev", guest.Device},
		{"addr", "add", PeerOuter6.String() + "/64", "dev", guest.Device, "nodad"},
		{"addr", "add", PeerInner.String() + "/32", "dev", "lo"},
		{"route", "add", NodeNet.String(), "via", NodeOuter.String(), "src", PeerInner.String()},
	} {
		if _, err := g.RunContext(ctx, append([]string{"ip"}, command...)...); err != nil {
			return err
		}
	}
	return g.ServeEcho(ctx, EchoPort)
}

// route gives the node a way in clear, so that whatever is not protected would show on the wire.
func (p *Pair) route() {
	p.T.Helper()
	p.Run(p.Node, "ip", "route", "add", PeerNet.String(), "via", PeerOuter.String(), "src", NodeInner.String())
}

func newPair(t testing.TB, prefix string) (*Pair, *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	// The directory goes after the processes that write to it. Its path leaves room for the name of a unix socket.
	dir, err := os.MkdirTemp("", "io")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	l := labtest.New(t, fmt.Sprintf("%s%d-", prefix, pairs.Add(1)))
	p := &Pair{T: t, Ctx: ctx, Dir: dir, Path: Inner, Client: localapi.NewClient(filepath.Join(dir, "node.sock"))}
	if p.Node, err = l.Host("node"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Node.AddAddress("lo", netip.PrefixFrom(NodeInner, 32)), p.Node.ServeEcho(ctx, EchoPort)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	return p, l
}

// Run runs a command on a host.
func (p *Pair) Run(h *lab.Host, command ...string) string {
	p.T.Helper()
	out, err := h.RunContext(p.Ctx, command...)
	if err != nil {
		p.T.Fatal(err)
	}
	return out
}

// InGuest runs a command in the guest.
func (p *Pair) InGuest(command ...string) string {
	p.T.Helper()
	out, err := p.VM.RunContext(p.Ctx, command...)
	if err != nil {
		p.T.Fatal(err)
	}
	return out
}

// end ends what does not end with the lab, and prints what both daemons logged when the test failed.
func (p *Pair) end() {
	var theirs string
	if p.Charon != nil {
		theirs, _ = p.Charon.Log()
		if p.VM != nil {
			if err := p.Charon.Kill(); err != nil {
				p.T.Logf("end strongSwan in the guest: %v", err)
			}
		}
	}
	if !p.T.Failed() {
		return
	}
	ours, _ := os.ReadFile(p.log())
	for name, content := range map[string]string{"node": string(ours), "strongSwan": theirs} {
		const most = 12000
		if len(content) > most {
			content = content[len(content)-most:]
		}
		p.T.Logf("log of the %s:\n%s", name, content)
	}
}

// StartNode starts the daemon with a policy of its own and waits until it enforces it.
func (p *Pair) StartNode(policy Policy) {
	p.T.Helper()
	p.Path = policy.path()
	key := PSK
	if policy.Key != nil {
		key = policy.Key
	}
	p.Secret(PSKName, key)
	document := filepath.Join(p.Dir, "policy.yaml")
	if err := os.WriteFile(document, policy.document(), 0o600); err != nil {
		p.T.Fatal(err)
	}
	p.args = append([]string{
		nodeBinary, "run", "--datapath", "userspace", "--state-dir", p.state(), "--socket", filepath.Join(p.Dir, "node.sock"), "--log-level", "trace",
		"--policy", document, "--policy-name", policyName, "--encapsulation", policy.encapsulation(),
	}, policy.Args...)
	p.RestartNode()
}

// RestartNode starts the daemon again.
func (p *Pair) RestartNode() {
	p.T.Helper()
	out, err := os.OpenFile(p.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.T.Fatal(err)
	}
	defer out.Close()
	cmd := p.Node.Command(p.args...)
	cmd.Stdout, cmd.Stderr = out, out
	if p.Process, err = p.Node.Start(cmd); err != nil {
		p.T.Fatal(err)
	}
	p.Until("the node enforces its policy", func() (bool, error) {
		select {
		case <-p.Process.Done():
			return false, errors.New("the node ended")
		default:
		}
		s, err := p.Client.Status(p.Ctx)
		return err == nil && s.Policy == policyName, nil
	})
}

// StartPeer starts strongSwan.
func (p *Pair) StartPeer(config charon.Config) {
	p.T.Helper()
	config.Host, config.Guest, config.Dir = p.Peer, p.VM, filepath.Join(p.Dir, "charon")
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		p.T.Fatal(err)
	}
	var err error
	if p.Charon, err = charon.Start(p.Ctx, config); err != nil {
		p.T.Fatal(err)
	}
}

func (p *Pair) log() string { return filepath.Join(p.Dir, "node.log") }

// NodeTold reports whether the node's log tells of something.
func (p *Pair) NodeTold(text string) bool {
	p.T.Helper()
	log, err := os.ReadFile(p.log())
	if err != nil {
		p.T.Fatal(err)
	}
	return strings.Contains(string(log), text)
}

// Until polls every 20 ms, for half a minute.
func (p *Pair) Until(what string, done func() (bool, error)) {
	p.T.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if err != nil {
			p.T.Fatalf("waiting until %s: %v", what, err)
		}
		if ok {
			return
		}
		select {
		case <-deadline.C:
			p.T.Fatalf("waiting until %s: it took too long", what)
		case <-p.Ctx.Done():
			p.T.Fatalf("waiting until %s: %v", what, p.Ctx.Err())
		case <-tick.C:
		}
	}
}

// Logged waits until strongSwan has logged a text.
func (p *Pair) Logged(text string) {
	p.T.Helper()
	p.Until(fmt.Sprintf("strongSwan logs %q", text), func() (bool, error) { return p.Charon.Logged(text) })
}

// NodeTrace are the lines of the node's log that tell of IKE messages, without what stands before.
func (p *Pair) NodeTrace() []string {
	p.T.Helper()
	log, err := os.ReadFile(p.log())
	if err != nil {
		p.T.Fatal(err)
	}
	var told []string
	for line := range strings.Lines(string(log)) {
		if _, event, ok := strings.Cut(strings.TrimSpace(line), "event="); ok {
			told = append(told, strings.Trim(event, `"`))
		}
	}
	return told
}
