package scenarios

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// namespaces lists the network namespaces of the demo that exist now.
func namespaces(t *testing.T) []string {
	t.Helper()
	var found []string
	entries, err := os.ReadDir("/run/netns")
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "bank-") {
			found = append(found, e.Name())
		}
	}
	return found
}

func wantNothingLeft(t *testing.T) {
	t.Helper()
	if left := namespaces(t); len(left) > 0 {
		t.Errorf("namespaces %v are left behind", left)
	}
	if _, err := os.Stat(filepath.Join(os.TempDir(), "bailiwick-demo")); !os.IsNotExist(err) {
		t.Errorf("the demo's directory is left behind: %v", err)
	}
}

func TestDemoSeesWhatItMustSee(t *testing.T) {
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "bailiwick"), "demo")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("demo: %v\n%s", err, out.String())
	}
	for _, want := range []string{"16 of 16 cells as expected", "4 of 4 cells as expected", "none lost", "every node has its session again", "datapath  ", "ESP is ", "Everything was as it must be"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo did not say %q:\n%s", want, out.String())
		}
	}
	wantNothingLeft(t)
}

func TestInterruptedDemoCleansUp(t *testing.T) {
	out := &notifying{want: "2. Each node joins", seen: make(chan struct{})}
	cmd := exec.CommandContext(t.Context(), filepath.Join(binaries, "bailiwick"), "demo")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-out.seen:
	case <-time.After(2 * time.Minute):
		t.Error("the demo did not come to its second act within two minutes")
	}
	if len(namespaces(t)) == 0 {
		t.Error("no namespace exists in the middle of the demo: this test would prove nothing")
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("an interrupted demo ended with success")
	}
	wantNothingLeft(t)
}

// notifying is a writer that tells when a text has been written. One goroutine writes.
type notifying struct {
	all  bytes.Buffer
	want string
	seen chan struct{}
	done bool
}

func (n *notifying) Write(b []byte) (int, error) {
	n.all.Write(b)
	if !n.done && strings.Contains(n.all.String(), n.want) {
		n.done = true
		close(n.seen)
	}
	return len(b), nil
}
