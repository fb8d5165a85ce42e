package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bench/ikeload"
)

// footprint is the memory of one IKE SA with one Child SA, at one end, in octets.
type footprint struct {
	SAs       int    `json:"associations"`
	Initiator memory `json:"initiator"`
	Responder memory `json:"responder"`
	Fixed     memory `json:"fixed"` // of the whole process with a few hundred associations
}

type memory struct {
	Heap     float64 `json:"heap_octets"`
	Resident float64 `json:"resident_octets"`
}

// measureFootprint brings associations up over UDP and compares the memory of both processes before and after.
func measureFootprint() (f footprint, err error) {
	const warm, more = 500, 4000
	plan := ikeload.DefaultPlan(ikeload.MethodSharedKey, warm+more)
	err = withPair(plan, func(pair *ikeload.RemotePair) error {
		if err := pair.Start(plan, ikeload.Identities{}, false); err != nil {
			return err
		}
		if err := pair.Burst(0, warm, 0); err != nil {
			return err
		}
		before, err := bothMemories(pair)
		if err != nil {
			return err
		}
		if err := pair.Burst(warm, warm+more, warm); err != nil {
			return err
		}
		after, err := bothMemories(pair)
		if err != nil {
			return err
		}
		each := func(i int) memory {
			return memory{(after[i].Heap - before[i].Heap) / more, (after[i].Resident - before[i].Resident) / more}
		}
		f = footprint{SAs: more, Initiator: each(0), Responder: each(1), Fixed: before[1]}
		return pair.Stop()
	})
	return f, err
}

func bothMemories(pair *ikeload.RemotePair) ([2]memory, error) {
	var m [2]memory
	for i, r := range []*ikeload.Remote{pair.Initiator, pair.Responder} {
		a, err := r.Order(ikeload.Order{Do: "memory"})
		if err != nil {
			return m, err
		}
		m[i] = memory{float64(a.Heap), float64(a.Resident)}
	}
	return m, nil
}

// withPair gives do two processes on a street of their own.
func withPair(plan ikeload.Plan, do func(*ikeload.RemotePair) error) (err error) {
	street, err := ikeload.NewStreet(labPrefix, plan)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, street.Close()) }()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	pair, err := street.LaunchPair(self, roleArgument)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pair.Close()) }()
	return do(pair)
}

// children is what many Child SAs on one node took, in memory.
type children struct {
	IKE      int    `json:"ike_sas"`
	Children int    `json:"child_sas"`
	CPU      micros `json:"cpu_us_each"` // per Child SA, both ends
	Seconds  float64
	Heap     float64 `json:"heap_octets_each"` // per Child SA and end
	Close    micros  `json:"close_cpu_us_each"`
}

// measureChildren makes 10,000 Child SAs between two machines in this process: a hundred at each of a hundred IKE SAs.
func measureChildren(ctx context.Context) (c children, err error) {
	const total, each = 10_000, 100
	plan := ikeload.DefaultPlan(ikeload.MethodSharedKey, total)
	plan.Children = each
	pair, err := ikeload.NewPairWith(plan, ikeload.Identities{}, false)
	if err != nil {
		return c, err
	}
	ctx, cancel := context.WithTimeout(ctx, ikeload.BurstLimit)
	defer cancel()
	heap, _, err := ikeload.Memory()
	if err != nil {
		return c, err
	}
	before, err := ikeload.CPU(0)
	if err != nil {
		return c, err
	}
	start := time.Now()
	// The engine lets some four thousand flows wait at a time.
	for from := 0; from < total; from += total / 5 {
		if err := ikeload.Burst(ctx, pair.Initiator, pair.Responder, from, from+total/5); err != nil {
			return c, err
		}
	}
	c.Seconds = time.Since(start).Seconds()
	after, err := ikeload.CPU(0)
	if err != nil {
		return c, err
	}
	more, _, err := ikeload.Memory()
	if err != nil {
		return c, err
	}
	c.CPU, c.Heap = toMicros(after-before)/total, float64(int64(more)-int64(heap))/2/total
	v, err := pair.Responder.Snapshot(ctx)
	if err != nil {
		return c, err
	}
	c.IKE = len(v.SAs)
	for _, s := range v.SAs {
		c.Children += len(s.Children)
	}
	if c.Children != total {
		return c, fmt.Errorf("%d Child SAs are up, want %d", c.Children, total)
	}
	if before, err = ikeload.CPU(0); err != nil {
		return c, err
	}
	if err := pair.Stop(); err != nil {
		return c, err
	}
	if after, err = ikeload.CPU(0); err != nil {
		return c, err
	}
	c.Close = toMicros(after-before) / total
	return c, nil
}

