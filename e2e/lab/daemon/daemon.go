// Package daemon runs a server of a test as a process of this machine.
//
// Its invariant: a Daemon that was ended has ended, and what it wrote is in the error when it was not ready. It leaves what
// the server is, its files and its address to the packages beside it, and servers on hosts of a lab to e2e/lab.
package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Daemon is a process. The nil Daemon is one that has ended.
type Daemon struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed once cmd has its ProcessState
	log    bytes.Buffer  // complete once exited is closed
}

// Start starts a command and keeps what it writes.
func Start(cmd *exec.Cmd) (*Daemon, error) {
	d := &Daemon{cmd: cmd, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &d.log, &d.log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait() // how it ended stands in ProcessState
		close(d.exited)
	}()
	return d, nil
}

// Await asks every 5 ms whether the daemon is ready, until it is, or it ends, or the time is up. The daemon has ended where
// it was not ready, and the error says what it wrote.
func (d *Daemon) Await(ctx context.Context, most time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	name := filepath.Base(d.cmd.Path)
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-d.exited:
			return fmt.Errorf("%s ended at once (%s): %s", name, d.cmd.ProcessState, bytes.TrimSpace(d.log.Bytes()))
		case <-ctx.Done():
			d.End(os.Kill)
			return fmt.Errorf("%s does not answer: %w: %s", name, err, bytes.TrimSpace(d.log.Bytes()))
		case <-tick.C:
		}
	}
}

// Signal sends a signal.
func (d *Daemon) Signal(s os.Signal) error {
	if d == nil {
		return os.ErrProcessDone
	}
	return d.cmd.Process.Signal(s)
}

// End sends a signal and waits for the end.
func (d *Daemon) End(s os.Signal) {
	if d == nil {
		return
	}
	// It fails only when the process has already ended.
	_ = d.Signal(s)
	<-d.exited
}

// ForTest takes what started a server, and closes it with the test. The test fails where there was an error: left out, it would
// show nothing.
func ForTest[S io.Closer](t testing.TB, server S, err error) S {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}
