package statefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ErrLocked says that another process works in the state directory.
var ErrLocked = errors.New("another process uses this state directory")

const lockFile = "lock"

// Lock takes the state directory for this process, until the returned file is closed or the process ends. Two daemons in
// one directory would replace each other's key, certificate and policy. Where there is one already, the error wraps
// ErrLocked.
func Lock(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s: %w; is another bailiwick-node running", dir, ErrLocked)
	}
	return nil, fmt.Errorf("lock state directory %s: %w", dir, err)
}