// peers is what a thousand peers at once took.
type peers struct {
	Where   string  `json:"where"`
	Peers   int     `json:"peers"`
	Lost    int     `json:"lost"`
	Seconds float64 `json:"seconds"`
	CPU     micros  `json:"cpu_us_each"`
	Dropped uint64  `json:"dropped_datagrams"`
}

// measureStar lets a thousand machines, each with an engine and a certificate of its own, call one hub at once.
func measureStar(ctx context.Context) (peers, error) {
	const n = 1000
	p := peers{Where: "memory, a thousand engines and certificates", Peers: n}
	star, err := ikeload.NewStar(n)
	if err != nil {
		return p, err
	}
	ctx, cancel := context.WithTimeout(ctx, ikeload.BurstLimit)
	defer cancel()
	before, err := ikeload.CPU(0)
	if err != nil {
		return p, err
	}
	start := time.Now()
	if err := star.Up(ctx); err != nil {
		return p, err
	}
	p.Seconds = time.Since(start).Seconds()
	after, err := ikeload.CPU(0)
	if err != nil {
		return p, err
	}
	p.CPU, p.Dropped = toMicros(after-before)/n, star.Wire.Dropped()
	return p, errors.Join(star.Check(ctx), star.Stop())
}

// measureThousand lets one process play a thousand peers with a preshared key each, over UDP.
func measureThousand() (p peers, err error) {
	const n = 1000
	p = peers{Where: "UDP, one process with a thousand addresses and keys", Peers: n}
	plan := ikeload.DefaultPlan(ikeload.MethodDistinctKeys, n)
	err = withPair(plan, func(pair *ikeload.RemotePair) error {
		if err := pair.Start(plan, ikeload.Identities{}, false); err != nil {
			return err
		}
		s, err := timed(pair.Initiator.Pid, pair.Responder.Pid, func() error { return pair.Burst(0, n, 0) })
		if err != nil {
			return err
		}
		p.CPU, p.Seconds = toMicros(s.both)/n, s.wall.Seconds()
		for _, r := range []*ikeload.Remote{pair.Initiator, pair.Responder} {
			a, err := r.Order(ikeload.Order{Do: "state"})
			if err != nil {
				return err
			}
			p.Lost = max(p.Lost, n-(a.SAs-a.HalfOpen))
			p.Dropped += a.Dropped
		}
		return pair.Stop()
	})
	return p, err
}

// flooded is how a responder fares under a flood.
type flooded struct {
	Wanted    int     `json:"wanted_per_second"`
	Sent      float64 `json:"sent_per_second"`
	Received  float64 `json:"received_per_second"` // looked at by the responder
	Cookies   float64 `json:"cookies_per_second"`
	CPU       micros  `json:"cpu_us_each"` // of the responder, per message that it looked at
	HalfOpen  int     `json:"half_open"`
	Peers     int     `json:"peers"` // brought up meanwhile, one after another
	P50       micros  `json:"handshake_us_p50"`
	Max       micros  `json:"handshake_us_max"`
	Calm      micros  `json:"handshake_us_p50_without_flood"`
	HeapGrown float64 `json:"heap_grown_octets"`
	Dropped   uint64  `json:"dropped_datagrams"`
}

