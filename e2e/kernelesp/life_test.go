package kernelesp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bank"
)

// insideVariable has this test binary play a life of nodes with the kernel's ESP on the machine that it is on, a guest,
// with the binaries in the directory that it names.
const insideVariable = "BAILIWICK_KERNELESP_INSIDE"

func TestMain(m *testing.M) {
	bin := os.Getenv(insideVariable)
	if bin == "" {
		os.Exit(m.Run())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := live(ctx, bin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stdout, "NOT AS IT MUST BE:", err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, "lived")
}

const (
	clientPolicy       = "Client (Respond Only)"
	secureServerPolicy = "Secure Server (Require Security)"
)

// live holds a protected connection through rekeys and the death of a daemon, kill -9, and its return, and looks at every
// octet that crossed the bridge.
func live(ctx context.Context, bin string, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "life")
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			err = os.RemoveAll(dir)
		}
	}()
	b, err := bank.New(ctx, bank.Config{Bin: bin, Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := b.StartController(ctx); err != nil {
		return err
	}
	for policy, container := range map[string]string{clientPolicy: "dc=bank,dc=example", secureServerPolicy: "OU=SecureServers,dc=bank,dc=example"} {
		if _, err := b.Admin(ctx, "link", policy, container); err != nil {
			return err
		}
	}
	sql1, ws1 := b.Machine("sql1"), b.Machine("ws1")
	for m, policy := range map[bank.Machine]string{sql1: secureServerPolicy, ws1: clientPolicy} {
		if _, err := b.Join(ctx, m); err != nil {
			return err
		}
		if err := b.StartNode(m); err != nil {
			return err
		}
		status, err := b.AwaitPolicy(ctx, m, policy)
		if err != nil {
			return err
		}
		if status.Backend != "xfrm" {
			return fmt.Errorf("%s chose %s, want the kernel: %v", m.Name, status.Backend, status.Notes)
		}
	}
	flow, err := b.OpenFlow(ctx, ws1, sql1)
	if err != nil {
		return err
	}
	messages := 0
	more := func(what string) error {
		const some = 50
		messages += some
		begin := time.Now()
		err := flow.Await(ctx, messages)
		fmt.Fprintf(out, "%d messages %s after %s\n", messages, what, time.Since(begin).Round(time.Millisecond))
		return err
	}
	rekey := func() error {
		before, after, err := b.RekeyAll(ctx, sql1, ws1.Address)
		fmt.Fprintf(out, "rekeyed %+v to %+v\n", before, after)
		return err
	}
	for _, step := range []func() error{
		rekey,
		func() error { return more("through a rekey") },
		func() error { return b.KillNode(sql1) },
		// The socket that had the kernel open ESP in UDP died with the daemon.
		func() error { return outcome(ctx, b, out, sql1, ws1, bank.Blocked) },
		func() error { return b.StartNode(sql1) },
		func() error { _, err := b.AwaitPolicy(ctx, sql1, secureServerPolicy); return err },
		func() error { return outcome(ctx, b, out, sql1, ws1, bank.Protected) },
		func() error { return more("through the death of a daemon") },
		rekey,
		func() error { return more("in the end") },
	} {
		if err := step(); err != nil {
			_, closeErr := flow.Close()
			return errors.Join(err, closeErr)
		}
	}
	report, err := flow.Close()
	fmt.Fprintf(out, "%d messages, longest wait %s; on the wire: %s\n", report.Messages, report.LongestWait, report.Wire)
	if err != nil {
		return fmt.Errorf("the connection did not survive: %w", err)
	}
	if report.Wire.ClearPayload > 0 || report.Wire.ESP == 0 {
		return fmt.Errorf("over the whole run %s, want ESP and no payload in clear", report.Wire)
	}
	return nil
}

// outcome requires that an exchange ends as wanted.
func outcome(ctx context.Context, b *bank.Bank, out io.Writer, from, to bank.Machine, want bank.Outcome) error {
	cell, err := b.Measure(ctx, from, to, 5*time.Second)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s to %s: %s (%s) %s\n", from.Name, to.Name, cell.Seen, cell.Wire, cell.Err)
	if cell.Seen != want {
		return fmt.Errorf("an exchange from %s to %s was %q (%s; %s), want %q", from.Name, to.Name, cell.Seen, cell.Wire, cell.Err, want)
	}
	return nil
}
