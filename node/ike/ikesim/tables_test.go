package ikesim

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
)

var updateTables = flag.Bool("ikesim.update", false, "write ../ikev2/TABLES.md anew")

var transition = regexp.MustCompile(`\] state ([a-z-]+)(?: -> ([a-z-]+))?$`)

// TestTables holds TABLES.md to the code: the states that IKE SAs go through in the simulation, and the tables by which
// the engine accepts messages and decides collisions.
func TestTables(t *testing.T) {
	const path = "../ikev2/TABLES.md"
	seen := make(map[string]bool)
	for seed := uint64(1); seed <= 600; seed++ {
		for _, line := range Play(PlanOf(seed), true).Trace {
			if m := transition.FindStringSubmatch(line); m != nil {
				from, to := "[*]", m[1]
				if m[2] != "" {
					from, to = m[1], m[2]
				}
				seen["  "+strings.ReplaceAll(from+" --> "+to, "key-exchange", "key_exchange")] = true
			}
		}
	}
	var edges []string
	for e := range seen {
		edges = append(edges, e)
	}
	slices.Sort(edges)
	got := "# The IKE SA: states and tables\n\n" +
		"Written by `go test ./node/ike/ikesim -run TestTables -ikesim.update`, and held to the code by that test.\n\n" +
		"## States\n\nWhat IKE SAs go through in simulated worlds; a new one begins where a rekey or a first message makes it.\n\n" +
		"```mermaid\nstateDiagram-v2\n" + strings.Join(edges, "\n") + "\n  closed --> [*]\n```\n\n" +
		"## Acceptance and collisions\n\nWhich message is taken in which state, then what the peer's request meets (RFC 7296 2.25).\n\n" +
		"```\n" + ikev2.Tables() + "```\n"
	if *updateTables {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not current; review the change, then run this test with -ikesim.update\n%s", path, got)
	}
}
