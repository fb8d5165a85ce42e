package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// report is everything that was measured.
type report struct {
	Seconds int   `json:"seconds"`
	Rounds  int   `json:"rounds"`
	Paths   []row `json:"paths"`
}

type row struct {
	Name   string    `json:"name"`
	What   string    `json:"what"`
	Rounds []figures `json:"rounds"`
	Note   string    `json:"note,omitempty"`
}

// attempts are made again on a path that fails: on a machine that does other work too, iperf3 loses its server now and then.
const attempts = 2

// measure goes over all paths again and again, so that what disturbs the machine disturbs all of them.
func measure(ctx context.Context, o options, progress func(format string, a ...any)) (*report, error) {
	r := &report{Seconds: o.seconds, Rounds: o.rounds}
	for _, p := range paths() {
		if o.only == nil || slices.Contains(o.only, p.name) {
			r.Paths = append(r.Paths, row{Name: p.name, What: p.what})
		}
	}
	for round := range o.rounds {
		for i := range r.Paths {
			row := &r.Paths[i]
			p := paths()[slices.Index(pathNames(), row.Name)]
			f, err := once(ctx, p, o)
			for again := 0; err != nil && !errors.Is(err, errNotHere) && again < attempts && ctx.Err() == nil; again++ {
				progress("round %d of %d: %s once more: %v", round+1, o.rounds, p.name, err)
				f, err = once(ctx, p, o)
			}
			switch {
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case errors.Is(err, errNotHere):
				row.Note = err.Error()
			case err != nil:
				return nil, fmt.Errorf("%s: %w", p.name, err)
			default:
				row.Rounds = append(row.Rounds, f)
				progress("round %d of %d: %s %.2f Gbit/s", round+1, o.rounds, p.name, f.One)
			}
		}
	}
	return r, nil
}

func once(ctx context.Context, p path, o options) (f figures, err error) {
	n, err := newNetwork()
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	if err := p.start(ctx, n, o); err != nil {
		return f, err
	}
	return load(ctx, n, o.seconds)
}

// columns are what the table shows.
var columns = []struct {
	title, format string
	value         func(figures) float64
	ratio         bool // beside wireguard-go
}{
	{"1 flow Gbit/s", "%.2f", func(f figures) float64 { return f.One }, true},
	{"4 flows Gbit/s", "%.2f", func(f figures) float64 { return f.Four }, true},
	{"UDP 1372 kpps", "%.0f", func(f figures) float64 { return f.Large }, true},
	{"UDP 64 kpps", "%.0f", func(f figures) float64 { return f.Small }, true},
	{"RTT us", "%.0f", func(f figures) float64 { return f.RoundTrip }, true},
	{"RTT in turn us", "%.0f", func(f figures) float64 { return f.InTurn }, true},
	{"conn/s", "%.0f", func(f figures) float64 { return f.Connections }, true},
	{"CPU s/GB", "%.2f", func(f figures) float64 { return f.Machine }, false},
	{"daemons s/GB", "%.2f", func(f figures) float64 { return f.Daemons }, true},
	{"us per 64", "%.2f", func(f figures) float64 { return f.EachSmall }, true},
	{"first ms", "%.1f", func(f figures) float64 { return f.First }, false},
	{"new peer ms", "%.2f", func(f figures) float64 { return f.NewPeer }, false},
	{"worst peer ms", "%.2f", func(f figures) float64 { return f.WorstPeer }, false},
}

// text is a table of medians. In brackets: the median over the rounds of the ratio to wireguard-go in the same round.
func (r *report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Median of %d rounds, %d s each; in brackets the ratio to wireguard-go in the same round.\n\n", r.Rounds, r.Seconds)
	fmt.Fprintf(&b, "%-13s", "path")
	for _, c := range columns {
		fmt.Fprintf(&b, " %16s", c.title)
	}
	b.WriteString("\n")
	peer := slices.IndexFunc(r.Paths, func(p row) bool { return p.Name == "wireguard-go" })
	for _, p := range r.Paths {
		fmt.Fprintf(&b, "%-13s", p.Name)
		if len(p.Rounds) == 0 {
			fmt.Fprintf(&b, " %s\n", p.Note)
			continue
		}
		for _, c := range columns {
			var values, ratios []float64
			for i, f := range p.Rounds {
				values = append(values, c.value(f))
				if peer >= 0 && i < len(r.Paths[peer].Rounds) {
					ratios = append(ratios, c.value(f)/c.value(r.Paths[peer].Rounds[i]))
				}
			}
			cell := fmt.Sprintf(c.format, median(values))
			if median(values) == 0 { // nobody there who could have worked
				cell, ratios = "-", nil
			}
			if c.ratio && len(ratios) > 0 {
				cell += fmt.Sprintf(" (%.2f)", median(ratios))
			}
			fmt.Fprintf(&b, " %16s", cell)
		}
		b.WriteString("\n")
	}
	for _, p := range r.Paths {
		fmt.Fprintf(&b, "\n%-13s %s", p.Name, p.What)
	}
	b.WriteString("\n")
	return b.String()
}

// median is the middle of the values, of an even number the mean of the two in the middle.
func median(values []float64) float64 {
	v := slices.Clone(values)
	slices.Sort(v)
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}
