package node

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/custody"
	"github.com/bailiwick-net/bailiwick/node/datapath/nftable"
)

// Hold runs the daemon as a child, a process of this program with the arguments args, which is to call Run with what
// custody.Inherit gives it. It holds what keeps the rules in force when the child dies, and starts it again.
func Hold(ctx context.Context, config Config, args []string, logs io.Writer) error {
	config, err := config.validated()
	if err != nil {
		return err
	}
	log := config.logger(logs).Named("holder")
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the program of the daemon: %w", err)
	}
	owner, err := openOwner(log)
	if err != nil {
		return err
	}
	defer owner.Close()
	return custody.Keep(ctx, custody.Config{Path: program, Args: args, Owner: owner, Logger: log})
}

// openOwner goes on with the socket that systemd has kept, or opens one and gives it to systemd to keep.
func openOwner(log hclog.Logger) (*os.File, error) {
	owner, err := custody.Stored(os.Getenv)
	if err == nil && owner != nil {
		err = nftable.CheckOwner(owner)
	}
	switch {
	case err != nil:
		log.Warn("what systemd has kept is of no use, the rules stand without an owner until the daemon is up", "error", err)
	case owner != nil:
		log.Debug("systemd has kept the rules in force")
		return owner, nil
	}
	if owner, err = nftable.NewOwner(); err != nil {
		return nil, err
	}
	switch asked, err := custody.Store(os.Getenv, owner); {
	case err != nil:
		log.Warn("systemd cannot keep the rules in force when this process is killed as well", "error", err)
	case asked:
		log.Debug("systemd is asked to keep the rules in force when this process is killed as well")
	}
	return owner, nil
}
