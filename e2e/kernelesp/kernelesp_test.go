package kernelesp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab/guest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/guest/guesttest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
	"github.com/bailiwick-net/bailiwick/node/datapath/datapathtest"
)

// tools are what the tests call.
var tools = root.Config{Suite: "bookworm", Packages: []string{"iproute2", "nftables", "iputils-ping", "conntrack", "procps"}}

// program is one that runs in the guest: the file that a command makes of this checkout.
type program struct {
	path    string // in the guest, without a leading slash
	command []string
}

// tests are the tests of a package.
func tests(pkg string) program {
	return program{"usr/bin/suite", []string{"go", "test", "-c", "-trimpath", "-ldflags=-s -w", pkg}}
}

// start boots a guest with programs, and memory in MiB.
func start(t *testing.T, memory int, programs ...program) *guest.Guest {
	t.Helper()
	installed := guesttest.Root(t.Context(), t, tools)
	dir := t.TempDir()
	files := map[string]string{}
	for i, p := range programs {
		file := filepath.Join(dir, fmt.Sprint(i))
		files[p.path] = file
		build := exec.CommandContext(t.Context(), p.command[0], slices.Insert(slices.Clone(p.command[1:]), len(p.command)-2, "-o", file)...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", p.command, err, out)
		}
	}
	_, g := guesttest.Start(t.Context(), t, fmt.Sprintf("bwkesp%d-", guests.Add(1)), guest.Config{Root: installed, Memory: memory, Programs: files})
	// Links of the tests' own are made as eth0 in this namespace, and moved.
	for _, command := range []string{"ip link set eth0 down", "ip link set eth0 name wire"} {
		if _, err := g.Run(strings.Fields(command)...); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// guests counts those of this process: each has a lab of its own.
var guests atomic.Int32

// run runs a command in the guest, and returns what it writes.
func run(t *testing.T, g *guest.Guest, timeout time.Duration, command string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	begin := time.Now()
	_, err := g.RunContext(ctx, "sh", "-c", command+" >/tmp/out 2>&1")
	out, readErr := g.ReadFile(t.Context(), "/tmp/out")
	t.Logf("%s in the guest, after %s:\n%s", command, time.Since(begin).Round(time.Second), out)
	return string(out), errors.Join(err, readErr)
}

// halves are the guests that the contract runs in at once, each with its share of the cases.
const halves = 2

// TestContract runs the contract of datapath.Backend against the kernel's own ESP, all of it. BAILIWICK_GUEST_RUN names
// some of its cases, for one guest.
func TestContract(t *testing.T) {
	pkg := tests("github.com/bailiwick-net/bailiwick/node/datapath/xfrm")
	if only := os.Getenv("BAILIWICK_GUEST_RUN"); only != "" {
		contract(t, start(t, contractMemory, pkg), "suite -test.run '"+only+"'")
		return
	}
	for part := range halves {
		t.Run(fmt.Sprintf("part %d", part+1), func(t *testing.T) {
			t.Parallel()
			contract(t, start(t, contractMemory, pkg), fmt.Sprintf("%s=%d/%d suite -test.run .", datapathtest.PartVariable, part+1, halves))
		})
	}
}

const contractMemory = 768

func contract(t *testing.T, g *guest.Guest, command string) {
	t.Helper()
	out, err := run(t, g, 10*time.Minute, command+" -test.v -test.short -test.timeout 9m")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "--- PASS: TestContract ") {
		t.Error("the guest did not run the contract")
	}
}
