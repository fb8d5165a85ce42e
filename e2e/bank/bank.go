// Package bank plays the Bank: a directory with three policies, and machines in network namespaces on one bridge that
// run the real binaries. The demo shows it, scenarios test with it.
//
// Its invariant: an outcome is decided by a real exchange and a capture, never by what the machines say of themselves;
// everything it made is gone after Close, or at the next New after a crash. It leaves namespaces to e2e/lab.
package bank

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base32"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

//go:embed bank.ldif
var directoryLDIF []byte

// LDIF is the Bank's directory, for ldapadd and for the controller.
func LDIF() []byte { return bytes.Clone(directoryLDIF) }

// Machine is one machine of the Bank.
type Machine struct {
	Name    string
	Class   Class
	Address netip.Addr
	// Node says that Bailiwick runs on it.
	Node bool
}

// DNSName is the machine's name in the directory.
func (m Machine) DNSName() string { return m.Name + ".bank.example" }

// Machines are the Bank's machines: two of each class, so that every cell of the matrix has a pair of its own. guest1 is
// not even in the directory.
func Machines() []Machine {
	at := func(host byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 83, 0, host}) }
	return []Machine{
		{"sql1", SecureServer, at(11), true}, {"sql2", SecureServer, at(12), true},
		{"files1", Server, at(21), true}, {"files2", Server, at(22), true},
		{"ws1", Client, at(31), true}, {"ws2", Client, at(32), true},
		{"printer1", NoPolicy, at(41), false}, {"guest1", NoPolicy, at(42), false},
	}
}

// EchoPort is the TCP port of the echo service on every machine.
const EchoPort = 7007

const (
	nodePort   = 7443
	subnetBits = 24
)

var controllerAddress = netip.AddrFrom4([4]byte{10, 83, 0, 2})

// Config configures a Bank.
type Config struct {
	// Bin is the directory of the three binaries.
	Bin string
	// Dir receives all state and logs.
	Dir string
	// KeyLog makes the nodes write their keys to files in Dir.
	KeyLog bool
	// Prefix is that of the namespaces, "bank-" where it is empty: two Banks at a time need two of them.
	Prefix string
	// NodeArgs are further arguments of every bailiwick-node run.
	NodeArgs []string
}

// Bank is a running Bank.
type Bank struct {
	config     Config
	lab        *lab.Lab
	bridge     *lab.Bridge
	hosts      map[string]*lab.Host
	controller *lab.Process
	nodes      map[string]*lab.Process
	tpms       map[string]string // devices of the machines that have one, by name
	stopEcho   context.CancelFunc
}

// New builds the network, starts an echo service on every machine, and writes the directory. Nothing of Bailiwick runs
// yet.
func New(ctx context.Context, config Config) (_ *Bank, err error) {
	l, err := lab.New(cmp.Or(config.Prefix, "bank-"))
	if err != nil {
		return nil, err
	}
	echoContext, stopEcho := context.WithCancel(context.WithoutCancel(ctx))
	b := &Bank{config: config, lab: l, hosts: map[string]*lab.Host{}, nodes: map[string]*lab.Process{}, tpms: map[string]string{}, stopEcho: stopEcho}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if b.bridge, err = l.Bridge("switch"); err != nil {
		return nil, err
	}
	// The bridge device itself sees every frame that passes, so that one capture is enough.
	if _, err := b.bridge.Host.Run("ip", "link", "set", "br0", "promisc", "on"); err != nil {
		return nil, err
	}
	if err := b.attach("controller", controllerAddress); err != nil {
		return nil, err
	}
	for _, m := range Machines() {
		if err := b.attach(m.Name, m.Address); err != nil {
			return nil, err
		}
		if err := b.hosts[m.Name].ServeEcho(echoContext, EchoPort); err != nil {
			return nil, err
		}
	}
	passphrase := make([]byte, 20)
	if _, err := rand.Read(passphrase); err != nil {
		return nil, err
	}
	if err := os.WriteFile(b.path("ca.passphrase"), []byte(base32.StdEncoding.EncodeToString(passphrase)), 0o600); err != nil {
		return nil, err
	}
	return b, os.WriteFile(b.Directory(), directoryLDIF, 0o600)
}

func (b *Bank) attach(name string, address netip.Addr) error {
	host, err := b.lab.Host(name)
	if err != nil {
		return err
	}
	b.hosts[name] = host
	return b.bridge.Attach(lab.End{Host: host, Device: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(address, subnetBits)}})
}

func (b *Bank) path(elements ...string) string {
	return filepath.Join(append([]string{b.config.Dir}, elements...)...)
}

