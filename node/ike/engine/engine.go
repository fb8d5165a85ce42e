package engine

import (
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Engine is all IKE SAs of a machine. It is not safe for concurrent use: one goroutine, the driver's, calls it.
type Engine struct {
	cfg  *ike.Config
	seed io.Reader
	now  time.Time
	out  []ike.Action

	rules      map[string]int // index in cfg.Rules by ID
	table      table
	running    *entry // whose code runs: a panic is its fault
	jobs       map[ike.JobID]wire.SPI
	lastJob    ike.JobID
	flows      flows
	backoff    map[flowKey]time.Time
	secured    map[securedKey]struct{}
	failures   []Failure
	cookies    cookies
	front      *Front
	replies    replies // to garbage
	refusals   replies // to first messages that make no SA
	espReplies replies // to ESP of unknown SPIs
	retiring   agenda[*retirement]
	retired    uint64       // retirements so far
	closing    []*entry     // closed ones that are kept to repeat their last answer, the oldest first
	addresses  []netip.Addr // own ones
	stopping   bool
	guarded    time.Time // when cookies were wanted last
	toldGuard  bool      // that they are wanted
	counters   map[string]uint64
}

// New returns an engine without SAs. seed supplies SPIs, nonces, initialisation vectors and jitter; it must not fail.
func New(cfg ike.Config, seed io.Reader) *Engine {
	e := &Engine{
		seed:     seed,
		table:    newTable(),
		jobs:     make(map[ike.JobID]wire.SPI),
		flows:    newFlows(),
		backoff:  make(map[flowKey]time.Time),
		secured:  make(map[securedKey]struct{}),
		counters: make(map[string]uint64),
	}
	e.front = newFront()
	e.table.front = e.front
	e.configure(&cfg)
	return e
}

// configure puts a configuration into force.
func (e *Engine) configure(cfg *ike.Config) {
	e.cfg, e.rules = cfg, make(map[string]int, len(cfg.Rules))
	for i, r := range cfg.Rules {
		if _, twice := e.rules[r.ID]; !twice {
			e.rules[r.ID] = i
		}
	}
}

// rule finds a rule of the configuration in force.
func (e *Engine) rule(id string) (ike.Rule, bool) {
	i, ok := e.rules[id]
	if !ok {
		return ike.Rule{}, false
	}
	return e.cfg.Rules[i], true
}

// Step handles one event. The slice is valid until the next Step; what it holds belongs to the caller.
func (e *Engine) Step(now time.Time, ev ike.Event) []ike.Action {
	e.begin(now)
	if !impair.On(impair.ClockBack) {
		now = e.now
	}
	switch ev := ev.(type) {
	case ike.Datagram:
		e.datagram(ev)
	case ike.Timeout:
	case ike.JobDone:
		if spi, ok := e.jobs[ev.ID]; ok {
			delete(e.jobs, ev.ID)
			e.with(spi, func(s *ikev2.SA) { s.JobDone(now, ev.ID, ev.Result) })
		}
	case ike.Acquire:
		e.count("acquire")
		e.acquire(ev.Flow)
	case ike.ChildExpiring:
		e.withChild(ev.SPI, func(s *ikev2.SA) { s.Expire(now, ev) })
	case ike.PeerMoved:
		e.withChild(ev.SPI, func(s *ikev2.SA) { s.PeerMoved(now, ev.SPI, ev.Remote) })
	case ike.UnknownESP:
		e.unknownESP(ev)
	case ike.AddressesChanged:
		e.addressesChanged(ev)
	case ike.Heard:
		e.withChild(ev.SPI, func(s *ikev2.SA) { s.Heard(e.now) })
	case ike.Reconfigure:
		e.reconfigure(ev.Config)
	case ike.Recheck:
		e.recheck()
	case ike.Rekey:
		e.rekey(ev)
	case ike.Close:
		e.close(ev)
	case ike.InstallFailed:
		if ev.Outbound {
			e.count("key_addition_failed")
		} else {
			e.count("key_update_failed")
		}
		e.withChild(ev.SPI, func(s *ikev2.SA) { s.InstallFailed(now, ev.SPI) })
	case ike.Shutdown:
		e.shutdown(ev.Reason)
	}
	e.finish()
	e.instruct()
	return e.out
}

func (e *Engine) begin(now time.Time) {
	if now.Before(e.now) { // time never goes back for the machine
		now = e.now
	}
	e.now = now
	clear(e.out)
	e.out = e.out[:0]
}

// finish does what is due, so that Deadline always lies ahead.
func (e *Engine) finish() {
	for range 64 { // an SA may make its own next deadline due at once, but not for ever
		again := false
		var room [8]*appointment[*entry] // few of many: this runs with every step
		for _, a := range e.table.deadline.take(e.now, room[:0]) {
			if x := a.of; !x.gone && !a.at.IsZero() && !e.now.Before(a.at) {
				e.run(x, func(s *ikev2.SA) { s.Tick(e.now) })
				again = true
			}
		}
		again = e.tickFlows() || again
		again = e.retire() || again
		if !again {
			break
		}
	}
}

// Deadline is when Step must be called with Timeout; zero means never.
func (e *Engine) Deadline() time.Time {
	var d time.Time
	for _, t := range [...]time.Time{e.table.deadline.first(), e.flows.due.first(), e.retiring.first()} {
		if !t.IsZero() && (d.IsZero() || t.Before(d)) {
			d = t
		}
	}
	if !d.IsZero() && !d.After(e.now) {
		d = e.now.Add(time.Millisecond)
	}
	return d
}

// Idle reports whether no SA is left: after Shutdown, that the engine is done.
func (e *Engine) Idle() bool { return e.table.live == 0 }

// Abandon ends the SA whose code panicked in the last Step. Its actions come after those that the Step had collected.
func (e *Engine) Abandon(detail string) []ike.Action {
	x := e.running
	e.running = nil
	if x == nil {
		return e.out
	}
	for _, c := range x.sa.Children() {
		e.Emit(ike.Remove{Child: c, Reason: ike.ReasonInternal})
	}
	_, remote := x.sa.Addresses()
	e.Emit(ike.Down{
		IKE: ike.IKESPI(x.sa.SPI()), Peer: x.sa.Peer(), Remote: remote,
		Reason: ike.ReasonInternal, Fault: ike.FaultLocal, Detail: detail,
	})
	e.failed(x, Failure{Remote: remote.Addr(), Peer: x.sa.Peer(), Reason: ike.ReasonInternal, Fault: ike.FaultLocal, Detail: detail})
	if x.sa.EstablishedAt().IsZero() {
		e.countMainFailure(ike.ReasonInternal)
	}
	e.table.forget(x)
	e.orphans(x.sa.SPI(), ike.ReasonInternal, ike.FaultLocal, detail, true)
	e.repair()
	return e.out
}

// repair files everything anew after a panic: it may have come while others that were due had been taken from their
// agenda, or while what had changed was not filed yet.
func (e *Engine) repair() {
	for _, x := range e.table.order.all() {
		e.table.file(x)
		e.table.deadline.set(&x.due, x.sa.Deadline())
	}
	for _, w := range e.flows.order.all() {
		e.flows.schedule(w)
	}
}

// run calls into an SA, then takes its notes.
func (e *Engine) run(x *entry, call func(*ikev2.SA)) {
	e.running = x
	call(x.sa)
	e.running = nil
	e.after(x)
}

func (e *Engine) with(spi wire.SPI, call func(*ikev2.SA)) {
	if x, ok := e.table.bySPI[spi]; ok {
		e.run(x, call)
	}
}

// withChild calls into the SA that holds the Child SA with this inbound SPI.
func (e *Engine) withChild(in sa.SPI, call func(*ikev2.SA)) {
	if x, ok := e.table.byChild[in]; ok {
		e.run(x, call)
	}
}

// limitClosed bounds the SAs that are closed and stay only to repeat their last answer: a peer that fails to authenticate
// again and again could else fill the table.
const limitClosed = 256

func (e *Engine) linger(x *entry) {
	e.closing = slices.DeleteFunc(append(e.closing, x), func(o *entry) bool { return o.gone })
	for len(e.closing) > limitClosed {
		oldest := e.closing[0]
		e.closing = e.closing[1:]
		e.table.forget(oldest)
	}
}

// after handles what an SA has told, and finds its next deadline.
func (e *Engine) after(x *entry) {
	for _, n := range x.sa.TakeNotes() {
		switch n := n.(type) {
		case ikev2.Answered:
			e.answered(x)
		case ikev2.Established:
			e.count("ike_established")
			e.established(x, n.InitialContact)
		case ikev2.ReauthDue:
			e.reauthenticate(x)
		case ikev2.PeerForgot:
			e.peerForgot(x)
		case ikev2.ChildUp:
			e.count("child_established")
			e.childUp(x, n.Child)
			e.revived(x)
		case ikev2.FlowServed:
			if w, ok := e.flows.byKey[keyOf(n.Flow)]; ok {
				e.flows.remove(w)
			}
		case ikev2.ChildRefused:
			_, remote := x.sa.Addresses()
			e.failed(x, Failure{Remote: remote.Addr(), Peer: x.sa.Peer(), Child: true, Reason: n.Reason, Fault: n.Reason.Fault(), Detail: n.Detail})
		case ikev2.RefusalSeen:
			_, remote := x.sa.Addresses()
			e.remember(Failure{Remote: remote.Addr(), Reason: n.Reason, Fault: n.Reason.Fault(), Detail: n.Detail + " (not authenticated: trying on)"})
		case ikev2.Dropped:
			e.countDrop(n.Reason)
		case ikev2.FlowFailed:
			e.flowFailed(n)
			e.revived(x)
		case ikev2.Successor:
			e.count("ike_rekeyed")
			e.after(e.table.add(n.SA, false))
		case ikev2.Closed:
			e.closed(x, n)
			e.revived(x)
		}
	}
	if next := x.sa.Successor(); next != nil {
		e.follow(x.sa.SPI(), next.SPI())
		if y, ok := e.table.bySPI[next.SPI()]; ok {
			e.table.handOver(x, y)
			y.retiring, x.retiring = y.retiring || x.retiring, false
			y.answered = true
		}
	}
	for _, o := range x.sa.TakeTouched() { // a rekey changes both the old and the new SA
		if y, ok := e.table.bySPI[o.SPI()]; ok && y != x {
			e.after(y)
		}
	}
	e.tellState(x)
	if x.gone {
		return
	}
	deadline := x.sa.Deadline()
	if x.sa.State() == ikev2.StateClosed && !e.now.Before(deadline) {
		e.table.forget(x)
		return
	}
	e.table.file(x)
	e.table.deadline.set(&x.due, deadline)
}

func (e *Engine) count(name string) { e.counters[name]++ }

// The methods of ikev2.Host.

var _ ikev2.Host = (*Engine)(nil)

// Random returns n octets of the seed.
func (e *Engine) Random(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(e.seed, b); err != nil {
		panic("engine: the seed has ended: " + err.Error()) // keys made of anything else would be worse
	}
	return b
}

// ChildSPI returns an inbound SPI of a lane that is not in use; those below 256 are reserved (RFC 4303 2.1).
func (e *Engine) ChildSPI(lane sa.Lane) sa.SPI {
	e.count("get_spi")
	for {
		b := e.Random(4)
		spi := sa.SPI(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]))
		if lane != sa.AnyLane {
			spi = spi&^sa.SPI(sa.Lanes-1) | sa.SPI(lane)
		}
		if _, used := e.table.byChild[spi]; spi >= 256 && !used {
			return spi
		}
	}
}

