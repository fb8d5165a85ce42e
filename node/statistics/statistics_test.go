package statistics

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

var update = flag.Bool("update", false, "write the generated documents")

// TestFiguresOfTheDatapathMove raises the counters of the backend one by one, under the names that it gives them, and
// wants each figure of the datapath to follow one of them. How IKE's figures move is tested with the engine itself.
func TestFiguresOfTheDatapathMove(t *testing.T) {
	names := append(userspace.CounterNames(), "nft/"+steering.CounterClearIn)
	moved := make(map[string]string)
	for _, name := range names {
		for _, f := range Figures(Sources{Datapath: datapath.Status{Counters: map[string]uint64{name: 7}}}) {
			if f.Value != 0 && f.Value != 7 {
				t.Errorf("%s is %d when %s is 7", f.Name, f.Value, name)
			}
			if f.Value == 7 {
				moved[f.Name] = name
			}
		}
	}
	for _, f := range Figures(Sources{}) {
		if f.Value != 0 {
			t.Errorf("%s begins with %d", f.Name, f.Value)
		}
		if moved[f.Name] == "" && f.Group != groupIKE {
			t.Errorf("no counter of the datapath moves %s", f.Name)
		}
	}
}

func TestFiguresOfTheTransportMove(t *testing.T) {
	have := make(map[string]uint64)
	for _, f := range Figures(Sources{Transport: transport.Stats{IKEWaiting: 3, IKEDropped: 4, ReceiveErrors: 10}}) {
		have[f.Name] = f.Value
	}
	if have["active_receive"] != 3 || have["receive_failures"] != 14 {
		t.Errorf("%d wait and %d failed, want 3 and 14", have["active_receive"], have["receive_failures"])
	}
}

func TestMetrics(t *testing.T) {
	var b strings.Builder
	if err := WriteMetrics(&b, Figures(Sources{Datapath: datapath.Status{Counters: map[string]uint64{"bad_spi_packets": 12}}})); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != 3*len(table) {
		t.Fatalf("%d lines, want three for each of %d figures", len(lines), len(table))
	}
	name := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	seen := make(map[string]bool)
	for i := 0; i < len(lines); i += 3 {
		metric := strings.Fields(lines[i+2])[0]
		if seen[metric] || !name.MatchString(metric) {
			t.Errorf("metric %q is no name, or there are two", metric)
		}
		seen[metric] = true
		typ := strings.TrimPrefix(lines[i+1], "# TYPE "+metric+" ")
		if !strings.HasPrefix(lines[i], "# HELP "+metric+" ") || typ != "gauge" && typ != "counter" || (typ == "counter") != strings.HasSuffix(metric, "_total") {
			t.Errorf("%s\n%s\n%s\nis no metric", lines[i], lines[i+1], lines[i+2])
		}
	}
	if !strings.Contains(b.String(), "\nbailiwick_drop_bad_spi_packets_total 12\n") {
		t.Error("the value of a counter is missing")
	}
}

// TestCountersDocument keeps COUNTERS.md: go test ./node/statistics -run Document -update writes it.
func TestCountersDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Counters\n\nThe names are those of Windows' IP Security Monitor: a main mode is an IKE SA, a quick mode a Child SA.\n")
	b.WriteString("`bailiwick-node counters` shows them; `bailiwick-node status --output json` has them under `statistics`; Prometheus reads\n")
	b.WriteString("them from the local socket at `/v1/metrics`. This file is generated from the code.\n")
	group := ""
	for _, f := range Figures(Sources{}) {
		if f.Group != group {
			group = f.Group
			title := map[string]string{groupIKE: "IKE", groupIPsec: "IPsec", groupDrop: "Dropped packets"}[group]
			fmt.Fprintf(&b, "\n## %s\n\n| counter | metric | meaning |\n|---|---|---|\n", title)
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", f.Name, f.MetricName(), f.Meaning)
	}
	if *update {
		if err := os.WriteFile("COUNTERS.md", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("COUNTERS.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Error("COUNTERS.md is not what the code says; run go test ./node/statistics -run Document -update")
	}
}
