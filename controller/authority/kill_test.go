package authority_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/authority"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/controller/store/embedded"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/slots"
)

// victimDir is the variable that makes the test's program a victim: a process over the state in that folder that issues and
// rotates until it is killed, and prints each serial number that it gave away.
const victimDir = "BAILIWICK_TEST_VICTIM"

func openKilled(ctx context.Context, dir string) (*embedded.Etcd, *store.Store, *authority.Keeper, error) {
	e, err := embedded.Start(ctx, embedded.Config{Dir: dir})
	if err != nil {
		return nil, nil, nil, err
	}
	s := store.New(e.Client(), store.Options{MaxOps: embedded.MaxTxnOps})
	unlock, err := ca.KeyOctets(make([]byte, 32))
	if err != nil {
		return nil, nil, nil, errors.Join(err, e.Close())
	}
	k, err := authority.Open(ctx, authority.Config{Store: s, Unlock: unlock, Init: true, CA: ca.Config{TrustDomain: "bank.example"}})
	if err != nil {
		return nil, nil, nil, errors.Join(err, e.Close())
	}
	return e, s, k, nil
}

func victim(dir string) error {
	ctx := context.Background()
	_, _, k, err := openKilled(ctx, dir)
	if err != nil {
		return err
	}
	for round := 0; ; round++ {
		issued, err := issue(ctx, time.Now(), k)
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, issued.Leaf.SerialNumber.Text(16))
		state := k.State()
		coming, ok := state.Coming()
		switch {
		case round%3 != 2:
		case ok:
			_, err = k.Activate(ctx, nil, true, "")
		case state.Slots[0].Status == slots.Superseded:
			_, err = k.Retire(ctx, state.Slots[0].ID, true, "")
		default:
			_, err = k.PrepareNext(ctx, authority.Preparation{Root: round%2 == 0})
		}
		if err != nil {
			return fmt.Errorf("step beside %v: %w", coming.ID, err)
		}
	}
}

// A controller that is killed over and over in the middle of issuing and rotating loses nothing that it gave away.
func TestKilledOverAndOver(t *testing.T) {
	dir := t.TempDir()
	given := map[string]bool{}
	for round := range 3 {
		cmd, lines := startVictim(t.Context(), t, dir, os.Stderr)
		for n := 0; n < 11+4*round && lines.Scan(); n++ {
			given[lines.Text()] = true
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		// What it wrote to the pipe before its end it gave away too; the last line may be cut.
		for lines.Scan() {
			if len(lines.Text()) >= 24 {
				given[lines.Text()] = true
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the victim ended by itself")
		}
	}
	if len(given) < 30 {
		t.Fatalf("%d certificates were given away, want at least 30", len(given))
	}
	recorded(t, dir, given)
}

// startVictim starts a victim, and returns it with the lines that it prints.
func startVictim(ctx context.Context, t *testing.T, dir string, stderr io.Writer) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), victimDir+"="+dir)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// recorded opens what a victim left, and finds a journal without a problem and every certificate that was given away in it.
func recorded(t *testing.T, dir string, given map[string]bool) {
	t.Helper()
	e, s, k, err := openKilled(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	report, err := k.Audit(t.Context(), nil)
	if err != nil || len(report.Problems) > 0 {
		t.Fatalf("audit: %v, %q", err, report.Problems)
	}
	entries, err := s.Issuances(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if len(e.Certificate) > 0 {
			delete(given, e.Intention.Serial)
		}
	}
	for serial := range given {
		t.Errorf("certificate %s was given away and is not recorded", serial)
	}
}
