package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// insideMarker tells the re-executed process that it is in the user namespace already.
const insideMarker = "BAILIWICK_DEMO_USERNS"

// inNamespace calls f as root, or starts this program again as root of a user namespace of its own.
func inNamespace(ctx context.Context, out io.Writer, f func(context.Context) error) error {
	if os.Getenv(insideMarker) != "" {
		// The mounts that ip(8) makes stay in this mount namespace.
		if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("prepare /run of the user namespace: %w", err)
		}
		return f(ctx)
	}
	if os.Geteuid() == 0 {
		return f(ctx)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideMarker+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, out, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGTERM,
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("the demo makes network namespaces, and this machine lets only root do so (%w): run sudo make demo", err)
	}
	if err != nil {
		return errDemo
	}
	return nil
}
