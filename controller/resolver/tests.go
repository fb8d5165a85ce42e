package resolver

import (
	"fmt"
	"slices"

	"github.com/bailiwick-net/bailiwick/policies/plan"
)

// FailedTests are the policy tests that the present state breaks, one sentence each. Documents that break one are refused
// before they are written, so it was the directory.
func (t *Table) FailedTests() []string { return t.failedTests }

// runTests notes which policy tests fail, and says so of those that did not fail before. Nothing is held up for them: what
// the directory says counts.
func (r *Resolver) runTests(next, old *Table) {
	results, err := plan.Test(plan.World{Documents: next.parsed, Directory: next.view.Snapshot, Locations: r.locations.of})
	if err != nil {
		r.config.Log.Error("policy tests cannot be run", "documents", next.revision, "error", err)
		next.failedTests = []string{fmt.Sprintf("they cannot be run: %v", err)}
		return
	}
	for _, result := range results {
		if result.State != plan.TestFails {
			continue
		}
		sentence := fmt.Sprintf("%s: %s", result.Test, result)
		next.failedTests = append(next.failedTests, sentence)
		if old == nil || !slices.Contains(old.failedTests, sentence) {
			r.config.Log.Warn("policy test fails", "test", result.Test, "assertion", result.Number, "expected", result.Assertion, "found", result.Found,
				"client", result.Client, "server", result.Server)
		}
	}
}
