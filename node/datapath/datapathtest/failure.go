package datapathtest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Cases about the end and the change of what enforces the policy. The claim each time: no packet of a flow that must be
// protected leaves, or is accepted, in clear.

// childVariable tells a test binary that it is to be the daemon of one host, and how.
const childVariable = "BAILIWICK_DATAPATH_CHILD"

// daemon is what a child process does: put a policy that protects everything into force, and use one SA.
type daemon struct {
	Facts         spd.Facts
	Local, Remote netip.Addr
	In, Out       sa.SPI
}

// Child runs the daemon of a host, in the namespace of the process, if this process was started as one: TestMain calls
// it first. The process ends with its standard input, or is killed.
func Child(factory Factory) {
	text := os.Getenv(childVariable)
	if text == "" {
		return
	}
	err := func() error {
		var d daemon
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			return err
		}
		node, err := factory()
		if err != nil {
			return err
		}
		set, err := spd.Expand(requireAll(), d.Facts)
		if err != nil {
			return err
		}
		if err := node.SetPolicy(context.Background(), set); err != nil {
			return err
		}
		child := d.child()
		for _, step := range []func(sa.Child) error{node.InstallIn, node.InstallOut, node.SwitchOut} {
			if err := step(child); err != nil {
				return err
			}
		}
		fmt.Fprintln(os.Stdout, "ready")
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child derives the keys from the SPIs, so that both processes have the same.
func (d daemon) child() sa.Child {
	keys := func(spi sa.SPI) sa.Keys {
		sum := sha256.Sum256([]byte(spi.String()))
		return sa.Keys{SPI: spi, Encryption: sa.NewSecret(sum[:20])}
	}
	return sa.Child{
		Rule: ruleID, Peer: "test peer", Mode: sa.Transport, Encap: true, Suite: GCM128,
		Local: netip.AddrPortFrom(d.Local, 4500), Remote: netip.AddrPortFrom(d.Remote, 4500),
		LocalTS: []sa.Selector{whole(d.Local)}, RemoteTS: []sa.Selector{whole(d.Remote)},
		In: keys(d.In), Out: keys(d.Out), ReplayWindow: 1024,
	}
}

// start runs the daemon in a process of its own.
func (d daemon) start(t *testing.T, p *Peer) *lab.Process {
	t.Helper()
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := p.Command(self)
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close() })
	// A pipe of our own: Wait closes that of StdoutPipe under the reader.
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	cmd.Stdout = out
	process, err := p.Start(cmd)
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("daemon of %s says %q (%v), want it ready", p.Name, line, err)
	}
	return process
}

// killed: the daemon is killed with -9 under traffic. Nothing leaves in clear, nothing clear is accepted, and the next
// daemon takes over without an open window.
func killed(t *testing.T, w *World) {
	if err := w.A.Close(true); err != nil {
		t.Fatal(err)
	}
	d := daemon{Facts: w.A.Facts, Local: w.A.V4, Remote: w.B.V4, In: 0x2001, Out: 0x2002}
	process := d.start(t, w.A)
	other := daemon{Local: d.Remote, Remote: d.Local, In: d.Out, Out: d.In}.child()
	w.B.SetPolicy(t, requireAll())
	for _, step := range []func(sa.Child) error{w.B.Node.InstallIn, w.B.Node.InstallOut, w.B.Node.SwitchOut} {
		if err := step(other); err != nil {
			t.Fatal(err)
		}
	}
	to := netip.AddrPortFrom(w.B.V4, 9)
	w.B.EchoUDP(t, to)
	w.A.EchoUDP(t, netip.AddrPortFrom(w.A.V4, 9))
	if err := w.A.TryUDP(to, 100, long); err != nil {
		t.Fatalf("UDP through the SA of the daemon: %v", err)
	}
	wire := w.Watch(t)
	stop := w.A.chatter(t, to)
	eventually(t, "traffic flows", func() bool { return childOf(w.B, other.In.SPI).InPackets > 20 })
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, peer := range []netip.Addr{w.B.V4, w.B.V6} {
		if err := w.A.TryTCP(netip.AddrPortFrom(peer, 7), short); err == nil {
			t.Errorf("TCP to %s went through without a daemon", peer)
		}
	}
	stop()
	wire().wantProtected(t)

	// b speaks clear now; the kernel of a must not accept it.
	w.B.SetPolicy(t, policy())
	for _, own := range []netip.Addr{w.A.V4, w.A.V6} {
		if err := w.B.TryUDP(netip.AddrPortFrom(own, 9), 100, short); err == nil {
			t.Errorf("clear UDP to %s was accepted without a daemon", own)
		}
	}

	wire = w.Watch(t)
	stop = w.A.chatter(t, to)
	w.A.Open(t)
	w.A.SetPolicy(t, requireAll())
	stop()
	// A kernel that has SAs of the dead daemon goes on with them until the next one is there. b, which wants nothing
	// protected, answers them in clear.
	sent := wire().Frames
	Judge(slices.DeleteFunc(sent, func(f lab.Frame) bool { return !f.Outgoing })).wantNoClear(t)
}

