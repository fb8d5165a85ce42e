package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// event is something that happens to the machines. What it changed it puts right again before it returns; what the nodes
// have to put right themselves, it leaves.
type event struct {
	name string
	do   func(ctx context.Context, w *world, r *rand.Rand) (detail string, err error)
}

// between draws a time.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)))
}

func (w *world) any(r *rand.Rand) *station { return w.nodes[r.IntN(len(w.nodes))] }

// events are all that can happen. Their names are what -only takes.
func events() []event {
	return []event{
		{"rekey-child", func(ctx context.Context, w *world, r *rand.Rand) (string, error) {
			return w.rekey(ctx, w.any(r), false)
		}},
		{"rekey-ike", func(ctx context.Context, w *world, r *rand.Rand) (string, error) { return w.rekey(ctx, w.any(r), true) }},
		{"kill", func(ctx context.Context, w *world, r *rand.Rand) (string, error) {
			return w.kill(ctx, between(r, 0, 2*time.Second), w.any(r))
		}},
		{"kill-both", func(ctx context.Context, w *world, r *rand.Rand) (string, error) {
			return w.kill(ctx, between(r, 0, 2*time.Second), w.nodes[:]...)
		}},
		{"kill-in-swap", func(ctx context.Context, w *world, r *rand.Rand) (string, error) {
			if err := w.swap(ctx); err != nil && w.controllerRuns() {
				return "", err
			}
			pause(ctx, between(r, 0, 60*time.Millisecond))
			return w.kill(ctx, 0, w.any(r))
		}},
		{"kill-in-rekey", func(ctx context.Context, w *world, r *rand.Rand) (string, error) {
			s := w.any(r)
			if detail, err := w.rekey(ctx, s, true); err != nil {
				return detail, err
			}
			pause(ctx, between(r, 0, 20*time.Millisecond))
			return w.kill(ctx, between(r, 0, time.Second), s)
		}},
		{"daemon-killed", func(ctx context.Context, w *world, r *rand.Rand) (string, error) { return w.killDaemon(ctx, r, "") }},
		{"daemon-killed-flush", func(ctx context.Context, w *world, r *rand.Rand) (string, error) {
			return w.killDaemon(ctx, r, "nft flush ruleset; nft delete table inet "+nftablesTable)
		}},
		{"holder-killed", holderKilled},
		{"stop-and-start", stopAndStart},
		{"freeze", freeze},
		{"controller-killed", controllerKilled},
		{"tun-deleted", command("ip link del "+tunDevice, "")},
		{"tun-down", command("ip link set "+tunDevice+" down", "")},
		{"link-down", linkDown},
		{"mtu", command("ip link set "+device+" mtu 1400", "ip link set "+device+" mtu 1500")},
		{"address-removed", addressRemoved},
		{"address-added", addressAdded},
		{"flush-ruleset", command("nft flush ruleset", "")},
		{"table-deleted", command("nft delete table inet "+nftablesTable, "")},
		{"table-flushed", command("nft flush table inet "+nftablesTable, "")},
		{"rules-removed", command(rulesRemoved, "")},
		{"routes-removed", command(routesRemoved, "")},
		{"dead-rules-removed", func(ctx context.Context, w *world, r *rand.Rand) (string, error) {
			return w.whileDead(ctx, r, rulesRemoved+"; "+routesRemoved)
		}},
		{"dead-flush-ruleset", func(ctx context.Context, w *world, r *rand.Rand) (string, error) {
			return w.whileDead(ctx, r, "nft flush ruleset")
		}},
		{"neighbours-flushed", command("ip neigh flush all; ip -6 neigh flush all", "")},
		{"queue-short", command("tc qdisc replace dev "+device+" root tbf rate 100kbit burst 1600 limit 1600", "tc qdisc del dev "+device+" root")},
		{"queue-long", command("tc qdisc replace dev "+device+" root tbf rate 100kbit burst 1600 limit 4mb", "tc qdisc del dev "+device+" root")},
		{"socket-buffers", socketBuffers},
		{"disk-full", diskFull},
	}
}

