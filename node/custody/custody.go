// Package custody runs the daemon as the child of a process that does nothing but hold what has to outlive it: the netlink
// socket that the nftables table belongs to. As long as somebody holds that, no other program can take the rules away,
// however the daemon ended.
//
// Its invariant: the child never outlives the holder, so that there are never two daemons; and a daemon that was up is
// started again whenever it ends, unless somebody asked it to. What ends before it was up ends the holder as well, with
// the same exit code: who started it learns of it. It reads nothing from the socket, and leaves to systemd what is to
// outlive the holder too.
package custody

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Config says what is run and what is held.
type Config struct {
	// Path and Args are the daemon's program and its arguments, without the name; it takes over with Inherit.
	Path   string
	Args   []string
	Owner  *os.File // see nftable.NewOwner
	Logger hclog.Logger
}

// EndError says that the daemon has ended, and with what exit code; it has told the reason itself.
type EndError struct{ Code int }

// Error names the exit code.
func (e *EndError) Error() string { return fmt.Sprintf("the daemon ended with exit code %d", e.Code) }

// The descriptors of the daemon.
const (
	ownerDescriptor = 3
	upDescriptor    = 4
)

// Held is what a daemon has inherited from its holder.
type Held struct {
	Owner *os.File
	up    *os.File
}

// Inherit returns what Keep has left to this process. It is for a process that Keep has started, and for once.
func Inherit() *Held {
	syscall.CloseOnExec(ownerDescriptor)
	syscall.CloseOnExec(upDescriptor)
	return &Held{Owner: os.NewFile(ownerDescriptor, "inherited descriptor 3"), up: os.NewFile(upDescriptor, "inherited descriptor 4")}
}

// Up tells the holder that the daemon works: from now on it is started again when it ends. Without a holder it does nothing.
func (h *Held) Up() {
	if h == nil || h.up == nil {
		return
	}
	_, _ = h.up.Write([]byte{1}) // a holder that is gone takes this process with it
	_ = h.up.Close()
	h.up = nil
}

// Keep runs the daemon until ctx ends, and then asks it to end. The error is an EndError where the daemon ended with one.
func Keep(ctx context.Context, c Config) error {
	// The kernel kills the child when the thread ends that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	quit := make(chan os.Signal, 1)
	signal.Notify(quit, syscall.SIGQUIT)
	defer signal.Stop(quit)
	var wait pauses
	for wasUp := false; ; {
		begin := time.Now()
		d, err := start(c)
		if err != nil {
			return err
		}
		asked := d.wait(ctx, quit)
		wasUp = wasUp || d.up
		if asked || !wasUp || d.code == 0 {
			return d.end()
		}
		pause := wait.after(time.Since(begin))
		c.Logger.Error("the daemon has ended and is started again; what must be protected stays blocked meanwhile", "end", d.state, "pause", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// daemon is one life of the child.
type daemon struct {
	cmd   *exec.Cmd
	ready chan bool // once: whether it came up
	gone  chan error
	up    bool
	code  int
	state string
}

func start(c Config) (*daemon, error) {
	ours, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	d := &daemon{cmd: exec.CommandContext(context.Background(), c.Path, c.Args...), ready: make(chan bool, 1), gone: make(chan error, 1)}
	d.cmd.Args[0] = os.Args[0]
	d.cmd.Stdin, d.cmd.Stdout, d.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	d.cmd.Env = withoutSystemd(os.Environ())
	d.cmd.ExtraFiles = []*os.File{c.Owner, theirs} // descriptors 3 and 4
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = d.cmd.Start()
	if err := errors.Join(err, theirs.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("start the daemon: %w", err), ours.Close())
	}
	go func() {
		n, _ := ours.Read(make([]byte, 1)) // the other end is closed with the process at the latest
		_ = ours.Close()
		d.ready <- n == 1
	}()
	go func() { d.gone <- d.cmd.Wait() }()
	return d, nil
}

// wait waits for the end, and reports whether somebody asked for it.
func (d *daemon) wait(ctx context.Context, quit <-chan os.Signal) (asked bool) {
	stop := ctx.Done()
	for {
		select {
		case <-stop:
			asked, stop = true, nil
			_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
		case s := <-quit:
			asked = true
			_ = d.cmd.Process.Signal(s)
		case <-d.gone:
			d.up = <-d.ready
			d.code, d.state = d.cmd.ProcessState.ExitCode(), d.cmd.ProcessState.String()
			return asked
		}
	}
}

// end is what the holder ends with.
func (d *daemon) end() error {
	switch {
	case d.code == 0:
		return nil
	case d.code > 0:
		return &EndError{Code: d.code}
	}
	return fmt.Errorf("the daemon has ended: %s", d.state)
}

// withoutSystemd leaves out what systemd tells its own child only (sd_notify(3), sd_listen_fds(3)).
func withoutSystemd(environment []string) []string {
	var out []string
	for _, e := range environment {
		switch name, _, _ := strings.Cut(e, "="); name {
		case notifyVariable, "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID":
		default:
			out = append(out, e)
		}
	}
	return out
}

// pauses grow as long as the daemon does not live for a while.
type pauses struct{ last time.Duration }

// Bounds of pauses: the rules hold meanwhile, but nothing is negotiated.
const (
	shortest = 100 * time.Millisecond
	longest  = 30 * time.Second
	aWhile   = time.Minute
)

// after returns the pause after a life.
func (p *pauses) after(lived time.Duration) time.Duration {
	if lived >= aWhile {
		p.last = 0
	}
	p.last = min(max(2*p.last, shortest), longest)
	return p.last
}
