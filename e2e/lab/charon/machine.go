package charon

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/guest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
)

// machine is where a daemon runs.
type machine interface {
	name() string
	// provide makes the files that a directory of this process has ready for the daemon, under the same path.
	provide(ctx context.Context, dir string) error
	// remove removes a file; one that is not there is no error.
	remove(ctx context.Context, path string) error
	read(path string) ([]byte, error)
	run(ctx context.Context, command ...string) (string, error)
	// start starts the daemon; what it writes goes to the file.
	start(output string, env []string, command ...string) (process, error)
	dial(ctx context.Context, socket string) (net.Conn, error)
}

// process is the daemon's.
type process interface {
	Done() <-chan struct{}
	Wait() error
	Kill() error
	Stop(grace time.Duration) error
}

func (c *Config) machine() machine {
	if c.Guest != nil {
		return guestMachine{c.Guest}
	}
	return hostMachine{c.Host, c.Root, c.Dir}
}

// hostMachine is a host of a lab, with the programs of a root or those of the test machine.
type hostMachine struct {
	host *lab.Host
	root *root.Root
	dir  string
}

func (m hostMachine) name() string { return m.host.Name }

func (hostMachine) provide(context.Context, string) error { return nil }

func (hostMachine) remove(_ context.Context, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (hostMachine) read(path string) ([]byte, error) { return os.ReadFile(path) }

// inRoot completes a command that is to run in the root, if there is one.
func (m hostMachine) inRoot(command []string) []string {
	if m.root == nil {
		return command
	}
	return m.root.Command([]string{m.dir}, command...)
}

func (m hostMachine) run(ctx context.Context, command ...string) (string, error) {
	return m.host.RunContext(ctx, m.inRoot(command)...)
}

func (m hostMachine) start(output string, env []string, command ...string) (process, error) {
	out, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := m.host.Command(m.inRoot(command)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	return m.host.Start(cmd)
}

func (hostMachine) dial(ctx context.Context, socket string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", socket)
}

// guestMachine is a guest with a kernel of its own.
type guestMachine struct{ guest *guest.Guest }

func (guestMachine) name() string { return "guest" }

// provide copies the files and makes the directories.
func (m guestMachine) provide(ctx context.Context, dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return m.guest.WriteFile(ctx, path, content)
	})
}

func (m guestMachine) remove(ctx context.Context, path string) error {
	_, err := m.run(ctx, "rm", "-f", path)
	return err
}

func (m guestMachine) read(path string) ([]byte, error) {
	return m.guest.ReadFile(context.Background(), path)
}

func (m guestMachine) run(ctx context.Context, command ...string) (string, error) {
	return m.guest.RunContext(ctx, command...)
}

func (m guestMachine) start(output string, env []string, command ...string) (process, error) {
	script := `exec "$@" >>` + quote(output) + ` 2>&1`
	return m.guest.Start(env, append([]string{"sh", "-c", script, "sh"}, command...)...)
}

// quote writes a word of the shell's language.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

func (m guestMachine) dial(ctx context.Context, socket string) (net.Conn, error) {
	return m.guest.DialContext(ctx, "unix", socket)
}
