package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Every path that is compared must really carry traffic, or the table compares nothing.
func TestEveryPathCarriesTraffic(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	dir := t.TempDir()
	o := options{node: filepath.Join(dir, "bailiwick-node"), wireguard: filepath.Join(dir, "wireguard-go"), seconds: 1, rounds: 1}
	for _, args := range [][]string{
		{"build", "-o", o.node, "github.com/bailiwick-net/bailiwick/cmd/bailiwick-node"},
		{"build", "-modfile=../../../.ci/tools.mod", "-o", o.wireguard, "golang.zx2c4.com/wireguard"},
		{"build", "-o", filepath.Join(dir, "datapath"), "."},
	} {
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "datapath"), "-node", o.node, "-wireguard", o.wireguard,
		"-seconds", "1", "-rounds", "1", "-only", "relay,wireguard-go,tunnel,native").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"relay", "wireguard-go", "tunnel", "native"} {
		if !strings.Contains(string(out), "\n"+name+" ") {
			t.Errorf("the table has no row for %s:\n%s", name, out)
		}
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	r := &report{Rounds: 3, Paths: []row{
		{Name: "wireguard-go", Rounds: []figures{{One: 1}, {One: 2}, {One: 4}}},
		{Name: "tunnel", Rounds: []figures{{One: 3}, {One: 4}, {One: 20}}},
		{Name: "relay", Note: "not on this machine"},
	}}
	text := r.text()
	for _, want := range []string{"2.00 (1.00)", "4.00 (3.00)", "relay         not on this machine"} {
		if !strings.Contains(text, want) {
			t.Errorf("want %q in\n%s", want, text)
		}
	}
}

func TestMedianFavoursNoSide(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{4, 2}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{8, 1, 2, 4}, 3}} {
		if got := median(c.values); got != c.want {
			t.Errorf("the median of %v is %v, want %v", c.values, got, c.want)
		}
	}
}

func TestBusyTimeMoves(t *testing.T) {
	before, err := busyTime()
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 50*time.Millisecond; {
	}
	after, err := busyTime()
	if err != nil {
		t.Fatal(err)
	}
	if after <= before {
		t.Errorf("50 ms of work took the counter from %s to %s", before, after)
	}
}