// Directory is the path of the LDIF file.
func (b *Bank) Directory() string { return b.path("bank.ldif") }

// AdminSocket is the path of the controller's admin socket.
func (b *Bank) AdminSocket() string { return b.path("controller", "admin.sock") }

// NodeSocket is the path of a machine's local socket.
func (b *Bank) NodeSocket(m Machine) string { return b.path(m.Name, "node.sock") }

// StateDir is the state directory of a machine's node.
func (b *Bank) StateDir(m Machine) string { return b.path(m.Name) }

// Log is the path of a node's log.
func (b *Bank) Log(m Machine) string { return b.path(m.Name + ".log") }

// KeyLog is the path of a node's key log; see Config.KeyLog.
func (b *Bank) KeyLog(m Machine) string { return b.path(m.Name + ".keys") }

// Switch is the namespace of the bridge "br0", which receives every frame that passes.
func (b *Bank) Switch() *lab.Host { return b.bridge.Host }

// Process is the daemon of a machine that was started last.
func (b *Bank) Process(m Machine) *lab.Process { return b.nodes[m.Name] }

// Host is the namespace of a machine.
func (b *Bank) Host(m Machine) *lab.Host { return b.hosts[m.Name] }

// Machine finds a machine by name.
func (b *Bank) Machine(name string) Machine {
	for _, m := range Machines() {
		if m.Name == name {
			return m
		}
	}
	return Machine{Name: name}
}

// Capture records everything that passes the bridge.
func (b *Bank) Capture() (*lab.Capture, error) { return b.bridge.Host.Capture("br0") }

