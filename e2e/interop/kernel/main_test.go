package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/guest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
)

const prefix = "bwke-"

// shared is the guest that all tests but those that end it use, one after the other.
var shared machine

// unreachable says that there is no mirror to make the guest of.
var unreachable error

// machine is a guest with the switch that it is attached to.
type machine struct {
	lab    *lab.Lab
	bridge *lab.Bridge
	guest  *guest.Guest
}

func TestMain(m *testing.M) {
	pair.Main(m, 1, func(dir string) (func() error, error) {
		var err error
		shared, err = boot(context.Background(), prefix+"shared-", filepath.Join(dir, "g"))
		if errors.Is(err, root.ErrUnreachable) {
			unreachable = err
			return func() error { return nil }, nil
		}
		return shared.end, err
	})
}

// boot starts a guest that is ready for a Pair.
func boot(ctx context.Context, prefix, dir string) (m machine, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return m, err
	}
	programs, err := root.Open(ctx, root.StrongSwan)
	if err != nil {
		return m, err
	}
	if m.lab, err = lab.New(prefix); err != nil {
		return m, err
	}
	if m.bridge, err = m.lab.Bridge("switch"); err != nil {
		return m, errors.Join(err, m.lab.Close())
	}
	if m.guest, err = guest.Start(ctx, guest.Config{Switch: m.bridge, Root: programs, Dir: dir}); err != nil {
		return m, errors.Join(err, m.lab.Close())
	}
	if err := pair.SetUp(ctx, m.guest); err != nil {
		return m, errors.Join(fmt.Errorf("set up the guest: %w", err), m.lab.Close())
	}
	return m, nil
}

func (m machine) end() error {
	return errors.Join(m.guest.Stop(), m.lab.Close())
}

func newPair(t *testing.T) *pair.Pair {
	t.Helper()
	if unreachable != nil {
		t.Skipf("a guest is needed: %v", unreachable)
	}
	return pair.WithGuest(t, prefix, shared.bridge, shared.guest)
}