// chatter sends datagrams with the secret, some thousands a second, until stopped. Whether the host lets them out is
// what the capture tells; errors are expected.
func (p *Peer) chatter(t *testing.T, to netip.AddrPort) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		err := p.Do(func() error {
			c, err := net.ListenUDP("udp", nil)
			if err != nil {
				return err
			}
			defer c.Close()
			pace := time.NewTicker(200 * time.Microsecond)
			defer pace.Stop()
			for {
				select {
				case <-done:
					return nil
				case <-pace.C:
					_, _ = c.WriteToUDPAddrPort([]byte(secret), to)
				}
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		wg.Wait()
	})
}

// The policy routing of a host that nobody touched.
const (
	rules4 = "0: from all lookup local 32766: from all lookup main 32767: from all lookup default"
	rules6 = "0: from all lookup local 32766: from all lookup main"
)

// closed: after Close what must be protected stays blocked, after Close with release everything is as before New.
func closed(t *testing.T, w *World) {
	w.Connect(t, Options{Encap: true})
	to := netip.AddrPortFrom(w.B.V4, 9)
	w.B.EchoUDP(t, to)
	if err := w.A.TryUDP(to, 100, long); err != nil {
		t.Fatal(err)
	}
	wire := w.Watch(t)
	if err := w.A.TryUDP(to, 100, long); err != nil {
		t.Fatal(err)
	}
	stop := w.A.chatter(t, to)
	if err := w.A.Close(false); err != nil {
		t.Fatal(err)
	}
	_ = w.A.TryUDP(to, 100, short) // it is to be lost
	stop()
	wire().wantProtected(t)

	w.A.Open(t)
	if err := w.A.Close(true); err != nil {
		t.Fatal(err)
	}
	w.B.SetPolicy(t, policy())
	if err := w.A.TryUDP(to, 100, long); err != nil {
		t.Errorf("UDP in clear after Close with release: %v", err)
	}
	for _, c := range []struct{ command, want string }{{"nft list ruleset", ""}, {"ip rule list", rules4}, {"ip -6 rule list", rules6}} {
		if out := w.A.mustRun(t, strings.Fields(c.command)...); strings.Join(strings.Fields(out), " ") != c.want {
			t.Errorf("%s after Close with release:\n%s\nwant %q", c.command, out, c.want)
		}
	}
}

// RunTUN runs the cases of backends that move packets through a TUN.
func RunTUN(t *testing.T, prefix string, factory Factory) {
	t.Run("loss of the TUN leaks nothing", func(t *testing.T) { lostTUN(t, NewWorld(t, prefix, factory)) })
	t.Run("policy routing that others remove comes back", func(t *testing.T) { unrouted(t, NewWorld(t, prefix, factory)) })
}