// Do starts a job.
func (e *Engine) Do(own wire.SPI, work ike.Work) ike.JobID {
	e.lastJob++
	e.jobs[e.lastJob] = own
	e.out = append(e.out, ike.Job{ID: e.lastJob, Work: work})
	return e.lastJob
}

// Emit appends an action.
func (e *Engine) Emit(a ike.Action) {
	switch a := a.(type) {
	case *ike.Trace:
		if e.cfg.Untraced {
			return
		}
	case ike.InstallIn:
		e.count("key_updates")
		if a.Child.ReplacesIn != 0 {
			e.count("child_rekeyed")
		}
		e.table.installed(e.running, a.Child.In.SPI)
	case ike.InstallOut:
		e.count("key_additions")
	case ike.Refuse:
		e.count("acquire_failed")
	case ike.Remove:
		e.count("key_deletions")
		e.table.removed(a.Child.In.SPI)
	}
	e.out = append(e.out, a)
}

// FirstContact reports whether there is no other SA with the peer.
func (e *Engine) FirstContact(own wire.SPI, remote netip.Addr) bool {
	for _, x := range e.table.byPeer[remote] {
		if x.sa.SPI() != own && x.sa.State() != ikev2.StateClosed {
			return false
		}
	}
	return true
}

func (e *Engine) rekey(ev ike.Rekey) {
	if ev.Child != 0 {
		e.withChild(ev.Child, func(s *ikev2.SA) { s.RekeyChild(e.now, ev.Child) })
		return
	}
	e.with(wire.SPI(ev.IKE), func(s *ikev2.SA) { s.Rekey(e.now) })
}

