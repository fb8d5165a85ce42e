package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Host is one network namespace.
type Host struct {
	Name      string // as given to Lab.Host
	Namespace string // as ip(8) knows it

	lab *Lab
	mu  struct {
		sync.Mutex
		processes []*Process
	}
}

// Run runs a command on the host and returns its standard output.
func (h *Host) Run(command ...string) (string, error) {
	return h.RunContext(context.Background(), command...)
}

// RunContext is Run with a bound on its time.
func (h *Host) RunContext(ctx context.Context, command ...string) (string, error) {
	if len(command) == 0 {
		return "", errors.New("no command to run")
	}
	return outputContext(ctx, "ip", append([]string{"netns", "exec", h.Namespace}, command...)...)
}

// Command prepares a command that will run on the host; the caller sets its input and output and gives it to Start.
func (h *Host) Command(command ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", h.Namespace}, command...)...)
}

// Process is a process that runs on a host.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid when done is closed
}

// Start starts a command of Command. It is killed when the Lab is closed.
func (h *Host) Start(cmd *exec.Cmd) (*Process, error) {
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %v on host %s: %w", cmd.Args, h.Name, err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	h.mu.Lock()
	h.mu.processes = append(h.mu.processes, p)
	h.mu.Unlock()
	return p, nil
}

// Pid returns the process ID. ip(8) replaces itself, so it is that of the command.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Wait waits until the process has ended.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the process at once, as kill -9 does, and waits for it.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// Stop asks the process to end, and kills it after grace.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
		return p.Kill()
	}
}

// Do calls f on a thread that is in the namespace: the sockets, devices and captures that f makes belong to the host,
// and keep to it when they are used elsewhere later. Goroutines that f starts do not run on the host.
func (h *Host) Do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, and no other goroutine runs in the wrong namespace.
		runtime.LockOSThread()
		if err := h.enter(); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

func (h *Host) enter() error {
	ns, err := os.Open(filepath.Join(namespaces, h.Namespace))
	if err != nil {
		return fmt.Errorf("open the network namespace of host %s: %w", h.Name, err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace of host %s: %w", h.Name, err)
	}
	return nil
}

// AddAddress gives an interface an address. IPv6 addresses are usable at once, without duplicate address detection.
func (h *Host) AddAddress(device string, address netip.Prefix) error {
	args := []string{"-n", h.Namespace, "addr", "add", address.String(), "dev", device}
	if address.Addr().Is6() {
		args = append(args, "nodad")
	}
	return ip(args...)
}

// Sysctl sets a value under net: "net.ipv4.ip_forward".
func (h *Host) Sysctl(name, value string) error {
	_, err := h.Run("sysctl", "-q", "-w", name+"="+value)
	return err
}

func (h *Host) close() error {
	h.mu.Lock()
	processes := h.mu.processes
	h.mu.processes = nil
	h.mu.Unlock()
	var errs []error
	for _, p := range processes {
		errs = append(errs, p.Kill())
	}
	return errors.Join(errs...)
}