// lostTUN: somebody deletes the TUN under the daemon, and it comes back.
func lostTUN(t *testing.T, w *World) {
	w.Connect(t, Options{Encap: true})
	to := netip.AddrPortFrom(w.B.V4, 9)
	w.B.EchoUDP(t, to)
	if err := w.A.TryUDP(to, 100, long); err != nil {
		t.Fatal(err)
	}
	wire := w.Watch(t)
	stop := w.A.chatter(t, to)
	devices := w.A.mustRun(t, "ip", "-o", "link", "show", "type", "tun")
	var index int
	var name string
	if _, err := fmt.Sscanf(devices, "%d: %s", &index, &name); err != nil {
		t.Fatalf("backend has no TUN device: %q", devices)
	}
	for range 3 {
		w.A.mustRun(t, "ip", "link", "del", name[:len(name)-1])
		eventually(t, "the TUN is back", func() bool { return w.A.TryUDP(to, 100, short) == nil })
	}
	stop()
	wire().wantProtected(t)
}

// unrouted: another program removes what steers packets to the daemon, or takes the TUN down. Nothing passes in clear, and
// soon everything passes again.
func unrouted(t *testing.T, w *World) {
	w.Connect(t, Options{Encap: true})
	if !strings.Contains(w.A.mustRun(t, "ip", "rule", "list"), "fwmark") {
		t.Fatal("backend has no policy routing")
	}
	to := netip.AddrPortFrom(w.B.V4, 9)
	w.B.EchoUDP(t, to)
	state := func() string {
		return w.A.mustRun(t, "sh", "-c", "for f in -4 -6; do ip $f rule list; ip $f route show table 29803; done")
	}
	before := state()
	devices := strings.Fields(w.A.mustRun(t, "ip", "-o", "link", "show", "type", "tun"))
	if len(devices) < 2 {
		t.Fatalf("there is no TUN: %q", devices)
	}
	wire := w.Watch(t)
	stop := w.A.chatter(t, to)
	for _, command := range []string{
		"ip rule del priority 100; ip rule del priority 101; ip rule del priority 102", "ip -6 rule del priority 102",
		"ip route flush table 29803", "ip -6 route flush table 29803", "ip link set " + strings.TrimSuffix(devices[1], ":") + " down",
	} {
		w.A.mustRun(t, "sh", "-c", command)
		eventually(t, "policy routing is back after "+command, func() bool { return state() == before })
		eventually(t, "traffic is back after "+command, func() bool { return w.A.TryUDP(to, 100, short) == nil })
	}
	stop()
	wire().wantProtected(t)
}

// flushed: another program removes all rules of the machine. They are out of its reach or come back at once, with what SAs
// asked for.
func flushed(t *testing.T, w *World) {
	w.Connect(t, Options{Encap: true})
	to := netip.AddrPortFrom(w.B.V4, 9)
	w.B.EchoUDP(t, to)
	stand := func() bool {
		out, err := w.A.Run("nft", "list", "ruleset")
		return err == nil && strings.Contains(out, "filter/"+ruleID)
	}
	if !stand() {
		t.Fatal("backend has no nftables rules")
	}
	for _, command := range []string{"nft flush ruleset", "nft flush table inet bailiwick", "nft delete table inet bailiwick"} {
		if _, err := w.A.Run(strings.Fields(command)...); err != nil && !stand() {
			t.Errorf("%s: %v, and the rules are gone", command, err)
		}
		eventually(t, "rules are back after "+command, stand)
		wire := w.Watch(t)
		if err := w.A.TryUDP(to, 100, long); err != nil {
			t.Errorf("UDP after %s: %v", command, err)
		}
		wire().wantProtected(t)
	}
}