// leftOut are events that are known to leak, and why.
var leftOut = map[string]string{
	"dead-flush-ruleset": "with daemon and holder dead, and no systemd that keeps it, the table belongs to nobody: whoever flushes all rules of the machine lets packets pass in clear",
}

const (
	rulesRemoved  = "for f in -4 -6; do for p in 100 101 102; do ip $f rule del priority $p; done; done"
	routesRemoved = "ip -4 route flush table " + routingTable + "; ip -6 route flush table " + routingTable
)

// command is an event that a shell command on one machine is, and another one some time later. What it says does not count:
// that a command is refused is as good as that its effect is mended.
func command(first, later string) func(context.Context, *world, *rand.Rand) (string, error) {
	return func(ctx context.Context, w *world, r *rand.Rand) (string, error) {
		s := w.any(r)
		detail := s.Name + ": " + first
		if _, err := s.host.RunContext(ctx, "sh", "-c", first); err != nil {
			detail += " (refused)"
		}
		if later == "" {
			return detail, nil
		}
		wait := between(r, 500*time.Millisecond, 2*time.Second)
		pause(ctx, wait)
		_, err := s.host.Run("sh", "-c", later)
		return fmt.Sprintf("%s for %s", detail, wait.Round(time.Millisecond)), err
	}
}

func (w *world) rekey(ctx context.Context, s *station, ike bool) (string, error) {
	client := w.bank.Node(s.Machine)
	all, err := client.Associations(ctx)
	if err != nil {
		return s.Name, err
	}
	var requests []localapi.Rekey
	if ike {
		for _, i := range all.IKE {
			if !i.Established.IsZero() {
				requests = append(requests, localapi.Rekey{IKE: i.SPI})
			}
		}
	} else {
		for _, c := range all.Children {
			if c.Current {
				requests = append(requests, localapi.Rekey{Child: c.In})
			}
		}
	}
	refused := 0
	for _, request := range requests {
		if client.Rekey(ctx, request) != nil {
			refused++ // it is gone already
		}
	}
	return fmt.Sprintf("%s: %d, refused %d", s.Name, len(requests), refused), nil
}

// kill ends daemons as kill -9 does and starts them again after a while.
func (w *world) kill(ctx context.Context, wait time.Duration, stations ...*station) (string, error) {
	names := make([]string, 0, len(stations))
	for _, s := range stations {
		names = append(names, s.Name)
		if err := w.bank.KillNode(s.Machine); err != nil {
			return "", err
		}
	}
	pause(ctx, wait)
	for _, s := range stations {
		if err := w.bank.StartNode(s.Machine); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s for %s", strings.Join(names, " and "), wait.Round(time.Millisecond)), nil
}

// whileDead has a command run while the daemon is dead.
func (w *world) whileDead(ctx context.Context, r *rand.Rand, command string) (string, error) {
	s := w.any(r)
	if err := w.bank.KillNode(s.Machine); err != nil {
		return "", err
	}
	pause(ctx, between(r, 0, 300*time.Millisecond))
	detail := s.Name + ": " + command
	if _, err := s.host.RunContext(ctx, "sh", "-c", command); err != nil {
		detail += " (refused)"
	}
	pause(ctx, between(r, 500*time.Millisecond, 1500*time.Millisecond))
	return detail, w.bank.StartNode(s.Machine)
}

func stopAndStart(ctx context.Context, w *world, r *rand.Rand) (string, error) {
	s, wait := w.any(r), between(r, 0, time.Second)
	if err := w.bank.Process(s.Machine).Stop(10 * time.Second); err != nil {
		return s.Name, err
	}
	pause(ctx, wait)
	return fmt.Sprintf("%s for %s", s.Name, wait.Round(time.Millisecond)), w.bank.StartNode(s.Machine)
}

func freeze(ctx context.Context, w *world, r *rand.Rand) (string, error) {
	s, wait := w.any(r), between(r, time.Second, 4*time.Second)
	pids := w.bank.Process(s.Machine).Pids()
	signal := func(n unix.Signal) (err error) {
		for _, pid := range pids {
			err = errors.Join(err, unix.Kill(pid, n))
		}
		return err
	}
	if err := signal(unix.SIGSTOP); err != nil {
		return s.Name, err
	}
	pause(ctx, wait)
	return fmt.Sprintf("%s for %s", s.Name, wait.Round(time.Millisecond)), signal(unix.SIGCONT)
}

// killDaemon ends a daemon, not its holder, a few times as kill -9 does, with a command each time; the holder starts it
// again. A daemon that ends before it was up ends its holder as well: then it is started as systemd would.
func (w *world) killDaemon(ctx context.Context, r *rand.Rand, command string) (string, error) {
	s, times, ended := w.any(r), 1+r.IntN(3), 0
	for range times {
		p := w.bank.Process(s.Machine)
		for _, pid := range p.Pids()[1:] {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return s.Name, err
			}
		}
		if command != "" {
			_, _ = s.host.RunContext(ctx, "sh", "-c", command) // is to be refused or without effect
		}
		pause(ctx, between(r, 0, 400*time.Millisecond))
		select {
		case <-p.Done():
			ended++
			if err := w.bank.StartNode(s.Machine); err != nil {
				return s.Name, err
			}
		default:
		}
	}
	return fmt.Sprintf("%s: %d times, %d with its holder %s", s.Name, times, ended, command), nil
}

