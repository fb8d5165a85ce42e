// Package guesttest boots guests for tests.
//
// Its invariant: a guest goes with the test that it was booted for, and tells what its kernel said when that fails. It leaves
// what a guest is to e2e/lab/guest.
package guesttest

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/guest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
)

// Root returns what a guest is made of. The test is skipped where there is neither that nor a mirror to get it from.
func Root(ctx context.Context, t testing.TB, packages root.Config) *root.Root {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a guest on a wire of a lab needs root")
	}
	installed, err := root.Open(ctx, packages)
	if errors.Is(err, root.ErrUnreachable) {
		t.Skipf("a guest needs packages of Debian: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return installed
}

// Start boots a guest on a switch of its own, in a lab of the prefix: Switch and Dir of the configuration are set here.
func Start(ctx context.Context, t testing.TB, prefix string, config guest.Config) (*lab.Bridge, *guest.Guest) {
	t.Helper()
	dir, err := os.MkdirTemp("", "guest") // the path of a test's own is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	bridge, err := labtest.New(t, prefix).Bridge("switch")
	if err != nil {
		t.Fatal(err)
	}
	config.Switch, config.Dir = bridge, dir
	g, err := guest.Start(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console of the guest:\n%s", g.Console())
		}
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
	})
	return bridge, g
}
