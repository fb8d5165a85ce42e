package kernelesp

import (
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab/guest"
)

// bankGuest boots a guest with all that the Bank needs.
func bankGuest(t *testing.T, further ...program) *guest.Guest {
	t.Helper()
	programs := further
	for _, name := range []string{"bailiwick", "bailiwick-controller", "bailiwick-node"} {
		programs = append(programs, program{"usr/bin/" + name, []string{"go", "build", "-trimpath", "-ldflags=-s -w", "github.com/bailiwick-net/bailiwick/cmd/" + name}})
	}
	const memory = 1536
	return start(t, memory, programs...)
}

// TestBank plays the Bank in a guest: the controller and six nodes that nobody told who is to move ESP. Every node has to
// choose the kernel's by itself, and every cell of the matrix is a TCP exchange that a capture judges. Then the daemon of a
// node dies under a connection, and comes back.
func TestBank(t *testing.T) {
	g := bankGuest(t, tests("github.com/bailiwick-net/bailiwick/e2e/kernelesp"))
	out, err := run(t, g, 8*time.Minute, "bailiwick demo --slow")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"16 of 16 cells as expected", "4 of 4 cells as expected", "none lost", "Everything was as it must be"} {
		if !strings.Contains(out, want) {
			t.Errorf("the demo did not say %q", want)
		}
	}
	const nodes = 6
	if n := strings.Count(out, "datapath  xfrm. ESP is the kernel's: it has all that is needed"); n != nodes {
		t.Errorf("%d nodes chose the kernel's ESP by themselves, want %d", n, nodes)
	}
	if out, err := run(t, g, 5*time.Minute, insideVariable+"=/usr/bin suite"); err != nil || !strings.HasSuffix(out, "lived\n") {
		t.Errorf("the life of nodes ended with %v", err)
	}
}
