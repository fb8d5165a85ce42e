package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/leak/judge"
)

// recoverBound is how long all traffic may take to be back after an event.
const recoverBound = 30 * time.Second

// errFound means that the run has shown what must not be.
var errFound = errors.New("not everything was as it must be")

// missing names the lanes on which nothing passed that was sent after t.
func (w *world) missing(t time.Time) (names []string) {
	for _, l := range w.lanes {
		if !l.since(t) {
			names = append(names, l.name)
		}
	}
	return names
}

// awaitTraffic waits until every lane has passed something that was sent after t.
func (w *world) awaitTraffic(ctx context.Context, t time.Time) (took time.Duration, back bool) {
	return until(ctx, recoverBound, func() bool { return len(w.missing(t)) == 0 })
}

// control shows that the instruments work: without any daemon the wiretap has to see leaks and canaries, and the receivers
// have to take forged packets.
func (w *world) control(ctx context.Context, r *report) error {
	if took, back := w.awaitTraffic(ctx, time.Now()); !back {
		return fmt.Errorf("without any daemon no traffic passes after %s: %s", took, strings.Join(w.missing(time.Now().Add(-took)), ", "))
	}
	var lacking []string
	_, done := until(ctx, recoverBound, func() bool {
		line, err := w.tap.ask(ctx, "counts")
		if err != nil {
			lacking = []string{err.Error()}
			return false
		}
		r.Control.Counts = line.Counts
		r.Control.Accepted, r.Control.AcceptedOctets = w.accepted.seen()
		lacking = r.unshown()
		return len(lacking) == 0
	})
	if !done {
		return fmt.Errorf("without any daemon the instruments do not see what is there, and would prove nothing: %s", strings.Join(lacking, ", "))
	}
	return nil
}

// unshown lists what the instruments did not notice without any daemon.
func (r *report) unshown() (lacking []string) {
	c := r.Control.Counts
	for kind, seen := range map[string]uint64{
		"clear packets": c.LeakKinds[judge.Clear], "clear fragments": c.LeakKinds[judge.Fragment], "quotes in ICMP errors": c.LeakKinds[judge.Quoted],
		"canaries": c.Canaries, "forged packets": c.Injected,
	} {
		if seen == 0 {
			lacking = append(lacking, "the wiretap no "+kind)
		}
	}
	for _, kind := range []string{"UDP over IPv4", "UDP over IPv6", "TCP connection", "TCP segment", "ICMP echo"} {
		if r.Control.Accepted[kind] == 0 {
			lacking = append(lacking, "the receivers no forged "+kind)
		}
	}
	return lacking
}

// verdict asks the instruments. Its error tells what must not be.
func (w *world) verdict(ctx context.Context, r *report) error {
	line, err := w.tap.ask(ctx, "counts")
	if err != nil {
		return err
	}
	r.Counts, r.Others = line.Counts, line.Others
	var errs []error
	if leaks := w.tap.leaks(); len(leaks) > 0 || line.Counts.Leaks > 0 {
		r.Leaks = leaks
		errs = append(errs, fmt.Errorf("%w: %d packets in clear", errFound, line.Counts.Leaks))
	}
	if packets, octets, kinds, examples := w.accepted.take(); packets > 0 {
		r.Accepted, r.AcceptedOctets, r.Examples = r.Accepted+packets, r.AcceptedOctets+octets, append(r.Examples, examples...)
		errs = append(errs, fmt.Errorf("%w: %d forged packets with %d octets were accepted: %v", errFound, packets, octets, kinds))
	}
	return errors.Join(errs...)
}

// play runs the whole test and fills the report.
func play(ctx context.Context, o options, r *report, say func(format string, a ...any)) (err error) {
	w, err := newWorld(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			for _, s := range w.nodes {
				r.Logs = append(r.Logs, "--- "+s.Name+"\n"+w.logs(s))
			}
		}
		err = errors.Join(err, w.close())
	}()
	traffic, stop := context.WithCancel(ctx)
	defer stop()
	w.stop = stop
	if err := w.startTraffic(traffic); err != nil {
		return err
	}
	if err := w.intrude(traffic); err != nil {
		return err
	}
	if err := w.control(ctx, r); err != nil {
		return err
	}
	say("without any daemon the wiretap saw %d leaks and the machines took %d octets that were forged: the instruments work", r.Control.Counts.Leaks, r.Control.AcceptedOctets)
	if err := w.startDaemons(ctx); err != nil {
		return err
	}
	took, back := w.awaitTraffic(ctx, time.Now())
	if !back {
		return fmt.Errorf("%w: traffic does not begin under the policy within %s: %s", errFound, took, strings.Join(w.missing(time.Now().Add(-took)), ", "))
	}
	if _, err := w.tap.ask(ctx, "reset"); err != nil {
		return err
	}
	w.accepted.take()
	start := time.Now()
	r.Start = start
	defer func() { r.Seconds = time.Since(start).Seconds() }()
	return w.happen(ctx, o, r, say)
}

