// Package swtpm runs a TPM 2.0 in software for tests: a process of its own that answers on a unix socket and keeps its state
// in a directory, as a TPM keeps it in its chip.
//
// It owns the process and a temporary directory; Close removes both. It needs Debian's swtpm, and says so when it is
// missing. What is in the TPM is not its business.
package swtpm

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// ErrNotInstalled says that swtpm is missing.
var ErrNotInstalled = errors.New("swtpm is needed (apt-get install swtpm)")

// startup bounds how long a TPM may take until it answers.
const startup = 20 * time.Second

// TPM is one software TPM, with a seed of its own. Its methods are for one goroutine.
type TPM struct {
	// Device is the path of its socket, which is there while it runs.
	Device string

	dir    string
	cmd    *exec.Cmd
	exited chan struct{}
	log    bytes.Buffer
}

// New makes a TPM and starts it.
func New() (*TPM, error) {
	if _, err := exec.LookPath("swtpm"); err != nil {
		return nil, ErrNotInstalled
	}
	dir, err := os.MkdirTemp("", "swtpm") // a socket's path must be short
	if err != nil {
		return nil, err
	}
	t := &TPM{Device: filepath.Join(dir, "tpm"), dir: dir}
	if err := os.Mkdir(t.state(), 0o700); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	if err := t.Start(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *TPM) state() string { return filepath.Join(t.dir, "state") }

// Start switches the TPM on, with what it kept. What was loaded is gone, as after a power cycle.
func (t *TPM) Start() error {
	t.log.Reset()
	t.cmd = exec.Command("swtpm", "socket", "--tpm2", "--server", "type=unixio,path="+t.Device, "--tpmstate", "dir="+t.state(), "--flags", "not-need-init,startup-clear")
	t.cmd.Stdout, t.cmd.Stderr = &t.log, &t.log
	if err := t.cmd.Start(); err != nil {
		t.cmd = nil
		return fmt.Errorf("start swtpm: %w", err)
	}
	exited, cmd := make(chan struct{}), t.cmd
	t.exited = exited
	go func() {
		_ = cmd.Wait() // that it was killed is no news
		close(exited)
	}()
	deadline := time.After(startup)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("unix", t.Device)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-exited:
			t.Kill()
			return fmt.Errorf("swtpm ended: %s", bytes.TrimSpace(t.log.Bytes()))
		case <-deadline:
			t.Kill()
			return fmt.Errorf("swtpm does not answer: %w: %s", err, bytes.TrimSpace(t.log.Bytes()))
		}
	}
}

// Pause has the TPM answer nothing until Resume.
func (t *TPM) Pause() error { return t.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume ends a pause.
func (t *TPM) Resume() error { return t.cmd.Process.Signal(syscall.SIGCONT) }

// Kill takes the TPM away, with its device.
func (t *TPM) Kill() {
	if t.cmd == nil {
		return
	}
	// It fails only when the process has already ended.
	_ = t.cmd.Process.Kill()
	<-t.exited
	t.cmd = nil
	_ = os.Remove(t.Device) // gone already where swtpm could still remove it
}

// Replace puts another TPM in the place of this one: with another seed, which has never seen what this one made.
func (t *TPM) Replace() error {
	t.Kill()
	if err := os.RemoveAll(t.state()); err != nil {
		return err
	}
	if err := os.Mkdir(t.state(), 0o700); err != nil {
		return err
	}
	return t.Start()
}

// Close kills the TPM and removes everything that it made.
func (t *TPM) Close() error {
	t.Kill()
	return os.RemoveAll(t.dir)
}
