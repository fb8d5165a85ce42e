package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/control"
	"github.com/bailiwick-net/bailiwick/node/identity"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// stormPolicy is given to all machines in the middle of the storm.
const stormPolicy = "Client (Respond Only)"

// stormTime bounds a storm.
const stormTime = 10 * time.Minute

// The pauses of the node's daemon between two attempts to renew, at their shortest: for a certificate that ends soon. One
// attempt waits so long for its answer.
const (
	renewPause  = time.Minute
	renewAnswer = 10 * time.Second
)

// A comeback is how one machine fared: moments of the clock on the wall, and how often it was sent away.
type comeback struct {
	Began, Connected, Renewed, Assigned time.Time
	// Sessions are how often it had to connect, Attempts how often it asked for a certificate.
	Sessions, Attempts int
	// Asked is how long the last attempt took.
	Asked time.Duration
	// Problem is the last error of an attempt, for people.
	Problem string
	// Ends is when the certificate ends that it had.
	Ends time.Time
}

// progress counts machines, for people.
type progress struct{ connected, renewed, assigned, sentAway atomic.Int64 }

// comeBack lets all machines open sessions, each at a time of its own within the spread: as after an outage that was longer than
// their longest pause, when attempts that began together have long come apart. Each asks for a certificate as soon as it has a
// session, and stays connected. It ends when all have a certificate and the policy.
func (c *crowd) comeBack(spread time.Duration, out io.Writer) ([]comeback, error) {
	ctx, cancel := context.WithTimeout(context.Background(), stormTime)
	back := make([]comeback, len(c.machines))
	var p progress
	var done, sessions sync.WaitGroup
	for i, m := range c.machines {
		done.Add(1)
		sessions.Go(func() { m.comeBack(ctx, spread, &back[i], &p, done.Done) })
	}
	finished := make(chan struct{})
	go func() { done.Wait(); close(finished) }()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	var err error
	for waiting := true; waiting; {
		select {
		case <-tick.C:
			fmt.Fprintf(out, "%s of %d machines %d connected, %d have certificates, %d the policy; sent away %d times\n", time.Now().Format("15:04:05"),
				len(c.machines), p.connected.Load(), p.renewed.Load(), p.assigned.Load(), p.sentAway.Load())
		case <-finished:
			waiting = false
		case <-ctx.Done():
			waiting, err = false, fmt.Errorf("after %v %d of %d machines have certificates, and %d the policy", stormTime, p.renewed.Load(), len(c.machines), p.assigned.Load())
		}
	}
	cancel()
	sessions.Wait()
	return back, err
}

// comeBack holds one session until ctx ends. It calls done once, when it has a certificate and the policy.
func (m *machine) comeBack(ctx context.Context, spread time.Duration, b *comeback, p *progress, done func()) {
	if !pause(ctx, rand.N(spread)) {
		return
	}
	b.Began, b.Ends = time.Now(), m.present.Load().Leaf().NotAfter
	// After a long outage the next pause is the longest.
	client := control.New(control.Config{Credentials: func() identity.Credentials { return *m.present.Load() }, Now: time.Now, Logger: hclog.NewNullLogger(), MinBackoff: time.Minute})
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { _ = client.Run(ctx) })
	renewed := make(chan comeback, 1)
	left := 2
	for {
		select {
		case e, open := <-client.Events():
			if !open {
				return
			}
			if m.follow(client, e, b) {
				running.Go(func() { renewed <- m.renewInTime(ctx, client, p) })
				p.connected.Add(1)
			}
			if a := assignment(e); a != nil && b.Assigned.IsZero() && a.GetPolicy() == stormPolicy {
				b.Assigned, left = time.Now(), left-1
				p.assigned.Add(1)
			}
		case r := <-renewed:
			b.Renewed, b.Attempts, b.Asked, b.Problem = r.Renewed, r.Attempts, r.Asked, r.Problem
			left--
		}
		if left == 0 {
			left = -1
			done()
		}
	}
}

func assignment(e control.Event) *nodev1.Assignment {
	if message, ok := e.(control.Message); ok {
		return message.Response.GetAssignment()
	}
	return nil
}

// follow answers the controller as a node does that has its bundles. It reports whether this is the first session.
func (m *machine) follow(client *control.Client, e control.Event, b *comeback) (first bool) {
	if _, ok := e.(control.Connected); ok {
		trusted := m.present.Load().Trust.Digest()
		client.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Hello{Hello: &nodev1.Hello{Version: "bench", TrustDigest: trusted[:]}}})
		b.Sessions++
		if b.Connected.IsZero() {
			b.Connected = time.Now()
			return true
		}
	}
	if a := assignment(e); a != nil {
		client.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Acknowledgement{
			Acknowledgement: &nodev1.Acknowledgement{Revision: a.GetRevision(), Digest: a.GetDigest()},
		}})
	}
	return false
}

// renewInTime asks until it has a certificate.
func (m *machine) renewInTime(ctx context.Context, client *control.Client, p *progress) (b comeback) {
	for ctx.Err() == nil {
		b.Attempts++
		start := time.Now()
		err := m.renewBy(func(csr []byte) (identity.Issued, error) {
			ctx, cancel := context.WithTimeout(ctx, renewAnswer)
			defer cancel()
			return client.Renew(ctx, csr)
		})
		b.Asked = time.Since(start)
		if err == nil {
			b.Renewed = time.Now()
			p.renewed.Add(1)
			return b
		}
		b.Problem = err.Error()
		p.sentAway.Add(1)
		pause(ctx, renewPause+rand.N(renewPause/2))
	}
	return b
}

