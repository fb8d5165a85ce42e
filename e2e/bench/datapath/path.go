package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// The addresses: the wire between the hosts, and what each has behind it.
var (
	outer = [2]netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")}
	inner = [2]netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")}
	nets  = [2]netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("10.2.0.0/24")}
)

// path is one way from host to host.
type path struct {
	name  string
	what  string
	start func(ctx context.Context, n *network, o options) error
}

func paths() []path {
	return []path{
		{"veth", "nothing between the hosts but the pair of devices", startNothing},
		{"relay", "TUN to UDP and back, without protection", startRelay},
		{"wireguard-go", "WireGuard in userspace", startWireGuard},
		{"libipsec", "strongSwan's ESP in userspace, AES-GCM-128", startLibipsec},
		{"tunnel", "this node, tunnel mode, AES-GCM-128 in UDP", startTunnel},
		{"transport", "this node, transport mode, AES-GCM-128 in UDP", startTransport},
		{"native", "this node, transport mode, ESP without UDP", startNative},
	}
}

func pathNames() []string {
	var names []string
	for _, p := range paths() {
		names = append(names, p.name)
	}
	return names
}

// network is two hosts with a wire between them.
type network struct {
	lab     *lab.Lab
	hosts   [2]*lab.Host
	daemons []*lab.Process
	dir     string
	target  netip.Addr // what the first host talks to
	meets   bool       // the first host has a way to every address of the second
}

// more are the addresses that the second host has beside its own: peers for the first one to meet.
func more() []netip.Addr {
	var out []netip.Addr
	for i := range byte(25) {
		out = append(out, netip.AddrFrom4([4]byte{10, 9, 0, 100 + i}))
	}
	return out
}

func newNetwork() (_ *network, err error) {
	n := &network{target: inner[1]}
	defer func() {
		if err != nil {
			_ = n.close()
		}
	}()
	if n.dir, err = os.MkdirTemp("", "bwbn"); err != nil { // short, it holds unix sockets
		return nil, err
	}
	if n.lab, err = lab.New("bwbn-"); err != nil {
		return nil, err
	}
	for i, name := range []string{"a", "b"} {
		if n.hosts[i], err = n.lab.Host(name); err != nil {
			return nil, err
		}
		if err := n.hosts[i].AddAddress("lo", netip.PrefixFrom(inner[i], 32)); err != nil {
			return nil, err
		}
	}
	end := func(i int) lab.End {
		return lab.End{Host: n.hosts[i], Device: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(outer[i], 24)}}
	}
	if err := n.lab.Link(end(0), end(1)); err != nil {
		return nil, err
	}
	for _, a := range more() {
		if err := n.hosts[1].AddAddress("eth0", netip.PrefixFrom(a, 24)); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *network) close() error {
	var errs []error
	if n.lab != nil {
		errs = append(errs, n.lab.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(n.dir))...)
}

// run runs a command on both hosts; each gets its own arguments.
func (n *network) run(command func(i int) []string) error {
	for i, h := range n.hosts {
		if _, err := h.Run(command(i)...); err != nil {
			return err
		}
	}
	return nil
}

// daemon starts a process on a host that counts as part of the path.
func (n *network) daemon(i int, log string, command ...string) error {
	out, err := os.Create(filepath.Join(n.dir, log))
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := n.hosts[i].Command(command...)
	cmd.Stdout, cmd.Stderr = out, out
	p, err := n.hosts[i].Start(cmd)
	if err != nil {
		return err
	}
	n.daemons = append(n.daemons, p)
	return nil
}

// reach waits until the target answers.
func (n *network) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		if _, err = n.hosts[0].RunContext(ctx, "ping", "-c", "1", "-W", "1", "-I", n.source().String(), n.target.String()); err == nil {
			return nil
		}
	}
	var logs []byte
	files, _ := filepath.Glob(filepath.Join(n.dir, "*.log"))
	slices.Sort(files)
	for _, f := range files {
		b, _ := os.ReadFile(f)
		logs = fmt.Appendf(logs, "\n%s:\n%s", filepath.Base(f), b[max(0, len(b)-2000):])
	}
	return fmt.Errorf("the other side does not answer: %w%s", err, logs)
}

// source is where the first host's traffic comes from.
func (n *network) source() netip.Addr {
	if n.target == outer[1] {
		return outer[0]
	}
	return inner[0]
}

func startNothing(_ context.Context, n *network, _ options) error {
	n.meets = true
	return n.routes()
}

// routes shows each host the way to what is behind the other.
func (n *network) routes() error {
	return n.run(func(i int) []string {
		return []string{"ip", "route", "add", nets[1-i].String(), "via", outer[1-i].String(), "src", inner[i].String()}
	})
}
