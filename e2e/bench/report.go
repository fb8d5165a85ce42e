package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/bailiwick-net/bailiwick/e2e/bench/ikeload"
)

// report is everything that was measured.
type report struct {
	Machine    machine           `json:"machine"`
	Peers      int               `json:"handshakes_per_burst"`
	Rounds     int               `json:"rounds"`
	Handshakes []handshakeRow    `json:"handshakes,omitempty"`
	Floor      map[string]micros `json:"floor_us,omitempty"`
}

// machine describes where it was measured.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// handshakeRow compares one variant.
type handshakeRow struct {
	Name   string `json:"name"`
	Floor  micros `json:"floor_us"`
	Memory *cost  `json:"memory,omitempty"`
	UDP    *cost  `json:"udp,omitempty"`
	Charon *cost  `json:"charon,omitempty"`
}

func describeMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	return m
}

// measure does everything that was asked for, and tells how far it is.
func measure(ctx context.Context, o options, progress func(string)) (*report, error) {
	r := &report{Machine: describeMachine(), Peers: o.peers, Rounds: o.rounds, Floor: make(map[string]micros)}
	for _, v := range variants {
		if !wanted(o, v) {
			continue
		}
		progress(v.name + ": floor")
		before, err := ikeload.MeasureFloor()
		if err != nil {
			return nil, err
		}
		row := handshakeRow{Name: v.name}
		if o.parts["memory"] {
			progress(v.name + ": in memory")
			c, err := inMemory(ctx, o, v)
			if err != nil {
				return nil, err
			}
			row.Memory = &c
		}
		if o.parts["udp"] {
			progress(v.name + ": over UDP")
			c, err := overUDP(o, v)
			if err != nil {
				return nil, err
			}
			row.UDP = &c
		}
		if o.parts["charon"] && !v.kem {
			progress(v.name + ": two charons")
			c, err := twoCharons(ctx, o, v)
			if err != nil {
				return nil, err
			}
			row.Charon = &c
		}
		after, err := ikeload.MeasureFloor()
		if err != nil {
			return nil, err
		}
		row.Floor = toMicros(before.Mean(after).Handshake(v.method, v.kind, v.chain, v.kem))
		r.Handshakes = append(r.Handshakes, row)
	}
	return r, nil
}

func (r *report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cores, Linux %s, %s\n", r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go)
	fmt.Fprintf(&b, "Microseconds of processor time per handshake, both ends together; %d at once, median of %d rounds.\n\n", r.Peers, r.Rounds)
	fmt.Fprintf(&b, "%-30s %6s | %7s %6s %8s %7s | %7s %6s %8s %7s | %7s %8s %8s %8s\n", "case", "floor",
		"memory", "%floor", "per core", "per s", "udp", "%floor", "per core", "per s", "charon", "per core", "memory x", "udp x")
	for _, row := range r.Handshakes {
		fmt.Fprintf(&b, "%-30s %6.0f |", row.Name, row.Floor)
		for _, c := range []*cost{row.Memory, row.UDP} {
			if c == nil {
				fmt.Fprintf(&b, " %7s %6s %8s %7s |", "-", "-", "-", "-")
				continue
			}
			fmt.Fprintf(&b, " %7.0f %5.0f%% %8.0f %7.0f |", c.CPU, 100*row.Floor/c.CPU, c.PerCore, c.PerSecond)
		}
		times := func(c *cost) string {
			if c == nil || row.Charon == nil {
				return "-"
			}
			return fmt.Sprintf("%.1f", row.Charon.CPU/c.CPU)
		}
		if row.Charon == nil {
			fmt.Fprintf(&b, " %7s %8s", "-", "-")
		} else {
			fmt.Fprintf(&b, " %7.0f %8.0f", row.Charon.CPU, row.Charon.PerCore)
		}
		fmt.Fprintf(&b, " %8s %8s\n", times(row.Memory), times(row.UDP))
	}
	return b.String()
}
