package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// build makes the binaries of the test in a folder.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	packages := []string{"cmd/bailiwick", "cmd/bailiwick-controller", "cmd/bailiwick-node", "e2e/leak/wiretap"}
	args := []string{"build", "-o", dir}
	for _, p := range packages {
		args = append(args, "github.com/bailiwick-net/bailiwick/"+p)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return dir
}

// The leak test, short and in an order that is always the same: make leak plays ten minutes.
func TestNothingLeaks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	bin := build(t)
	for i, m := range modes() {
		t.Run(string(m), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			// Another seed each: other events come first.
			o := options{bin: bin, dir: t.TempDir(), prefix: "leakci-", mode: m, seed: uint64(3 + i), length: 18 * time.Second, swapEvery: 450 * time.Millisecond}
			r, err := leak(ctx, o, t.Logf)
			if err != nil {
				t.Fatalf("%v\n%s", err, r.text())
			}
			if len(r.Moments) < 4 || r.Swaps < 8 {
				t.Errorf("%d events and %d policies in %s: that is no test", len(r.Moments), r.Swaps, o.length)
			}
			t.Log(r.text())
		})
	}
}

// The test can fail: what is known to leak is seen, on the wire and by the receivers, and told with what was before.
func TestWhatLeaksIsSeen(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	o := options{bin: build(t), dir: t.TempDir(), prefix: "leakno-", mode: transport, seed: 5, length: time.Second, swapEvery: time.Second, only: []string{"dead-flush-ruleset"}}
	r, err := leak(ctx, o, t.Logf)
	if !errors.Is(err, errFound) {
		t.Fatalf("the rules of a dead node are flushed, and the leak test says %v", err)
	}
	if len(r.Leaks) == 0 || r.Counts.Leaks == 0 || r.Accepted == 0 {
		t.Errorf("%d leaks are told, %d counted, %d forged packets were accepted: want some of each", len(r.Leaks), r.Counts.Leaks, r.Accepted)
	}
	for _, want := range []string{"FAILED", "with seed 5", "dead-flush-ruleset", "clear packet", "accepted"} {
		if text := r.text(); !strings.Contains(text, want) {
			t.Errorf("the report does not say %q:\n%s", want, text)
		}
	}
}

// Each policy is another one than the one before, and the judge's statement is none of them.
func TestPoliciesDiffer(t *testing.T) {
	for _, m := range modes() {
		for i := range 200 {
			if policyDocument(i, m, [2]netip.Addr{}) == policyDocument(i+1, m, [2]netip.Addr{}) {
				t.Errorf("policies %d and %d of mode %s are the same", i, i+1, m)
			}
		}
	}
}

func TestCommandLine(t *testing.T) {
	o, list, output, err := parse([]string{"-mode", "tunnel", "-only", "kill,freeze", "-seed", "7", "-length", "1m", "-json", "x"})
	if err != nil || len(o.events()) != 2 || o.seed != 7 || o.length != time.Minute || output != "x" || len(list) != 1 || list[0] != tunnel {
		t.Errorf("parsed as %+v, %v, %q, %v", o, list, output, err)
	}
	o, list, _, err = parse(nil)
	if err != nil || len(list) != 3 || o.seed == 0 || len(o.events()) != len(events())-len(leftOut) {
		t.Errorf("without arguments: %+v, %v, and %d events", o, err, len(o.events()))
	}
	for name := range leftOut {
		if !slices.ContainsFunc(events(), func(e event) bool { return e.name == name }) {
			t.Errorf("event %s is left out and does not exist", name)
		}
	}
	for _, bad := range [][]string{{"-only", "kil"}, {"-length", "0s"}, {"-swap", "-1s"}, {"-mode", "ipip"}} {
		if _, _, _, err := parse(bad); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

// A capture that was taken before is judged by the same program.
func TestWiretapJudgesFiles(t *testing.T) {
	dir := build(t)
	frame := append([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0}, // Ethernet
		0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, // IPv4
		0x1f, 0x40, 0x1f, 0x41, 0, 8, 0, 0) // UDP
	file := []byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0}
	file = append(file, 1, 0, 0, 0, 0, 0, 0, 0, byte(len(frame)), 0, 0, 0, byte(len(frame)), 0, 0, 0)
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	capture := write("capture.pcap", append(file, frame...))
	for statement, leaks := range map[string]uint64{
		`{"protect":[{"name":"x","a":["192.0.2.1/32"],"b":["192.0.2.0/24"]}]}`:    1,
		`{"protect":[{"name":"x","a":["198.51.100.1/32"],"b":["192.0.2.0/24"]}]}`: 0,
	} {
		out, err := exec.Command(filepath.Join(dir, "wiretap"), "-statement", write("statement.json", []byte(statement)), "-read", capture).Output()
		if (err == nil) != (leaks == 0) {
			t.Errorf("with %s the wiretap ends with %v", statement, err)
		}
		var last tapLine
		for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
			last = tapLine{}
			if err := d.Decode(&last); err != nil {
				t.Fatal(err)
			}
		}
		if last.Answer != "end" || last.Counts.Frames != 1 || last.Counts.Leaks != leaks {
			t.Errorf("with %s the wiretap ends with %+v, want %d leaks in 1 frame", statement, last, leaks)
		}
	}
}