// measureFlood brings peers up one after another, first in peace and then while first messages of invented sources come.
func measureFlood(ctx context.Context, rate int) (f flooded, err error) {
	const each = 100
	f = flooded{Wanted: rate, Peers: each}
	plan := ikeload.DefaultPlan(ikeload.MethodSharedKey, 2*each)
	street, err := ikeload.NewStreet(labPrefix, plan)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, street.Close()) }()
	sources := netip.MustParsePrefix("10.32.0.0/12")
	if err := street.Invite(sources); err != nil {
		return f, err
	}
	self, err := os.Executable()
	if err != nil {
		return f, err
	}
	pair, err := street.LaunchPair(self, roleArgument)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, pair.Close()) }()
	if err := pair.Start(plan, ikeload.Identities{}, false); err != nil {
		return f, err
	}
	calm, err := oneByOne(pair, 0, each)
	if err != nil {
		return f, err
	}
	f.Calm = toMicros(calm[each/2])
	var flood *ikeload.Flood
	err = street.Initiator.Do(func() (err error) {
		flood, err = ikeload.NewFlood(netip.AddrPortFrom(plan.Responder(0), 500), sources)
		return err
	})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, flood.Close()) }()
	memoryBefore, err := pair.Responder.Order(ikeload.Order{Do: "memory"})
	if err != nil {
		return f, err
	}
	flooding, stop := context.WithCancel(ctx)
	defer stop()
	type outcome struct {
		sent ikeload.FloodResult
		err  error
	}
	ended := make(chan outcome, 1)
	go func() {
		r, err := flood.Run(flooding, rate)
		ended <- outcome{r, err}
	}()
	if err := warm(pair); err != nil {
		return f, err
	}
	before, err := pair.Responder.Order(ikeload.Order{Do: "state"})
	if err != nil {
		return f, err
	}
	start := time.Now()
	var meanwhile []time.Duration
	s, err := timed(pair.Initiator.Pid, pair.Responder.Pid, func() (err error) {
		meanwhile, err = oneByOne(pair, each, 2*each)
		for err == nil && time.Since(start) < floodTime {
			err = pace(ctx)
		}
		return err
	})
	if err != nil {
		return f, err
	}
	after, err := pair.Responder.Order(ikeload.Order{Do: "state"})
	if err != nil {
		return f, err
	}
	memoryAfter, err := pair.Responder.Order(ikeload.Order{Do: "memory"})
	if err != nil {
		return f, err
	}
	stop()
	o := <-ended
	if o.err != nil {
		return f, o.err
	}
	grown := func(name string) float64 { return float64(after.Counters[name] - before.Counters[name]) }
	f.Sent, f.Received, f.Cookies = o.sent.PerSecond(), grown("init_received")/s.wall.Seconds(), grown("cookies_sent")/s.wall.Seconds()
	f.CPU = toMicros(s.responder) / micros(max(grown("init_received"), 1))
	f.HalfOpen, f.Dropped = after.HalfOpen, after.Dropped-before.Dropped
	f.P50, f.Max = toMicros(meanwhile[len(meanwhile)/2]), toMicros(meanwhile[len(meanwhile)-1])
	f.HeapGrown = float64(memoryAfter.Heap) - float64(memoryBefore.Heap)
	return f, pair.Stop()
}

// floodTime is how long a flood is watched at the least.
const floodTime = 5 * time.Second

// warm waits until the flood has reached the responder.
func warm(pair *ikeload.RemotePair) error {
	for {
		a, err := pair.Responder.Order(ikeload.Order{Do: "state"})
		if err != nil || a.Counters["cookies_sent"] > 1000 {
			return err
		}
		if err := pace(context.Background()); err != nil {
			return err
		}
	}
}

// pace waits for a moment.
func pace(ctx context.Context) error {
	timer := time.NewTimer(50 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// oneByOne brings pairs up, each after the one before, and tells how long each took, the shortest first.
func oneByOne(pair *ikeload.RemotePair, from, until int) ([]time.Duration, error) {
	var took []time.Duration
	for i := from; i < until; i++ {
		start := time.Now()
		if err := pair.Burst(i, i+1, i); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took, nil
}