func holderKilled(ctx context.Context, w *world, r *rand.Rand) (string, error) {
	s, wait := w.any(r), between(r, 0, time.Second)
	p := w.bank.Process(s.Machine)
	pids := p.Pids()
	if err := p.Signal(unix.SIGKILL); err != nil {
		return s.Name, err
	}
	<-p.Done()
	gone := func() bool {
		return !slices.ContainsFunc(pids, func(pid int) bool { return unix.Kill(pid, 0) == nil })
	}
	if took, done := until(ctx, recoverBound, gone); !done {
		return s.Name, fmt.Errorf("%w: the daemon of %s lives %s after its holder", errFound, s.Name, took)
	}
	pause(ctx, wait)
	return fmt.Sprintf("%s for %s", s.Name, wait.Round(time.Millisecond)), w.bank.StartNode(s.Machine)
}

func controllerKilled(ctx context.Context, w *world, r *rand.Rand) (string, error) {
	wait := between(r, 500*time.Millisecond, 3*time.Second)
	w.setController(false)
	if err := w.bank.KillController(); err != nil {
		return "", err
	}
	pause(ctx, wait)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err := w.bank.StartController(ctx); err != nil {
		return "", err
	}
	w.setController(true)
	return fmt.Sprintf("for %s", wait.Round(time.Millisecond)), nil
}

// linkDown takes the link away. With it the kernel removes the IPv6 addresses.
func linkDown(ctx context.Context, w *world, r *rand.Rand) (string, error) {
	s, wait := w.any(r), between(r, 200*time.Millisecond, 2*time.Second)
	if _, err := s.host.Run("ip", "link", "set", device, "down"); err != nil {
		return s.Name, err
	}
	pause(ctx, wait)
	_, err := s.host.Run("ip", "link", "set", device, "up")
	if _, there := s.host.Run("sh", "-c", fmt.Sprintf("ip addr show dev %s | grep -q %s/", device, s.address[1])); there != nil {
		err = errors.Join(err, w.addAddress(s, 1))
	}
	err = errors.Join(err, w.routes(s, 0), w.routes(s, 1))
	return fmt.Sprintf("%s for %s", s.Name, wait.Round(time.Millisecond)), err
}

