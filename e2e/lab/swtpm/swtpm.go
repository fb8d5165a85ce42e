// Package swtpm runs a TPM 2.0 in software for tests: a process of its own that answers on a unix socket and keeps its state
// in a directory, as a TPM keeps it in its chip.
//
// It owns the process and a temporary directory; Close removes both. It needs Debian's swtpm, and says so when it is
// missing. What is in the TPM is not its business.
package swtpm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab/daemon"
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
	daemon *daemon.Daemon
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

// ForTest starts a TPM that ends with the test, which fails where swtpm is not installed.
func ForTest(t testing.TB) *TPM {
	t.Helper()
	chip, err := New()
	return daemon.ForTest(t, chip, err)
}

func (t *TPM) state() string { return filepath.Join(t.dir, "state") }

// Start switches the TPM on, with what it kept. What was loaded is gone, as after a power cycle.
func (t *TPM) Start() error {
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--server", "type=unixio,path="+t.Device, "--tpmstate", "dir="+t.state(), "--flags", "not-need-init,startup-clear")
	var err error
	if t.daemon, err = daemon.Start(cmd); err != nil {
		return fmt.Errorf("start swtpm: %w", err)
	}
	err = t.daemon.Await(context.Background(), startup, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", t.Device)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		t.Kill()
	}
	return err
}

// Pause has the TPM answer nothing until Resume.
func (t *TPM) Pause() error { return t.daemon.Signal(syscall.SIGSTOP) }

// Resume ends a pause.
func (t *TPM) Resume() error { return t.daemon.Signal(syscall.SIGCONT) }

// Kill takes the TPM away, with its device.
func (t *TPM) Kill() {
	if t.daemon == nil {
		return
	}
	t.daemon.End(os.Kill)
	t.daemon = nil
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
