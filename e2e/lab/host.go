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
	"strconv"
	"strings"
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

// Pids returns the process and the children that it has.
func (p *Process) Pids() []int {
	pids := []int{p.Pid()}
	entries, _ := os.ReadDir("/proc") // without it there are no children to be seen
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if state, parent := stat(pid); state != 0 && parent == p.Pid() {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// stat returns the state of a process and its parent (proc(5)); a process that is gone has no state.
func stat(pid int) (state byte, parent int) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	// The name of the program stands in parentheses and may hold anything.
	rest := string(content[strings.LastIndexByte(string(content), ')')+1:])
	if _, err := fmt.Sscanf(rest, " %c %d", &state, &parent); err != nil {
		return 0, 0
	}
	return state, parent
}

// Wait waits until the process has ended.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the process and its children at once, as kill -9 does, and waits for them.
func (p *Process) Kill() error {
	children := p.Pids()[1:]
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	for _, pid := range children {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill child %d of %v: %w", pid, p.cmd.Args, err)
		}
		for deadline := time.Now().Add(5 * time.Second); ; <-time.After(time.Millisecond) {
			// Of a dead process the first thread may be there until the parent looks; what the others had open is closed with them.
			state, _ := stat(pid)
			threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
			if err != nil || len(threads) < 2 && (state == 0 || state == 'Z' || state == 'X') {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("child %d of %v does not end", pid, p.cmd.Args)
			}
		}
	}
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
