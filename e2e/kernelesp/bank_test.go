package kernelesp

import (
	"strings"
	"testing"
	"time"
)

// TestBank plays the Bank in a guest: the controller and six nodes that nobody told who is to move ESP. Every node has to
// choose the kernel's by itself, and every cell of the matrix is a TCP exchange that a capture judges.
func TestBank(t *testing.T) {
	var programs []program
	for _, name := range []string{"bailiwick", "bailiwick-controller", "bailiwick-node"} {
		programs = append(programs, program{"usr/bin/" + name, []string{"go", "build", "-trimpath", "-ldflags=-s -w", "github.com/bailiwick-net/bailiwick/cmd/" + name}})
	}
	out, err := run(t, start(t, bankMemory, programs...), 8*time.Minute, "bailiwick demo")
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
}

const bankMemory = 1536