// start runs a binary on a host, its output going to a log file in Dir.
func (b *Bank) start(host *lab.Host, log string, command ...string) (*lab.Process, error) {
	out, err := os.OpenFile(b.path(log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	command[0] = filepath.Join(b.config.Bin, command[0])
	cmd := host.Command(command...)
	cmd.Stdout, cmd.Stderr = out, out
	return host.Start(cmd)
}

// StartController starts the controller, for the first time with a new CA, and waits until it answers.
func (b *Bank) StartController(ctx context.Context) error {
	dir := b.path("controller")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	process, err := b.start(b.hosts["controller"], "controller.log", "bailiwick-controller",
		"--state-dir", dir, "--init", "--ca-passphrase-file", b.path("ca.passphrase"),
		"--directory", "ldif:"+b.Directory(), "--listen", fmt.Sprintf("%s:%d", controllerAddress, nodePort),
		"--name", controllerAddress.String(), "--admin-socket", b.AdminSocket())
	if err != nil {
		return err
	}
	b.controller = process
	return b.until(ctx, "the controller answers", func(ctx context.Context) (bool, error) {
		select {
		case <-process.Done():
			return false, fmt.Errorf("the controller ended; see %s", b.path("controller.log"))
		default:
		}
		_, err := b.Admin(ctx, "directory", "status")
		return err == nil, nil
	})
}

// KillController ends the controller as kill -9 does.
func (b *Bank) KillController() error { return b.controller.Kill() }

// until polls every 20 ms; it fails with what was waited for when ctx ends.
func (b *Bank) until(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done(ctx)
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}

// Admin runs the admin CLI against the controller and returns what it printed.
func (b *Bank) Admin(ctx context.Context, args ...string) (string, error) {
	return b.run(ctx, nil, "bailiwick", append([]string{"--socket", b.AdminSocket()}, args...)...)
}

func (b *Bank) run(ctx context.Context, host *lab.Host, binary string, args ...string) (string, error) {
	path := filepath.Join(b.config.Bin, binary)
	if host != nil {
		return host.RunContext(ctx, append([]string{path}, args...)...)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", binary, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// Join makes a token for the machine and lets its node redeem it. It returns what the node printed of its certificate.
func (b *Bank) Join(ctx context.Context, m Machine) (string, error) {
	token, err := b.Admin(ctx, "token", "create", m.Name)
	if err != nil {
		return "", err
	}
	file := b.path(m.Name + ".token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		return "", err
	}
	defer os.Remove(file)
	if err := os.MkdirAll(b.path(m.Name), 0o700); err != nil {
		return "", err
	}
	args := append([]string{"join", "--state-dir", b.path(m.Name), "--controller", fmt.Sprintf("%s:%d", controllerAddress, nodePort),
		"--token-file", file, "--name", m.DNSName()}, b.keyArgs(m)...)
	return b.run(ctx, b.Host(m), "bailiwick-node", args...)
}

// UseTPM has a machine make its next keys in a TPM.
func (b *Bank) UseTPM(m Machine, device string) { b.tpms[m.Name] = device }

// keyArgs are the arguments that say where a machine's key is made.
func (b *Bank) keyArgs(m Machine) []string {
	if device := b.tpms[m.Name]; device != "" {
		return []string{"--identity-key", "tpm", "--tpm-device", device}
	}
	return nil
}

// StartNode starts the daemon of a machine that has joined.
func (b *Bank) StartNode(m Machine) error {
	args := []string{"bailiwick-node", "run", "--state-dir", b.path(m.Name), "--socket", b.NodeSocket(m), "--log-level", "debug"}
	if b.config.KeyLog {
		args = append(args, "--keylog", b.KeyLog(m))
	}
	process, err := b.start(b.Host(m), m.Name+".log", slices.Concat(args, b.config.NodeArgs, b.keyArgs(m))...)
	if err != nil {
		return err
	}
	b.nodes[m.Name] = process
	return nil
}

// KillNode ends the daemon of a machine as kill -9 does.
func (b *Bank) KillNode(m Machine) error { return b.nodes[m.Name].Kill() }

// Node is the local window of a machine.
func (b *Bank) Node(m Machine) *localapi.Client { return localapi.NewClient(b.NodeSocket(m)) }

// AwaitPolicy waits until the machine enforces the policy and has it confirmed.
func (b *Bank) AwaitPolicy(ctx context.Context, m Machine, policy string) (status localapi.Status, err error) {
	client := b.Node(m)
	err = b.until(ctx, fmt.Sprintf("%s enforces %q", m.Name, policy), func(ctx context.Context) (bool, error) {
		if process := b.nodes[m.Name]; process != nil {
			select {
			case <-process.Done():
				return false, fmt.Errorf("the daemon of %s ended; see %s", m.Name, b.path(m.Name+".log"))
			default:
			}
		}
		var err error
		status, err = client.Status(ctx)
		return err == nil && status.Policy == policy && !status.Probation, nil
	})
	return status, err
}

// AwaitSession waits until the machine has a session with the controller.
func (b *Bank) AwaitSession(ctx context.Context, m Machine) error {
	client := b.Node(m)
	return b.until(ctx, m.Name+" has a session with the controller", func(ctx context.Context) (bool, error) {
		status, err := client.Status(ctx)
		return err == nil && status.Controller != "", nil
	})
}

// Move puts a machine into another container, as an edit of the LDIF file that replaces it whole.
func (b *Bank) Move(m Machine, container string) error {
	content, err := os.ReadFile(b.Directory())
	if err != nil {
		return err
	}
	lines := strings.Split(string(content), "\n")
	moved := false
	for i, line := range lines {
		// Groups name their members by DN: a directory server with referential integrity would do the same.
		for _, attribute := range []string{"dn: ", "member: "} {
			if strings.HasPrefix(line, attribute+"cn="+m.Name+",") {
				lines[i] = attribute + "cn=" + m.Name + "," + container
				moved = true
			}
		}
	}
	if !moved {
		return fmt.Errorf("%s is not in %s", m.Name, b.Directory())
	}
	temporary := b.Directory() + ".new"
	if err := os.WriteFile(temporary, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, b.Directory())
}

// Measure runs one exchange from a machine to another and lets the wire decide.
func (b *Bank) Measure(ctx context.Context, from, to Machine, wait time.Duration) (Cell, error) {
	cell := Cell{Initiator: from, Responder: to, From: from.Class, To: to.Class, Expected: Expected(from.Class, to.Class)}
	marker := make([]byte, 20)
	if _, err := rand.Read(marker); err != nil {
		return cell, err
	}
	payload := []byte(base32.StdEncoding.EncodeToString(marker))
	capture, err := b.Capture()
	if err != nil {
		return cell, err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	delay, exchangeErr := exchange(ctx, b.Host(from), netip.AddrPortFrom(to.Address, EchoPort), payload)
	frames, err := capture.Stop()
	if err != nil {
		return cell, err
	}
	cell.Wire = evidence(frames, from.Address, to.Address, EchoPort, payload)
	if exchangeErr != nil {
		cell.Err = exchangeErr.Error()
	} else {
		cell.FirstPacket = delay
	}
	cell.Seen = judge(exchangeErr == nil, delay, cell.Wire)
	return cell, nil
}

// Close ends everything and removes the namespaces. The files in Dir are left to whoever made it.
func (b *Bank) Close() error {
	b.stopEcho()
	return b.lab.Close()
}
