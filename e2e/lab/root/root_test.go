package root

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
)

// TestStrongSwan makes the root that peers need, and runs a program of it: the suite's own version, with a directory of
// the machine, and without a trace in the root.
func TestStrongSwan(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making a root needs root")
	}
	r, err := Open(t.Context(), StrongSwan)
	if errors.Is(err, ErrUnreachable) {
		t.Skipf("the packages of another suite are needed, and no mirror gives them: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	l := labtest.New(t, "bwroot-")
	host, err := l.Host("host")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	out, err := host.Run(r.Command([]string{dir}, "sh", "-c", "swanctl --version 2>&1; echo seen > $0/mark; echo > /tmp/litter; ls -d /proc/1", dir)...)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "strongSwan 6.") || !strings.Contains(out, "/proc/1") {
		t.Errorf("in the root, swanctl and ls say %q; want strongSwan 6 and a /proc", out)
	}
	if _, err := os.Stat(filepath.Join(dir, "mark")); err != nil {
		t.Errorf("the shared directory does not have what the command wrote: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(r.Dir, "proc")); err != nil || len(left) > 0 {
		t.Errorf("the root's /proc is still mounted: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(r.Dir, "tmp", "litter")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the command wrote to the root: %v", err)
	}
}

// TestUnknownSuite asks for a suite that no mirror has. Nothing may be left that looks like a root.
func TestUnknownSuite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making a root needs root")
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	config := Config{Suite: "no-such-suite", Packages: []string{"base-files"}}
	if r, err := Open(t.Context(), config); err == nil || !strings.Contains(err.Error(), "no-such-suite") {
		t.Fatalf("the root is %v, %v; want an error that names the suite", r, err)
	}
	cache, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(cache, config.name()+"*"))
	if err != nil || len(left) != 1 || filepath.Ext(left[0]) != ".lock" {
		t.Errorf("the cache holds %v, %v; want nothing but the lock", left, err)
	}
}

// TestOnce lets several ask for the same at once, the first of which fails.
func TestOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache", "thing")
	if err := Once(path, func(string) error { return errors.ErrUnsupported }); !errors.Is(err, errors.ErrUnsupported) {
		t.Fatalf("a failed making returns %v", err)
	}
	var made atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			err := Once(path, func(unfinished string) error {
				made.Add(1)
				return os.WriteFile(unfinished, []byte("whole"), 0o600)
			})
			if content, readErr := os.ReadFile(path); err != nil || readErr != nil || string(content) != "whole" {
				t.Errorf("it holds %q, %v, %v", content, err, readErr)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 {
		t.Errorf("it was made %d times", made.Load())
	}
}
