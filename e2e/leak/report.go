package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/leak/judge"
)

// moment is an event that happened.
type moment struct {
	At       float64 `json:"at"` // seconds after the start
	Event    string  `json:"event"`
	Detail   string  `json:"detail"`
	Recovery float64 `json:"recovery"` // seconds until everything passed again
}

// report is what a run has shown.
type report struct {
	Seed    uint64    `json:"seed"`
	Mode    mode      `json:"mode"`
	Start   time.Time `json:"start"`
	Seconds float64   `json:"seconds"`
	// Control is what the instruments showed before there was any protection.
	Control struct {
		Counts         judge.Counts   `json:"counts"`
		Accepted       map[string]int `json:"accepted"`
		AcceptedOctets int            `json:"acceptedOctets"`
	} `json:"control"`
	Counts judge.Counts `json:"counts"`
	Others []string     `json:"others,omitempty"`
	Leaks  []judge.Leak `json:"leaks"`
	// Accepted are forged packets that a machine took.
	Accepted       int      `json:"accepted"`
	AcceptedOctets int      `json:"acceptedOctets"`
	Examples       []string `json:"examples,omitempty"`
	Moments        []moment `json:"events"`
	Swaps          int      `json:"swaps"`
	SwapsFailed    int      `json:"swapsFailed"`
	// PoliciesInForce and Restored are of each node: how often a policy came into force, and how often it put back what
	// others had changed.
	PoliciesInForce []int    `json:"policiesInForce"`
	Restored        []int    `json:"restored"`
	Requests        int64    `json:"requests"`
	Answers         int64    `json:"answers"`
	Failure         string   `json:"failure,omitempty"`
	Logs            []string `json:"-"`
}

// text is the report for people.
func (r *report) text() string {
	var b strings.Builder
	line := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	line("Mode %s, seed %d, %.0f s from %s.", r.Mode, r.Seed, r.Seconds, r.Start.UTC().Format(time.RFC3339))
	line("")
	line("before any daemon ran, to show that the instruments work:")
	line("  in clear         %d: %s", r.Control.Counts.Leaks, table(r.Control.Counts.LeakKinds))
	line("  forged, accepted %s, %d octets", table(r.Control.Accepted), r.Control.AcceptedOctets)
	line("under the policy:")
	c := r.Counts
	line("  in clear         %d %s", c.Leaks, table(c.LeakKinds))
	line("  forged, accepted %d packets with %d octets, of %d that were sent", r.Accepted, r.AcceptedOctets, c.Injected)
	line("  on the wire      %d frames, %d octets", c.Frames, c.Octets)
	line("                   ESP %d, ESP in UDP %d, IKE %d, ARP %d, neighbour discovery %d, ICMP errors %d, fragments %d", c.ESP, c.ESPinUDP, c.IKE, c.ARP, c.Neighbour, c.Errors, c.Fragments)
	line("                   permitted %d (canaries %d), multicast %d, other %d, malformed %d", c.Permitted, c.Canaries, c.Multicast, c.Other, c.Malformed)
	line("  IKE              %s", table(c.Exchanges))
	line("  requests         %d, answered %d", r.Requests, r.Answers)
	line("  policy swaps     %d through the controller (%d refused), in force %v times on the nodes; rules put back %v times", r.Swaps, r.SwapsFailed, r.PoliciesInForce, r.Restored)
	line("")
	line("%-22s %6s %10s %10s", "event", "times", "back s", "longest s")
	byName := map[string][]float64{}
	for _, m := range r.Moments {
		byName[m.Event] = append(byName[m.Event], m.Recovery)
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		v := slices.Sorted(slices.Values(byName[name]))
		line("%-22s %6d %10.2f %10.2f", name, len(v), v[len(v)/2], v[len(v)-1])
	}
	if r.Failure == "" {
		line("\nNothing that must be protected was in clear or was accepted in clear.")
		return b.String()
	}
	line("\nFAILED: %s", r.Failure)
	for i, l := range r.Leaks {
		const most = 40
		if i == most {
			line("... and %d more", len(r.Leaks)-most)
			break
		}
		line("%8.3f s  %s", l.Time.Sub(r.Start).Seconds(), l)
	}
	for _, e := range r.Examples {
		line("accepted %s", e)
	}
	line("\nthe events before, in mode %s with seed %d:", r.Mode, r.Seed)
	for _, m := range r.Moments[max(0, len(r.Moments)-10):] {
		line("%8.3f s  %s %s (back after %.2f s)", m.At, m.Event, m.Detail, m.Recovery)
	}
	for _, l := range r.Logs {
		line("\n%s", l)
	}
	return b.String()
}

// table is a map on one line.
func table[K ~string, V any](m map[K]V) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, fmt.Sprintf("%s %v", k, m[k]))
	}
	return strings.Join(list, ", ")
}
