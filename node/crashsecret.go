package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/statefile"
)

const (
	crashSecretFile = "crash-secret"
	crashSecretLen  = 32
)

// crashSecret reads the secret of quick crash detection (RFC 6290), and makes it at the first start, or where the file is
// not what it should be: it has to be the same after a restart.
func crashSecret(dir string) (sa.Secret, error) {
	path := filepath.Join(dir, crashSecretFile)
	content, err := statefile.Read(path, crashSecretLen)
	switch {
	case err == nil && len(content) == crashSecretLen:
		return sa.NewSecret(content), nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return sa.Secret{}, fmt.Errorf("read the secret of crash detection: %w", err)
	}
	content = make([]byte, crashSecretLen)
	// crypto/rand.Read never fails (it ends the program instead).
	_, _ = rand.Read(content)
	if err := statefile.Write(path, content); err != nil {
		return sa.Secret{}, fmt.Errorf("store the secret of crash detection: %w", err)
	}
	return sa.NewSecret(content), nil
}
