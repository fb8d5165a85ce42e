package kernelesp

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/guest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
)

// tools are what the tests call.
var tools = root.Config{Suite: "bookworm", Packages: []string{"iproute2", "nftables", "iputils-ping", "conntrack", "procps"}}

// start boots a guest with the test binary of a package as /usr/bin/suite.
func start(t *testing.T, pkg string) *guest.Guest {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a guest on a wire of a lab needs root")
	}
	programs, err := root.Open(t.Context(), tools)
	if errors.Is(err, root.ErrUnreachable) {
		t.Skipf("a guest needs Debian's kernel: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "kesp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	suite := filepath.Join(dir, "suite")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", suite, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", pkg, err, out)
	}
	l, err := lab.New("bwkesp-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	bridge, err := l.Bridge("switch")
	if err != nil {
		t.Fatal(err)
	}
	g, err := guest.Start(t.Context(), guest.Config{
		Switch: bridge, Root: programs, Dir: dir, Memory: 768, Programs: map[string]string{"usr/bin/suite": suite},
	})
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
	// Links of the tests' own are made as eth0 in this namespace, and moved.
	for _, command := range []string{"ip link set eth0 down", "ip link set eth0 name wire"} {
		if _, err := g.Run(strings.Fields(command)...); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// cases are those of the contract that tell most about a kernel, in the time that a run has. BAILIWICK_GUEST_RUN names
// others: "." is all of them.
const cases = "TestContract/(negotiate_holds|inpass|fallback|refuse|discovery|default_response|first_packets|rekey|outbound_half|" +
	"limits|connections_from|close_leaks|a_new_policy|what_waits|gateways|negotiate_protects)"

// TestContract runs the contract of datapath.Backend against the kernel's own ESP.
func TestContract(t *testing.T) {
	g := start(t, "github.com/bailiwick-net/bailiwick/node/datapath/xfrm")
	pattern := cases
	if only := os.Getenv("BAILIWICK_GUEST_RUN"); only != "" {
		pattern = only
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	begin := time.Now()
	_, err := g.RunContext(ctx, "sh", "-c", "exec suite -test.v -test.short -test.timeout 9m -test.run '"+pattern+"' >/tmp/out 2>&1")
	out, readErr := g.ReadFile(t.Context(), "/tmp/out")
	t.Logf("%s in the guest after %s:\n%s", pattern, time.Since(begin).Round(time.Second), out)
	err = errors.Join(err, readErr)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(out, []byte("--- PASS: TestContract")) {
		t.Error("the guest did not run the contract")
	}
}
