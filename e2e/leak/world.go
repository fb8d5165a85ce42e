package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"

	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/bank"
	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/leak/judge"
	"github.com/bailiwick-net/bailiwick/e2e/leak/proof"
)

// Ports of the machines. Everything but openPort must be protected.
const (
	udpPort    = 7001
	tcpPort    = 7002
	closedPort = 7003
	openPort   = 7999
	// forgedPort is the source port of forged TCP segments, and of nothing else.
	forgedPort = 6666
)

const (
	device        = "eth0"
	container     = "OU=SecureServers,dc=bank,dc=example"
	stateSize     = 4 << 20
	keepRules     = 100 // the first of the policy routing rules of the node
	routingTable  = "29803"
	tunDevice     = "bw0"
	nftablesTable = "bailiwick"
)

// station is a machine with its addresses.
type station struct {
	bank.Machine
	host    *lab.Host
	address [2]netip.Addr // of IPv4 and IPv6
	mac     net.HardwareAddr
}

// world is two machines that must protect everything between them, a third one that forges packets of theirs, the
// controller, and a tap on the bridge between all of them.
type world struct {
	bin, dir string
	bank     *bank.Bank
	mode     mode
	nodes    [2]*station
	pairs    [][2]*station // of whom each asks the other: the machines, and the hosts behind them
	intruder *station
	party    *proof.Party // protected traffic
	open     *proof.Party // traffic in clear that may be
	tap      *tap
	mounted  []string

	lanes    []*lane
	accepted accepted
	running  sync.WaitGroup
	stop     context.CancelFunc

	mu struct {
		sync.Mutex
		controller bool // it runs
		variant    int
	}
}

func newWorld(ctx context.Context, o options) (_ *world, err error) {
	w := &world{bin: o.bin, dir: o.dir, mode: o.mode}
	if w.party, err = proof.New(rand.Reader); err != nil {
		return nil, err
	}
	if w.open, err = proof.New(rand.Reader); err != nil {
		return nil, err
	}
	w.bank, err = bank.New(ctx, bank.Config{Bin: o.bin, Dir: o.dir, Prefix: o.prefix, NodeArgs: o.mode.nodeArgs()})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	stations := make([]*station, 0, 3)
	for i, name := range []string{"sql1", "sql2", "guest1"} {
		m := w.bank.Machine(name)
		s := &station{Machine: m, host: w.bank.Host(m)}
		s.address = [2]netip.Addr{m.Address, netip.MustParseAddr(fmt.Sprintf("fd83::%d", i+1))}
		if err := s.host.AddAddress(device, netip.PrefixFrom(s.address[1], 64)); err != nil {
			return nil, err
		}
		if err := s.hardware(); err != nil {
			return nil, err
		}
		// An answer to a segment that was forged before there was any protection is not to come when there is.
		if err := s.host.Sysctl("net.ipv4.tcp_synack_retries", "0"); err != nil {
			return nil, err
		}
		stations = append(stations, s)
	}
	w.nodes, w.intruder = [2]*station(stations[:2]), stations[2]
	w.pairs = [][2]*station{w.nodes}
	if w.mode == tunnel {
		if err := errors.Join(w.addHosts(), w.addContainers()); err != nil {
			return nil, err
		}
	}
	if w.tap, err = w.startTap(); err != nil {
		return nil, err
	}
	return w, nil
}

// statement is what the judge holds the wire to, in words of its own: no policy is read for it.
func (w *world) statement() judge.Statement {
	all := []netip.Prefix{netip.MustParsePrefix("10.83.0.0/24"), netip.MustParsePrefix("fd83::/64"), netip.MustParsePrefix("fe80::/10")}
	s := judge.Statement{
		Protect:   []judge.Flow{{Name: "between machines", A: all, B: all}},
		Permit:    []judge.Flow{{Name: "controller", A: all, B: all, Protocol: unix.IPPROTO_TCP, Port: 7443}, {Name: "open port", A: all, B: all, Protocol: unix.IPPROTO_UDP, Port: openPort}},
		Markers:   []string{w.party.Marker()},
		Canary:    w.open.Marker(),
		Injectors: []string{w.intruder.mac.String()},
	}
	if w.mode == tunnel {
		s.Protect = append(s.Protect, betweenHosts())
	}
	return s
}

// startDaemons starts the controller, has the machines join and puts the first policy into force. The state of each node
// is on a file system of its own, which can be filled.
func (w *world) startDaemons(ctx context.Context) error {
	if err := w.bank.StartController(ctx); err != nil {
		return err
	}
	w.setController(true)
	if err := w.swap(ctx); err != nil {
		return err
	}
	if err := w.link(ctx); err != nil {
		return err
	}
	for i, s := range w.nodes {
		state := w.bank.StateDir(s.Machine)
		if err := os.MkdirAll(state, 0o700); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", state, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", stateSize)); err != nil {
			return fmt.Errorf("mount a small file system at %s: %w", state, err)
		}
		w.mounted = append(w.mounted, state)
		if _, err := w.bank.Join(ctx, s.Machine); err != nil {
			return err
		}
		if err := w.bank.StartNode(s.Machine); err != nil {
			return err
		}
		if _, err := w.bank.AwaitPolicy(ctx, s.Machine, w.mode.policyName(i)); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) setController(runs bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.controller = runs
}

func (w *world) controllerRuns() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.controller
}

func (w *world) close() error {
	if w.stop != nil {
		w.stop()
		w.running.Wait()
	}
	err := w.bank.Close()
	for _, path := range w.mounted {
		err = errors.Join(err, unix.Unmount(path, 0))
	}
	return err
}

// logs returns the last lines of the log of a node, for whoever has to find out.
func (w *world) logs(s *station) string {
	const most = 60
	content, err := os.ReadFile(w.bank.Log(s.Machine))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}

// count counts the lines of a node's log that hold a text.
func (w *world) count(s *station, text string) int {
	content, err := os.ReadFile(w.bank.Log(s.Machine))
	if err != nil {
		return 0
	}
	return strings.Count(string(content), text)
}

func (w *world) writeStatement() (string, error) {
	b, err := json.Marshal(w.statement())
	if err != nil {
		return "", err
	}
	path := filepath.Join(w.dir, "statement.json")
	return path, os.WriteFile(path, b, 0o600)
}

// until polls until done, every 20 ms, and tells how long that took.
func until(ctx context.Context, bound time.Duration, done func() bool) (time.Duration, bool) {
	start := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(bound)
	defer deadline.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return time.Since(start), false
		case <-deadline.C:
			return time.Since(start), done()
		case <-tick.C:
		}
	}
	return time.Since(start), true
}

// pause waits, unless the run ends before.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
