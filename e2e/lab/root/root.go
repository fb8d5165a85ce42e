// Package root makes directories that hold the programs of any Debian suite, for peers that are newer than the machine's
// own packages: strongSwan 6.1 is in "forky" while tests run on Debian 12.
//
//	r, err := root.Open(ctx, root.StrongSwan)                    // built on first use, then kept in the user's cache
//	charon.Start(ctx, charon.Config{Host: host, Root: r, ...})   // the harness runs the daemon in it
//	cmd := host.Command(r.Command([]string{dir}, "pki", "--gen")...) // any other program; dir is seen under its own path
//
// Its invariant: what a root holds came from the Debian mirror that the machine's own apt uses and passed apt's checks of
// signatures and digests; no maintainer script runs, and a root whose making failed is never seen. Nothing writes to a
// finished root: programs get a /tmp, /run, /dev/shm and /proc of their own. It needs root and the keyring that every Debian has.
// It leaves namespaces to e2e/lab. To renew a root, remove its directory.
package root

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// StrongSwan is strongSwan 6.1: ML-KEM, and ESP in user space without UDP.
var StrongSwan = Config{Suite: "forky", Packages: []string{
	"charon-systemd", "strongswan-swanctl", "strongswan-pki", "libcharon-extra-plugins", "libcharon-extauth-plugins",
	"libstrongswan-standard-plugins", "libstrongswan-extra-plugins", "iproute2", "iputils-ping",
}}

// Config says what a root holds.
type Config struct {
	Suite    string   // a suite or codename of the mirror: "forky"
	Packages []string // these and what they depend on, without recommendations
}

// Root is a finished root. It may be used from any goroutine.
type Root struct {
	Dir string // where it lies; to be read only
}

// layout counts changes of this package that make finished roots useless.
const layout = 1

// ErrUnreachable says that the mirror does not give what a root is made of: there is no network, or it has no such suite.
// Tests that need the root cannot run then.
var ErrUnreachable = errors.New("the Debian mirror does not give it")

// CacheDir is where finished roots and whatever else takes long to make are kept between runs: a directory of the user's
// own cache.
func CacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache directory: %w", err)
	}
	return filepath.Join(base, "bailiwick-lab"), nil
}

// Open returns the root of a configuration and makes it if there is none yet, which takes 10 s to 30 s and a mirror.
// Processes that ask for the same root at the same time wait for each other.
func Open(ctx context.Context, config Config) (*Root, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("making a root of a Debian suite needs root")
	}
	if config.Suite == "" || strings.ContainsAny(config.Suite, "/ \t\n]") || len(config.Packages) == 0 {
		return nil, fmt.Errorf("root of suite %q with packages %v: want a plain suite and at least one package", config.Suite, config.Packages)
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, config.name())
	err = Once(dir, func(unfinished string) error { return build(ctx, config, unfinished) })
	if err != nil {
		return nil, fmt.Errorf("make a root of Debian %s: %w", config.Suite, err)
	}
	return &Root{Dir: dir}, nil
}

// name is different for whatever would make a different root.
func (c Config) name() string {
	packages := slices.Sorted(slices.Values(c.Packages))
	sum := sha256.Sum256(fmt.Append(nil, layout, c.Suite, packages))
	return fmt.Sprintf("root-%s-%x", c.Suite, sum[:6])
}

// Once makes a file or directory of the cache if it is not there: make gets the path of one to be made, which takes the
// place of path only when make succeeds. Of several processes one makes it and the others wait.
func Once(path string, make func(unfinished string) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	unfinished := path + ".unfinished"
	if err := os.RemoveAll(unfinished); err != nil {
		return fmt.Errorf("remove what an earlier run left unfinished: %w", err)
	}
	if err := make(unfinished); err != nil {
		return errors.Join(err, os.RemoveAll(unfinished))
	}
	return os.Rename(unfinished, path)
}

// enter runs in the mount namespace that "ip netns exec" has made, so that nothing of it outlives the command: the root
// gets file systems of its own where programs write, and the directories to share under their own paths.
const enter = `
root=$1
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs run "$root/run"
mkdir -p "$root/dev/shm"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
mount -t proc proc "$root/proc"
shift
while [ "$1" != -- ]; do
	mkdir -p "$root$1"
	mount --bind "$1" "$root$1"
	shift
done
shift
exec chroot "$root" "$@"
`

// Command completes a command that is to run in the root, for Host.Run and Host.Command of e2e/lab: only there it has a
// mount namespace of its own. Share names directories that the command is to see under their own paths. The process
// becomes the command, so that its ID is the command's.
func (r *Root) Command(share []string, command ...string) []string {
	args := []string{"sh", "-ec", enter, "enter-root", r.Dir}
	args = append(args, share...)
	return append(append(args, "--"), command...)
}
