package controller

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/controller/store/embedded"
	"github.com/bailiwick-net/bailiwick/pki/ca"
)

// ready makes a configuration whose every file exists.
func ready(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	file := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return Config{
		StateDir: filepath.Join(dir, "state"), Listen: []string{"127.0.0.1:0"}, Names: []string{"127.0.0.1"},
		Admin:     AdminConfig{Socket: filepath.Join(dir, "admin.sock")},
		Directory: DirectoryConfig{LDIF: &LDIFConfig{Path: file("fleet.ldif", "dn: dc=bank,dc=example\nobjectClass: domain\ndc: bank\n")}},
		CA:        CAConfig{Init: true, KeyFile: file("ca.secret", strings.Repeat("k", 32)), PassphraseFile: ""},
	}
}

// load loads and closes, and returns what loading said.
func load(t *testing.T, c Config) error {
	t.Helper()
	loaded, err := Load(t.Context(), c)
	if err == nil {
		if err := loaded.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	}
	return err
}

func TestLoadRefusesAndLeavesNothingRunning(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, c *Config)
		want  error
	}{
		"no CA": {func(_ *testing.T, c *Config) { c.CA.Init = false }, ErrNoCA},
		"another trust domain": {func(t *testing.T, c *Config) {
			if err := load(t, *c); err != nil {
				t.Fatal(err)
			}
			c.TrustDomain = "other.example"
		}, ErrTrustDomain},
		"no trust domain": {func(t *testing.T, c *Config) {
			if err := os.WriteFile(c.Directory.LDIF.Path, []byte("dn: o=bank\nobjectClass: organization\no: bank\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, ErrTrustDomain},
		"wrong key": {func(t *testing.T, c *Config) {
			if err := load(t, *c); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(c.CA.KeyFile, []byte(strings.Repeat("x", 32)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, ca.ErrUnlock},
		"key that others can read": {func(t *testing.T, c *Config) {
			if err := os.Chmod(c.CA.KeyFile, 0o644); err != nil {
				t.Fatal(err)
			}
		}, ca.ErrKeyFile},
		"passphrase that others can read": {func(t *testing.T, c *Config) {
			if err := os.Chmod(c.CA.KeyFile, 0o644); err != nil {
				t.Fatal(err)
			}
			c.CA.KeyFile, c.CA.PassphraseFile = "", c.CA.KeyFile
		}, ca.ErrKeyFile},
		"state in use": {func(t *testing.T, c *Config) {
			running, err := Load(t.Context(), *c)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { running.Close() })
		}, embedded.ErrInUse},
	} {
		t.Run(name, func(t *testing.T) {
			c := ready(t)
			test.spoil(t, &c)
			if err := load(t, c); !errors.Is(err, test.want) {
				t.Errorf("got %v, wanted %v", err, test.want)
			}
			if errors.Is(test.want, embedded.ErrInUse) {
				return
			}
			// Whatever was opened is closed: the state can be opened again.
			e, err := embedded.Start(t.Context(), embedded.Config{Dir: filepath.Join(c.StateDir, "etcd")})
			if err != nil {
				t.Fatalf("the state is still open: %v", err)
			}
			e.Close()
		})
	}
}

func TestPassphraseFromAnEditor(t *testing.T) {
	c := ready(t)
	c.CA.KeyFile, c.CA.PassphraseFile = "", c.CA.KeyFile
	if err := os.WriteFile(c.CA.PassphraseFile, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := load(t, c); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.CA.PassphraseFile, []byte("correct horse battery"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := load(t, c); err != nil {
		t.Errorf("the passphrase without its line feed is another one: %v", err)
	}
}

func TestSocketOfADeadController(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	alive, err := listenSocket(context.Background(), path)
	if err != nil {
		t.Fatalf("the socket that a dead controller left is in the way: %v", err)
	}
	defer alive.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket has mode %v, error %v", info.Mode(), err)
	}
	if _, err := listenSocket(context.Background(), path); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the socket of a controller that runs was taken: %v", err)
	}
}