// swaps: the policy is replaced again and again under traffic.
func swaps(t *testing.T, w *World) {
	w.Connect(t, Options{Encap: true})
	to := netip.AddrPortFrom(w.B.V4, 9)
	w.B.EchoUDP(t, to)
	other := requireAll()
	other.Rules = append(other.Rules,
		rule("dns", spd.FilterAction{Action: spd.ActionPermit}, port(17, 53)), rule("no-telnet", blockAction, port(6, 23)))
	wire := w.Watch(t)
	stop := w.A.chatter(t, to)
	rounds := 1000
	if testing.Short() {
		rounds = 10
	}
	for i := range rounds {
		p := requireAll()
		if i%2 == 0 {
			p = other
		}
		w.A.SetPolicy(t, p)
	}
	if err := w.A.TryUDP(to, 100, long); err != nil {
		t.Errorf("UDP after the swaps: %v", err)
	}
	stop()
	wire().wantProtected(t)
}

// swapDecidesWhatWaits: a new policy decides about packets that wait under the old one.
func swapDecidesWhatWaits(t *testing.T, w *World) {
	w.B.SetPolicy(t, policy())
	for _, c := range []struct {
		name   string
		action spd.FilterAction
		passes bool
	}{
		{"permit", spd.FilterAction{Action: spd.ActionPermit}, true},
		{"block", blockAction, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			to := netip.AddrPortFrom(w.B.V4, 9)
			w.B.EchoUDP(t, to)
			w.A.SetPolicy(t, requireAll())
			wire := w.Watch(t)
			answered := make(chan error, 1)
			go func() { answered <- w.A.TryUDP(to, 100, time.Second) }()
			eventually(t, "the packet waits", func() bool { return w.A.Counter("packets_waiting") == 1 })
			w.A.SetPolicy(t, policy(rule(ruleID, c.action, everything())))
			if err := <-answered; (err == nil) != c.passes {
				t.Errorf("packet that waited: %v, want it to pass: %v", err, c.passes)
			}
			seen := wire()
			if !c.passes {
				seen.wantNothing(t)
			}
			if n := w.A.Counter("packets_waiting"); n != 0 {
				t.Errorf("%d packets wait under a policy that negotiates nothing", n)
			}
		})
	}
}

// refusesBadSAs: an SA that cannot be is an error and changes nothing.
func refusesBadSAs(t *testing.T, w *World) {
	pair := w.Connect(t, Options{Encap: true})
	to := netip.AddrPortFrom(w.B.V4, 9)
	w.B.EchoUDP(t, to)
	bad := pair.FromEnd
	bad.In.SPI = 255
	if err := w.A.Node.InstallIn(bad); err == nil {
		t.Error("SPI 255, which is reserved, was installed")
	}
	if err := w.A.Node.InstallIn(pair.FromEnd); err == nil {
		t.Error("an SPI that is in use was installed again")
	}
	bad = pair.FromEnd
	bad.In.SPI, bad.In.Encryption = 0x3001, sa.NewSecret([]byte("short"))
	if err := w.A.Node.InstallIn(bad); err == nil {
		t.Error("a key of 5 octets was installed")
	}
	bad = pair.FromEnd
	bad.In.SPI = 0x3002
	if err := w.A.Node.InstallOut(bad); err == nil {
		t.Error("an outbound half without its inbound half was installed")
	}
	if err := w.A.Node.SwitchOut(bad); err == nil {
		t.Error("an SA that is not installed was switched to")
	}
	if err := w.A.Node.Remove(0x3003); err != nil {
		t.Errorf("removing an unknown SPI: %v", err)
	}
	if err := w.A.TryUDP(to, 100, long); err != nil {
		t.Errorf("UDP through the good SA: %v", err)
	}
	unknown := ike.Flow{Rule: "unknown", Local: w.A.V4, Remote: w.B.V4}
	if err := w.A.Node.Fallback(unknown, time.Minute); err == nil {
		t.Error("Fallback for a rule that the policy does not have returned no error")
	}
	if err := w.A.Node.Refuse(unknown); err != nil {
		t.Errorf("Refuse of a flow that nothing waits for: %v", err)
	}
}
