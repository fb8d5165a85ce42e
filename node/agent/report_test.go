package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
)

// A policy may have more filters than the controller takes counters in a report: those that are too many stay at home, and
// the session stays open.
func TestReportLeavesCountersOfRulesOut(t *testing.T) {
	status := datapath.Status{Counters: map[string]uint64{"packets_waiting": 1, "zz_last": 2}}
	for i := range 3 * maxReported {
		status.Counters[fmt.Sprintf("nft/filter/%d", i)] = 1
	}
	r := makeReport(time.Unix(1, 0), status, engine.Snapshot{Counters: map[string]uint64{"sent": 3}})
	if len(r.GetCounters()) != maxReported || !r.GetTruncated() {
		t.Errorf("report has %d counters, truncated: %v; want %d, and that it says so", len(r.GetCounters()), r.GetTruncated(), maxReported)
	}
	for _, name := range []string{"packets_waiting", "zz_last", "ike_sent"} {
		if r.GetCounters()[name] == 0 {
			t.Errorf("counter %s was left out for those of single rules", name)
		}
	}
	status.Counters = map[string]uint64{"packets_waiting": 1}
	if r := makeReport(time.Unix(1, 0), status, engine.Snapshot{}); len(r.GetCounters()) != 1 || r.GetTruncated() {
		t.Errorf("report of one counter has %d, truncated: %v", len(r.GetCounters()), r.GetTruncated())
	}
}
