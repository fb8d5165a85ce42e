package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bench/ikeload"
)

// options are what the command line asked for.
type options struct {
	peers, rounds int
	match         string
	parts         map[string]bool
}

// variant is one row of the table.
type variant struct {
	name   string
	method ikeload.Method
	kind   ikeload.KeyKind
	chain  bool // every chain is verified anew
	kem    bool
}

var variants = []variant{
	{name: "PSK, one shared", method: ikeload.MethodSharedKey},
	{name: "PSK, all distinct", method: ikeload.MethodDistinctKeys},
	{name: "ECDSA P-256, chain cached", method: ikeload.MethodCertificate, kind: ikeload.KeyECDSA},
	{name: "ECDSA P-256, chain verified", method: ikeload.MethodCertificate, kind: ikeload.KeyECDSA, chain: true},
	{name: "ECDSA P-256 + ML-KEM-768", method: ikeload.MethodCertificate, kind: ikeload.KeyECDSA, kem: true},
	{name: "RSA-2048, chain cached", method: ikeload.MethodCertificate, kind: ikeload.KeyRSA},
}

// cost is what one handshake took, both ends together.
type cost struct {
	CPU       micros  `json:"cpu_us"` // median of the rounds
	Min       micros  `json:"cpu_us_min"`
	Max       micros  `json:"cpu_us_max"`
	Initiator micros  `json:"cpu_us_initiator,omitempty"`
	Responder micros  `json:"cpu_us_responder,omitempty"`
	PerCore   float64 `json:"per_core_second"`  // handshakes per second of processor time of both ends
	PerSecond float64 `json:"per_second_clock"` // by the clock on the wall, on this machine as busy as it was
}

// micros is a duration in microseconds.
type micros float64

func toMicros(d time.Duration) micros { return micros(float64(d) / 1e3) }

// sample is one burst.
type sample struct {
	initiator, responder, both, wall time.Duration
	n                                int
}

func summarize(samples []sample) cost {
	slices.SortFunc(samples, func(a, b sample) int { return int(a.both - b.both) })
	each := func(s sample, d time.Duration) micros { return toMicros(d) / micros(s.n) }
	mid := samples[len(samples)/2]
	c := cost{
		CPU: each(mid, mid.both), Min: each(samples[0], samples[0].both), Max: each(samples[len(samples)-1], samples[len(samples)-1].both),
		Initiator: each(mid, mid.initiator), Responder: each(mid, mid.responder),
		PerSecond: float64(mid.n) / mid.wall.Seconds(),
	}
	c.PerCore = 1e6 / float64(c.CPU)
	return c
}

// inMemory measures a variant with both ends in this process.
func inMemory(ctx context.Context, o options, v variant) (cost, error) {
	plan := v.plan(o.peers)
	var ids ikeload.Identities
	if v.method == ikeload.MethodCertificate {
		var err error
		if ids, err = ikeload.NewIdentities(v.kind); err != nil {
			return cost{}, err
		}
	}
	var samples []sample
	for range o.rounds {
		s, err := memoryBurst(ctx, plan, ids, v.chain, o.peers)
		if err != nil {
			return cost{}, fmt.Errorf("%s: %w", v.name, err)
		}
		samples = append(samples, s)
	}
	return summarize(samples), nil
}

func memoryBurst(ctx context.Context, plan ikeload.Plan, ids ikeload.Identities, chain bool, n int) (s sample, err error) {
	pair, err := ikeload.NewPairWith(plan, ids, chain)
	if err != nil {
		return s, err
	}
	ctx, cancel := context.WithTimeout(ctx, ikeload.BurstLimit)
	defer cancel()
	runtime.GC() // what earlier rounds left is not this one's work
	before, err := ikeload.CPU(0)
	if err != nil {
		return s, err
	}
	start := time.Now()
	if err := ikeload.Burst(ctx, pair.Initiator, pair.Responder, 0, n); err != nil {
		return s, err
	}
	s.wall = time.Since(start)
	after, err := ikeload.CPU(0)
	if err != nil {
		return s, err
	}
	s.both, s.n = after-before, n
	return s, pair.Stop()
}

func (v variant) plan(peers int) ikeload.Plan {
	p := ikeload.DefaultPlan(v.method, peers)
	p.KEM = v.kem
	return p
}

func wanted(o options, v variant) bool { return o.match == "" || strings.Contains(v.name, o.match) }