// happen lets one event after the other happen, in an order that the seed decides, each once before any comes again.
func (w *world) happen(ctx context.Context, o options, r *report, say func(format string, a ...any)) error {
	random := rand.New(rand.NewPCG(o.seed, 0))
	swapping, stopSwapping := context.WithCancel(ctx)
	defer stopSwapping()
	swapped := make(chan swaps, 1)
	go func() { swapped <- w.keepSwapping(swapping, o.swapEvery) }()
	var deck []event
	var failure error
	for end := time.Now().Add(o.length); time.Now().Before(end) && ctx.Err() == nil; {
		if len(deck) == 0 {
			deck = o.events()
			random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		next := deck[0]
		deck = deck[1:]
		m := moment{At: time.Since(r.Start).Seconds(), Event: next.name}
		var err error
		m.Detail, err = next.do(ctx, w, random)
		var back bool
		var took time.Duration
		if err == nil {
			after := time.Now()
			took, back = w.awaitTraffic(ctx, after)
			m.Recovery = took.Seconds()
			if !back && ctx.Err() == nil {
				err = fmt.Errorf("%w: traffic is not back %s after %s: %s", errFound, took, next.name, strings.Join(w.missing(after), ", "))
			}
		}
		err = errors.Join(err, w.verdict(ctx, r))
		r.Moments = append(r.Moments, m)
		say("%6.1f s  %-20s %s: back after %.2f s", m.At, m.Event, m.Detail, m.Recovery)
		if err != nil && ctx.Err() == nil {
			failure = errors.Join(failure, fmt.Errorf("after %s (%s): %w", next.name, m.Detail, err))
			if !o.keepGoing {
				break
			}
		}
		pause(ctx, time.Duration(random.Int64N(int64(500*time.Millisecond))))
	}
	stopSwapping()
	s := <-swapped
	r.Swaps, r.SwapsFailed = s.done, s.failed
	for _, n := range w.nodes {
		r.PoliciesInForce = append(r.PoliciesInForce, w.count(n, "policy is in force"))
		r.Restored = append(r.Restored, w.count(n, "was changed by another program"))
	}
	for _, l := range w.lanes {
		r.Requests += l.sent.Load()
		r.Answers += l.passed.Load()
	}
	if ctx.Err() != nil {
		return errors.Join(failure, ctx.Err())
	}
	w.stop()
	w.running.Wait()
	return errors.Join(failure, w.last(ctx, r, failure == nil))
}

// last ends the wiretap, and of a whole run wants to have seen something of everything.
func (w *world) last(ctx context.Context, r *report, whole bool) error {
	err := w.verdict(ctx, r)
	line, end := w.tap.end(ctx)
	err = errors.Join(err, end)
	r.Counts, r.Others, r.Leaks = line.Counts, line.Others, slices.Clone(w.tap.leaks())
	if line.Counts.Leaks > 0 && !errors.Is(err, errFound) {
		err = errors.Join(err, fmt.Errorf("%w: %d packets in clear", errFound, line.Counts.Leaks))
	}
	c := line.Counts
	esp, never := w.mode.seen(c)
	if never > 0 {
		err = errors.Join(err, fmt.Errorf("%w: %d packets are ESP as mode %s has none", errFound, never, w.mode))
	}
	for what, seen := range map[string]uint64{
		"ESP": esp, "IKE": c.IKE, "permitted traffic": c.Permitted, "canaries": c.Canaries, "forged packets": c.Injected, "ARP": c.ARP,
		"neighbour discovery": c.Neighbour, "new IKE SAs": c.Exchanges["IKE_SA_INIT response"], "rekeys": c.Exchanges["CREATE_CHILD_SA response"],
	} {
		if seen == 0 && whole {
			err = errors.Join(err, fmt.Errorf("%w: the wiretap saw no %s, so that it proves nothing", errFound, what))
		}
	}
	return err
}

type swaps struct{ done, failed int }

// keepSwapping puts another policy into force again and again, while there is a controller.
func (w *world) keepSwapping(ctx context.Context, every time.Duration) (s swaps) {
	each(ctx, every, func() {
		if !w.controllerRuns() {
			return
		}
		err := w.swap(ctx)
		switch {
		case ctx.Err() != nil:
		case err == nil:
			s.done++
		case w.controllerRuns():
			s.failed++
		}
	})
	return s
}