// socketBuffers leaves the daemon sockets with room for hardly a packet: sending fails with ENOBUFS and EAGAIN, and most of
// what comes in is lost.
func socketBuffers(ctx context.Context, w *world, r *rand.Rand) (string, error) {
	s, wait := w.any(r), between(r, 500*time.Millisecond, 2*time.Second)
	n, restore, err := shorten(w.bank.Process(s.Machine).Pids())
	if err != nil {
		return s.Name, err
	}
	defer restore()
	if n == 0 {
		return s.Name, fmt.Errorf("the daemon of %s has no socket for datagrams", s.Name)
	}
	pause(ctx, wait)
	return fmt.Sprintf("%s: %d sockets for %s", s.Name, n, wait.Round(time.Millisecond)), nil
}

func (w *world) addAddress(s *station, family int) error {
	err := s.host.AddAddress(device, netip.PrefixFrom(s.address[family], [2]int{24, 64}[family]))
	return errors.Join(err, w.routes(s, family))
}

func addressRemoved(ctx context.Context, w *world, r *rand.Rand) (string, error) {
	s, family, wait := w.any(r), r.IntN(2), between(r, 0, 2*time.Second)
	if _, err := s.host.Run("ip", "addr", "del", fmt.Sprintf("%s/%d", s.address[family], [2]int{24, 64}[family]), "dev", device); err != nil {
		return s.Name, err
	}
	pause(ctx, wait)
	return fmt.Sprintf("%s: %s for %s", s.Name, s.address[family], wait.Round(time.Millisecond)), w.addAddress(s, family)
}

// addressAdded gives a machine one more address and talks from it at once, before the policy knows it.
func addressAdded(ctx context.Context, w *world, r *rand.Rand) (string, error) {
	i := r.IntN(2)
	s, other := w.nodes[i], w.nodes[1-i]
	for family, address := range []string{"10.83.0.211/24", "fd83::211/64"} {
		args := []string{"ip", "addr", "add", address, "dev", device}
		if family == 1 {
			args = append(args, "nodad")
		}
		if _, err := s.host.Run(args...); err != nil {
			return s.Name, err
		}
		ip, _, _ := strings.Cut(address, "/")
		c := caller{ctx: ctx, world: w, host: s.host, from: netip.MustParseAddr(ip), to: other.address[family], party: w.party}
		for range 20 {
			if conn, err := c.dial("udp", udpPort); err == nil {
				_, _ = conn.Write(w.party.Append(nil, smallSize, 0)) // what comes of it the wire shows
				_ = conn.Close()
			}
			pause(ctx, 10*time.Millisecond)
		}
	}
	pause(ctx, between(r, 0, time.Second))
	_, err4 := s.host.Run("ip", "addr", "del", "10.83.0.211/24", "dev", device)
	_, err6 := s.host.Run("ip", "addr", "del", "fd83::211/64", "dev", device)
	return s.Name, errors.Join(err4, err6)
}

// diskFull fills the file system of the state, has another policy come, kills the daemon, and starts it there.
func diskFull(ctx context.Context, w *world, r *rand.Rand) (string, error) {
	s := w.any(r)
	path := filepath.Join(w.bank.StateDir(s.Machine), "fill")
	f, err := os.Create(path)
	if err != nil {
		return s.Name, err
	}
	defer os.Remove(path)
	for b := make([]byte, 4096); err == nil; {
		_, err = f.Write(b)
	}
	if !errors.Is(err, unix.ENOSPC) {
		return s.Name, errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return s.Name, err
	}
	if err := w.swap(ctx); err != nil && w.controllerRuns() {
		return s.Name, err
	}
	pause(ctx, between(r, 100*time.Millisecond, time.Second))
	detail, err := w.kill(ctx, between(r, 0, time.Second), s)
	if err != nil {
		return detail, err
	}
	took, back := w.awaitTraffic(ctx, time.Now())
	if !back {
		return detail, fmt.Errorf("no traffic with a full disk after %s: %s", took, strings.Join(w.missing(time.Now().Add(-took)), ", "))
	}
	return fmt.Sprintf("%s, traffic back with the disk full after %s", detail, took.Round(time.Millisecond)), nil
}
