package driver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// goodbye bounds how long Run waits, after its context has ended, for peers to confirm that the SAs are deleted.
const goodbye = 2 * time.Second

// Driver owns an engine. Its loop, in Run, is the only goroutine that touches it; the other methods send commands.
type Driver struct {
	cfg      Config
	log      hclog.Logger
	engine   *engine.Engine
	commands chan command
	results  chan ike.JobDone
	slots    chan struct{} // bounds the jobs that run at a time
	done     chan struct{}
	queue    []ike.Event     // room for those that one event brings; the loop's own
	unsent   uint64          // messages that the transport did not take; the loop's own
	last     engine.Snapshot // of the ended loop; written before done is closed
}

// command is what the loop does for a caller: one event, or nothing but a snapshot.
type command struct {
	event ike.Event // nil: snapshot, else the answer is empty
	reply chan engine.Snapshot
}

// New checks the configuration. Nothing happens before Run.
func New(cfg Config) (*Driver, error) {
	missing := ""
	switch {
	case cfg.Transport == nil:
		missing = "Transport"
	case cfg.SADB == nil:
		missing = "SADB"
	case cfg.Gate == nil:
		missing = "Gate"
	case cfg.Events == nil:
		missing = "Events"
	case cfg.Jobs == nil:
		missing = "Jobs"
	}
	if missing != "" {
		return nil, fmt.Errorf("%s is not set: %w", missing, ErrConfig)
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Seed == nil {
		cfg.Seed = rand.Reader
	}
	if cfg.KeyLog == nil {
		cfg.KeyLog = io.Discard
	}
	if cfg.IKE.KeyLog {
		cfg.Log.Warn("the key log is on: whoever reads it reads all protected traffic")
	}
	cfg.IKE.Untraced = cfg.untraced()
	return &Driver{
		cfg: cfg, log: cfg.Log, engine: engine.New(cfg.IKE, cfg.Seed),
		commands: make(chan command), results: make(chan ike.JobDone),
		slots: make(chan struct{}, max(runtime.GOMAXPROCS(0), 2)), done: make(chan struct{}),
	}, nil
}

// Run drives the engine until ctx ends; then it deletes every SA and waits for the peers' answers, two seconds at the
// most. It returns nil after an orderly end, an error when the transport or the datapath ended first. It is called once.
func (d *Driver) Run(ctx context.Context) error {
	defer close(d.done)
	defer func() { d.last = d.snapshot() }()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	datagrams, events := d.cfg.Transport.Datagrams(), d.cfg.Events
	arrivals := newArrivals(d.cfg.Transport)
	if s, ok := d.cfg.Transport.(Screened); ok {
		s.Screen(d.engine.Front().Screen)
	}
	stopping := ctx.Done()
	var end <-chan time.Time
	for {
		d.arm(timer)
		// What must not be dropped comes first.
		select {
		case r := <-d.results:
			d.step(r)
			continue
		default:
		}
		select {
		case r := <-d.results:
			d.step(r)
		case ev, ok := <-events:
			if !ok {
				if end == nil {
					return fmt.Errorf("the datapath ended before the IKE driver: %w", ErrStopped)
				}
				events = nil
				continue
			}
			d.step(ev)
		case c := <-d.commands:
			if c.event != nil {
				d.step(c.event)
				c.reply <- engine.Snapshot{}
			} else {
				c.reply <- d.snapshot()
			}
		case dg, ok := <-datagrams:
			if !ok {
				return fmt.Errorf("the transport ended before the IKE driver: %w", ErrStopped)
			}
			d.step(dg)
		case <-arrivals.ready():
			arrivals.take(func(dg ike.Datagram) { d.step(dg) })
		case <-timer.C:
			d.step(ike.Timeout{})
		case <-stopping:
			stopping = nil
			wait := time.NewTimer(goodbye)
			defer wait.Stop()
			end = wait.C
			d.step(ike.Shutdown{Reason: ike.ReasonShutdown})
		case <-end:
			return nil
		}
		if end != nil && d.engine.Idle() {
			return nil
		}
	}
}

func (d *Driver) arm(timer *time.Timer) {
	wait := time.Hour
	if at := d.engine.Deadline(); !at.IsZero() {
		wait = max(time.Until(at), 0)
	}
	timer.Reset(wait)
}

// step gives the engine an event and executes what it asks for, and the same with the results of quick jobs.
func (d *Driver) step(ev ike.Event) {
	queue := append(d.queue[:0], ev)
	for i := 0; i < len(queue); i++ {
		for _, a := range d.contained(queue[i]) {
			if next := d.execute(a); next != nil {
				queue = append(queue, next)
			}
		}
	}
	clear(queue)
	d.queue = queue
}

// contained runs one Step. A panic ends the SA whose code it was, and nothing else.
func (d *Driver) contained(ev ike.Event) (actions []ike.Action) {
	defer func() {
		if r := recover(); r != nil {
			d.log.Error("IKE SA ended by an internal error, please report it", "error", r, "event", fmt.Sprintf("%T", ev), "stack", string(debug.Stack()))
			actions = d.engine.Abandon(fmt.Sprint(r))
		}
	}()
	return d.engine.Step(time.Now(), ev)
}

// execute does one action and shows it to the observer. Its result, where it has one at once, is the next event.
func (d *Driver) execute(a ike.Action) ike.Event {
	next := d.perform(a)
	if d.cfg.Observe != nil {
		d.cfg.Observe(a)
	}
	return next
}

func (d *Driver) perform(a ike.Action) ike.Event {
	switch a := a.(type) {
	case ike.Send:
		if err := d.cfg.Transport.WriteIKE(a.Local, a.Remote, a.Bytes); err != nil {
			d.unsent++
			d.log.Debug("IKE message was not sent, it will be repeated", "remote", a.Remote, "error", err)
		}
	case ike.Keepalive:
		if err := d.cfg.Transport.WriteKeepalive(a.Local, a.Remote); err != nil {
			d.log.Debug("NAT keepalive was not sent", "remote", a.Remote, "error", err)
		}
	case ike.Job:
		return d.start(a)
	case ike.InstallIn:
		return d.installed("install inbound", false, a.Child.In.SPI, d.cfg.SADB.InstallIn(a.Child))
	case ike.InstallOut:
		return d.installed("install outbound", true, a.Child.In.SPI, d.cfg.SADB.InstallOut(a.Child))
	case ike.SwitchOut:
		return d.installed("use outbound", true, a.Child.In.SPI, d.cfg.SADB.SwitchOut(a.Child))
	case ike.Remove:
		if d.log.IsDebug() {
			d.log.Debug("Child SA removed", "spi", a.Child.In.SPI, "rule", a.Child.Rule, "reason", a.Reason)
		}
		if err := d.cfg.SADB.Remove(a.Child.In.SPI); err != nil {
			d.log.Error("Child SA was not removed from the datapath", "spi", a.Child.In.SPI, "error", err)
		}
	case ike.Move:
		if err := d.cfg.SADB.Move(a.SPI, a.Local, a.Remote, a.Encap); err != nil {
			d.log.Warn("Child SA was not moved to other addresses", "spi", a.SPI, "error", err)
		}
	case ike.Fallback:
		d.log.Info("peer is silent, clear traffic is allowed for a while", "rule", a.Flow.Rule, "for", a.TTL)
		if err := d.cfg.Gate.Fallback(a.Flow, a.TTL); err != nil {
			d.log.Error("clear traffic was not allowed", "rule", a.Flow.Rule, "error", err)
		}
	case ike.Refuse:
		d.log.Warn("no association for a flow", "rule", a.Flow.Rule, "reason", a.Reason, "detail", a.Detail)
		if err := d.cfg.Gate.Refuse(a.Flow); err != nil {
			d.log.Error("waiting packets were not dropped", "rule", a.Flow.Rule, "error", err)
		}
	case ike.Up:
		d.log.Info("IKE SA up", "peer", a.Peer, "spi", fmt.Sprintf("%016x", uint64(a.IKE)))
	case ike.Down:
		d.log.Info("IKE SA down", "peer", a.Peer, "spi", fmt.Sprintf("%016x", uint64(a.IKE)), "reason", a.Reason, "fault", a.Fault, "detail", a.Detail)
	case *ike.Trace:
		if !d.log.IsTrace() { // most of what happens is a trace
			return nil
		}
		if !d.log.IsTrace() {
			return nil
		}
		d.log.Trace("IKE", "spi", fmt.Sprintf("%016x", uint64(a.IKE)), "event", a.String())
	case ike.KeyLog:
		if _, err := d.cfg.KeyLog.Write(append(a.Line.Expose(), '\n')); err != nil {
			d.log.Warn("key log was not written", "error", err)
		}
	}
	return nil
}

// snapshot is the state of the engine, with what the driver counts itself.
func (d *Driver) snapshot() engine.Snapshot {
	v := d.engine.Snapshot()
	v.Counters["send_failed"] = d.unsent
	return v
}

// installed turns a refusal of the datapath into an event.
func (d *Driver) installed(what string, outbound bool, spi sa.SPI, err error) ike.Event {
	if err == nil {
		return nil
	}
	d.log.Error("datapath refused a Child SA", "step", what, "spi", spi, "error", err)
	return ike.InstallFailed{SPI: spi, Outbound: outbound, Detail: err.Error()}
}

// start runs a job: here when it is quick, else in a goroutine of its own, a few at a time where it takes processors.
func (d *Driver) start(j ike.Job) ike.Event {
	if !d.cfg.Jobs.slow(j.Work) {
		return ike.JobDone{ID: j.ID, Result: d.cfg.Jobs.run(time.Now(), j.Work)}
	}
	slots := d.slots
	if d.cfg.Jobs.outside(j.Work) {
		slots = make(chan struct{}, 1)
	}
	go func() {
		slots <- struct{}{}
		r := ike.JobDone{ID: j.ID, Result: d.cfg.Jobs.run(time.Now(), j.Work)}
		<-slots
		select {
		case d.results <- r:
		case <-d.done:
		}
	}()
	return nil
}

// Done is closed when Run has ended.
func (d *Driver) Done() <-chan struct{} { return d.done }

// Reconfigure puts a new configuration into force. It returns when the engine has taken it.
func (d *Driver) Reconfigure(ctx context.Context, cfg ike.Config) error {
	cfg.Untraced = d.cfg.untraced()
	_, err := d.command(ctx, ike.Reconfigure{Config: cfg})
	return err
}

// Recheck has every peer judged again, because what Credentials know of peers has changed. It returns when the engine has
// asked for the verdicts.
func (d *Driver) Recheck(ctx context.Context) error {
	_, err := d.command(ctx, ike.Recheck{})
	return err
}

// Rekey rekeys a Child SA now, or the IKE SA when child is 0.
func (d *Driver) Rekey(ctx context.Context, spi ike.IKESPI, child sa.SPI) error {
	_, err := d.command(ctx, ike.Rekey{IKE: spi, Child: child})
	return err
}

// Close deletes a Child SA, or the IKE SA with all its children when child is 0.
func (d *Driver) Close(ctx context.Context, spi ike.IKESPI, child sa.SPI, reason ike.Reason) error {
	_, err := d.command(ctx, ike.Close{IKE: spi, Child: child, Reason: reason})
	return err
}

// Snapshot returns the state of the engine; after the end of Run, the last one.
func (d *Driver) Snapshot(ctx context.Context) (engine.Snapshot, error) {
	v, err := d.command(ctx, nil)
	if errors.Is(err, ErrStopped) {
		return d.last, nil
	}
	return v, err
}

func (d *Driver) command(ctx context.Context, ev ike.Event) (engine.Snapshot, error) {
	c := command{event: ev, reply: make(chan engine.Snapshot, 1)}
	select {
	case d.commands <- c:
	case <-d.done:
		return engine.Snapshot{}, ErrStopped
	case <-ctx.Done():
		return engine.Snapshot{}, ctx.Err()
	}
	select {
	case v := <-c.reply:
		return v, nil
	case <-ctx.Done():
		return engine.Snapshot{}, ctx.Err()
	}
}
