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
	Machine    machine        `json:"machine"`
	Peers      int            `json:"handshakes_per_burst"`
	Rounds     int            `json:"rounds"`
	Handshakes []handshakeRow `json:"handshakes,omitempty"`
	Footprint  *footprint     `json:"footprint,omitempty"`
	Children   *children      `json:"children,omitempty"`
	Peers1000  []peers        `json:"peers,omitempty"`
	Floods     []flooded      `json:"floods,omitempty"`
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
	r := &report{Machine: describeMachine(), Peers: o.peers, Rounds: o.rounds}
	for _, v := range variants {
		if !o.parts["memory"] && !o.parts["udp"] && !o.parts["charon"] || !wanted(o, v) {
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
	return r, r.scale(ctx, o, progress)
}

// scale measures what does not compare with a floor.
func (r *report) scale(ctx context.Context, o options, progress func(string)) error {
	if o.parts["footprint"] {
		progress("memory of an association")
		f, err := measureFootprint()
		if err != nil {
			return err
		}
		r.Footprint = &f
	}
	if o.parts["children"] {
		progress("10,000 Child SAs")
		c, err := measureChildren(ctx)
		if err != nil {
			return err
		}
		r.Children = &c
	}
	if o.parts["peers"] {
		progress("1,000 peers at once, in memory")
		p, err := measureStar(ctx)
		if err != nil {
			return err
		}
		r.Peers1000 = append(r.Peers1000, p)
		progress("1,000 peers at once, over UDP")
		if p, err = measureThousand(); err != nil {
			return err
		}
		r.Peers1000 = append(r.Peers1000, p)
	}
	if o.parts["flood"] {
		for _, rate := range []int{20_000, 100_000, 1_000_000} {
			progress(fmt.Sprintf("flood of %d a second", rate))
			f, err := measureFlood(ctx, rate)
			if err != nil {
				return err
			}
			r.Floods = append(r.Floods, f)
		}
	}
	return nil
}

func (r *report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cores, Linux %s, %s\n", r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go)
	if len(r.Handshakes) > 0 {
		r.handshakesText(&b)
	}
	r.scaleText(&b)
	return b.String()
}

// handshakesText prints the table of handshakes and that of the ratios.
func (r *report) handshakesText(b *strings.Builder) {
	fmt.Fprintf(b, "\nMicroseconds of processor time per handshake, both ends together: median and best of %d bursts of %d handshakes;\n"+
		"handshakes per second of processor time; the floor is that of the cryptography alone.\n\n", r.Rounds, r.Peers)
	fmt.Fprintf(b, "%-28s %6s | %17s %8s | %17s %8s | %17s %8s\n", "", "floor", "in memory", "per core", "over UDP", "per core", "two charons", "per core")
	for _, row := range r.Handshakes {
		fmt.Fprintf(b, "%-28s %6.0f", row.Name, row.Floor)
		for _, c := range []*cost{row.Memory, row.UDP, row.Charon} {
			if c == nil {
				fmt.Fprintf(b, " | %17s %8s", "-", "-")
				continue
			}
			fmt.Fprintf(b, " | %8.0f %8.0f %8.0f", c.CPU, c.Min, c.PerCore)
		}
		b.WriteString("\n")
	}
	b.WriteString("\nRatios of the medians, and of the best bursts:\n\n")
	fmt.Fprintf(b, "%-28s | %18s | %18s | %18s | %18s\n", "", "floor / memory", "floor / UDP", "charon / memory", "charon / UDP")
	for _, row := range r.Handshakes {
		fmt.Fprintf(b, "%-28s", row.Name)
		for _, c := range []*cost{row.Memory, row.UDP} {
			if c == nil {
				fmt.Fprintf(b, " | %18s", "-")
				continue
			}
			fmt.Fprintf(b, " | %8.0f%% %8.0f%%", 100*row.Floor/c.CPU, 100*row.Floor/c.Min)
		}
		for _, c := range []*cost{row.Memory, row.UDP} {
			if c == nil || row.Charon == nil {
				fmt.Fprintf(b, " | %18s", "-")
				continue
			}
			fmt.Fprintf(b, " | %8.1fx %8.1fx", row.Charon.CPU/c.CPU, row.Charon.Min/c.Min)
		}
		b.WriteString("\n")
	}
}

func (r *report) scaleText(b *strings.Builder) {
	if f := r.Footprint; f != nil {
		fmt.Fprintf(b, "\nMemory of an IKE SA with one Child SA, of %d: initiator %.1f KiB of heap, %.1f KiB resident; responder %.1f KiB, %.1f KiB.\n",
			f.SAs, f.Initiator.Heap/1024, f.Initiator.Resident/1024, f.Responder.Heap/1024, f.Responder.Resident/1024)
		fmt.Fprintf(b, "The responder with 500 of them: %.1f MiB of heap, %.1f MiB resident.\n", f.Fixed.Heap/(1<<20), f.Fixed.Resident/(1<<20))
	}
	if c := r.Children; c != nil {
		fmt.Fprintf(b, "\n%d Child SAs of %d IKE SAs: up in %.1f s, %.0f us of processor time each for both ends, %.1f KiB of heap each and end, closed with %.0f us each.\n",
			c.Children, c.IKE, c.Seconds, c.CPU, c.Heap/1024, c.Close)
	}
	if len(r.Peers1000) > 0 {
		b.WriteString("\nPeers that come up at the same moment:\n")
	}
	for _, p := range r.Peers1000 {
		fmt.Fprintf(b, "%-52s %d of %d up in %.2f s, %.0f us of processor time each for both ends, %d datagrams dropped\n",
			p.Where, p.Peers-p.Lost, p.Peers, p.Seconds, p.CPU, p.Dropped)
	}
	if len(r.Floods) > 0 {
		b.WriteString("\nFloods of IKE_SA_INIT from invented sources, while peers come up one after another:\n")
		fmt.Fprintf(b, "%9s %9s %9s %9s %8s %9s %6s %10s %10s %10s %9s\n", "wanted/s", "sent/s", "seen/s", "cookies/s", "us each",
			"half-open", "peers", "p50 us", "max us", "calm p50", "heap MiB")
	}
	for _, f := range r.Floods {
		fmt.Fprintf(b, "%9d %9.0f %9.0f %9.0f %8.1f %9d %6d %10.0f %10.0f %10.0f %+9.1f\n", f.Wanted, f.Sent, f.Received, f.Cookies, f.CPU,
			f.HalfOpen, f.Peers, f.P50, f.Max, f.Calm, f.HeapGrown/(1<<20))
	}
}