// pause waits, and reports false if ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// storm lets all machines join and come back.
func (s *scene) storm(ctx context.Context, out io.Writer, spread time.Duration) error {
	if _, err := s.joinAll(ctx, nil); err != nil {
		return err
	}
	return s.back(ctx, out, spread)
}

// back lets all machines come back, gives them a policy meanwhile, and prints how they fared.
func (s *scene) back(ctx context.Context, out io.Writer, spread time.Duration) error {
	before, err := resident()
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	most := make(chan int64, 1)
	go func() { most <- watchResident(watching) }()
	s.keepTime()
	var start time.Time
	var used time.Duration
	applied := make(chan error, 1)
	var linked time.Time
	a, err := s.have(order{Return: spread}, func() error {
		if err := s.beginProfile(); err != nil {
			return err
		}
		start = time.Now()
		used, err = processor()
		go func() {
			if !pause(ctx, spread/2) {
				applied <- ctx.Err()
				return
			}
			linked = time.Now()
			applied <- s.link(ctx)
		}()
		return err
	})
	if err != nil {
		return err
	}
	if err := <-applied; err != nil {
		return fmt.Errorf("giving the machines a policy: %w", err)
	}
	end, err := processor()
	if err != nil {
		return err
	}
	pprof.StopCPUProfile()
	stop()
	return report(out, a.Back, storm{start: start, linked: linked, spread: spread, used: end - used, before: before, most: <-most})
}

// A storm is what the controller's side saw.
type storm struct {
	start, linked time.Time
	spread, used  time.Duration
	before, most  int64 // octets of memory
}

func report(out io.Writer, back []comeback, s storm) error {
	var connect, ask, have, policy []time.Duration
	var away, again, never, ended int
	var last, ends time.Time
	var without time.Duration
	problems := map[string]int{}
	for _, b := range back {
		if b.Renewed.IsZero() || b.Assigned.IsZero() {
			never++
			continue
		}
		connect, ask, have = append(connect, b.Connected.Sub(b.Began)), append(ask, b.Asked), append(have, b.Renewed.Sub(b.Began))
		from := b.Connected
		if from.Before(s.linked) {
			from = s.linked
		}
		policy = append(policy, b.Assigned.Sub(from))
		away, again = away+b.Attempts-1, again+b.Sessions-1
		if b.Problem != "" {
			problems[b.Problem]++
		}
		if late := b.Renewed.Sub(b.Ends); late > 0 {
			ended, without = ended+1, max(without, late)
		}
		if b.Renewed.After(last) {
			last = b.Renewed
		}
		if ends.IsZero() || b.Ends.Before(ends) {
			ends = b.Ends
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d machines come back within %v, each renews its certificate\n", len(back), s.spread)
	for _, row := range []struct {
		what  string
		times []time.Duration
	}{
		{"until a machine has its session", connect},
		{"the renewal that succeeded", ask},
		{"from its first attempt to connect to its certificate", have},
		{"from the change of policy, or its session, to the policy", policy},
	} {
		fmt.Fprintf(&text, "  %-58s %s\n", row.what, percentiles(row.times))
	}
	fmt.Fprintf(&text, "  the last certificate %.1f s after the return; %d machines got none; sent away %d times; sessions opened again %d times\n",
		last.Sub(s.start).Seconds(), never, away, again)
	for problem, n := range problems {
		fmt.Fprintf(&text, "  %d machines were told: %s\n", n, problem)
	}
	fmt.Fprintf(&text, "  the first of the former certificates ended %v after the return; %d machines had one that had ended, at most for %v\n",
		ends.Sub(s.start).Round(time.Second), ended, without.Round(time.Second))
	fmt.Fprintf(&text, "  processor time of the controller %.2f ms a machine; memory %d MB before, at most %d MB\n",
		1e3*s.used.Seconds()/float64(len(back)), s.before>>20, s.most>>20)
	if _, err := io.WriteString(out, text.String()); err != nil {
		return err
	}
	if never > 0 {
		return fmt.Errorf("%d machines are without a certificate or without the policy", never)
	}
	return nil
}

func percentiles(times []time.Duration) string {
	if len(times) == 0 {
		return "-"
	}
	slices.Sort(times)
	at := func(percent int) time.Duration { return times[(len(times)-1)*percent/100].Round(time.Millisecond) }
	return fmt.Sprintf("median %v, 90 %% %v, 99 %% %v, worst %v", at(50), at(90), at(99), at(100))
}

var errStatm = errors.New("/proc/self/statm is not what it is known to be")

// resident is the memory of this process, in octets.
func resident() (int64, error) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, errStatm
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0, errors.Join(errStatm, err)
	}
	return pages * int64(os.Getpagesize()), nil
}

// watchResident is the most memory that was seen until ctx ended.
func watchResident(ctx context.Context) int64 {
	var most int64
	for {
		if now, err := resident(); err == nil {
			most = max(most, now)
		}
		if !pause(ctx, 200*time.Millisecond) {
			return most
		}
	}
}