func (e *Engine) close(ev ike.Close) {
	reason := ev.Reason
	if reason == ike.ReasonNone {
		reason = ike.ReasonDeleted
	}
	if ev.Child != 0 {
		e.withChild(ev.Child, func(s *ikev2.SA) { s.CloseChild(e.now, ev.Child, reason) })
		return
	}
	e.with(wire.SPI(ev.IKE), func(s *ikev2.SA) { s.Close(e.now, reason) })
}

func (e *Engine) reconfigure(cfg ike.Config) {
	level, groups := e.cfg.Revocation, ikev2.WantedGroups(e.cfg)
	e.configure(&cfg)
	e.reconfigureFlows()
	for _, x := range e.table.order.all() {
		e.run(x, func(s *ikev2.SA) { s.Reconfigure(e.now, e.cfg) })
	}
	if level != e.cfg.Revocation || !slices.Equal(groups, ikev2.WantedGroups(e.cfg)) {
		e.recheck()
	}
}

// shutdown deletes every SA; nothing new is started any more.
func (e *Engine) shutdown(reason ike.Reason) {
	if reason == ike.ReasonNone {
		reason = ike.ReasonShutdown
	}
	e.stopping = true
	for _, w := range e.flows.order.all() {
		e.flows.remove(w)
	}
	for _, x := range e.table.order.all() {
		e.run(x, func(s *ikev2.SA) { s.Close(e.now, reason) })
	}
}
