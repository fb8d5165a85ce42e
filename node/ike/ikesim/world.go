package ikesim

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Start is when every world begins.
var Start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// Faults are what the network and the machines do wrong. Shares are between 0 and 1.
type Faults struct {
	Loss, Duplicate float64
	Delay           time.Duration // one way, the least
	Jitter          time.Duration // added at random: it reorders
	JobTime         time.Duration // longest latency of a job
}

// World is everything. One test drives it, without goroutines.
type World struct {
	Now    time.Time
	Faults Faults
	Nodes  []*Node
	// Trace records what happened, when Tracing is set.
	Tracing bool
	Trace   []string
	Broken  []string // violated invariants

	// unchecked leaves the invariants out, which take long with thousands of SAs.
	unchecked bool
	// addresses finds nodes that have thousands of addresses.
	addresses map[netip.Addr]*Node
	// sniff sees everything that is sent.
	sniff func(ike.Send)

	rand    *rand.Rand
	seed    uint64
	pending events
	seq     int
	held    []*event // while Hold says so
	hold    func(from, to *Node, exchange uint8, response bool) bool
	// translate changes the addresses of a datagram on its way, as a NAT does, or drops it by returning false.
	translate func(from, to *Node, d *ike.Datagram) bool
	// disturbed says that a test has damaged or dropped something by itself: that is loss, whatever Faults says.
	disturbed bool
	plan      *Plan // nil in the worlds of other tests
	observed
}

// Node is a machine with an engine and a model of its datapath.
type Node struct {
	Name    string
	Addr    netip.Addr
	Others  []netip.Addr // further addresses
	Engine  *engine.Engine
	Config  ike.Config
	SADB    map[sa.SPI]*Installed
	order   []sa.SPI
	Results []ike.Action // Fallback and Refuse, in order
	Ups     int
	Downs   []ike.Down
	Off     bool // answers nothing

	// Denied are peers that this node does not believe, Expiry when the certificates of peers expire, both by name.
	Denied map[string]bool
	Expiry map[string]time.Time
	// Groups are those that peers are members of, by the names of the peers.
	Groups map[string][]string
	Cut    bool          // nothing comes or goes, but the node works on
	Skew   time.Duration // of its clock, against the world
	nat    *natBox       // nil: none

	// expire makes the model of the datapath report the limits of Child SAs.
	expire bool
	// failing is how many of the next Child SAs the datapath refuses.
	failing int
	// Wrong are the mistakes that this node makes; none in a build without the tag ikebug.
	Wrong []impair.Fault
	// work replaces toy jobs, where a test wants others.
	work func(ike.Work) ike.Result

	keyLog []string // what it has logged, where its configuration asks for that
	world  *World
	plan   *NodePlan // nil in the worlds of other tests
	source io.Reader
	epoch  int
	last   int
	latest time.Time // that the engine has seen
	timer  bool      // what happens now may be for the time alone
	policy policy
	nodeObserved
}

// Installed is one Child SA in the model of a datapath.
type Installed struct {
	Child    sa.Child
	In, Out  bool
	Switched int // order of SwitchOut; 0: never
	Since    time.Time
	Failed   bool // refused: InstallFailed is on its way
	Ending   bool // its end was asked for, or may follow from a new configuration
}

// event is something that will happen.
type event struct {
	at       time.Time
	seq      int
	to       *Node
	epoch    int
	ev       ike.Event
	from     *Node
	exchange uint8
	response bool
}

type events []*event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(*event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// New returns an empty world.
func New(seed uint64, f Faults) *World {
	return &World{Now: Start, Faults: f, seed: seed, rand: rand.New(rand.NewPCG(seed, 0x1c0ffee)), observed: newObserved()}
}

// Add puts a node into the world.
func (w *World) Add(name string, addr netip.Addr, cfg ike.Config) *Node {
	n := &Node{Name: name, Addr: addr, Config: cfg, world: w}
	n.boot()
	w.Nodes = append(w.Nodes, n)
	return n
}

func (n *Node) boot() {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], n.world.seed)
	copy(seed[8:24], n.Name)
	binary.BigEndian.PutUint64(seed[24:], uint64(n.epoch))
	n.bootWith(rand.NewChaCha8(seed))
}

// bootWith starts the node with a source of randomness of its own.
func (n *Node) bootWith(source io.Reader) {
	n.source = source
	n.Engine = engine.New(n.Config, n.source)
	n.SADB = make(map[sa.SPI]*Installed)
	n.order, n.latest = nil, time.Time{}
	n.nodeObserved = newNodeObserved()
}

// Crash loses everything that a node knows; it starts anew at once, unless Off is set.
func (n *Node) Crash() {
	n.world.logf("%s crashes", n.Name)
	n.epoch++
	n.boot()
}

// now is the time on the node's own clock.
func (n *Node) now() time.Time { return n.world.Now.Add(n.Skew) }

// deadline is that of the engine, in the world's time; zero means never.
func (n *Node) deadline() time.Time {
	d := n.Engine.Deadline()
	if d.IsZero() {
		return d
	}
	return d.Add(-n.Skew)
}

// live are the inbound SPIs of the Child SAs that are there, in the order of their making.
func (n *Node) live() []sa.SPI {
	return slices.DeleteFunc(slices.Clone(n.order), func(s sa.SPI) bool { return n.SADB[s] == nil })
}

func (w *World) logf(format string, args ...any) {
	if w.Tracing {
		w.Trace = append(w.Trace, fmt.Sprintf("%10.3f ", w.Now.Sub(Start).Seconds())+fmt.Sprintf(format, args...))
	}
}

func (w *World) at(addr netip.Addr) *Node {
	if n, ok := w.addresses[addr]; ok {
		return n
	}
	for _, n := range w.Nodes {
		if n.Addr == addr || n.nat != nil && n.nat.outside == addr || slices.Contains(n.Others, addr) {
			return n
		}
	}
	return nil
}

func (w *World) schedule(d time.Duration, e *event) {
	w.seq++
	e.at, e.seq, e.epoch = w.Now.Add(d), w.seq, e.to.epoch
	heap.Push(&w.pending, e)
}

// Do gives a node an event now.
func (n *Node) Do(ev ike.Event) {
	if n.Off {
		return
	}
	w := n.world
	if p, ok := ev.(packet); ok {
		n.arrives(p)
		return
	}
	switch e := ev.(type) {
	case ike.Reconfigure:
		n.Config = e.Config
		n.policy = policy{}
		for _, i := range n.SADB {
			i.Ending = true
		}
	case ike.Close:
		n.ending(e.Child)
	case ike.ChildExpiring:
		if e.Limit != ike.LimitSoft {
			n.ending(e.SPI)
		}
	}
	switch e := ev.(type) {
	case ike.Datagram:
		if !w.unchecked {
			w.observeArrival(n, e)
		}
	case ike.UnknownESP:
		n.exposure(e.Remote.Addr()).in += e.Octets
	case ike.PeerMoved:
		n.exposure(e.Remote.Addr()).in += authenticESP
	}
	_, n.timer = ev.(ike.Timeout)
	if d := n.Engine.Deadline(); !d.IsZero() && !d.After(n.now()) {
		n.timer = true // something is due, whatever the event
	}
	if now := n.now(); now.After(n.latest) {
		n.latest = now
	}
	if _, ok := ev.(ike.Reconfigure); ok {
		n.reconfigured = n.latest
	}
	n.arm()
	actions := n.Engine.Step(n.now(), ev)
	n.disarm()
	n.replaced = n.replaced[:0]
	n.execute(actions)
	if !w.unchecked {
		w.checkStep(n)
	}
}

func (n *Node) ending(spi sa.SPI) {
	if i := n.SADB[spi]; i != nil {
		i.Ending = true
	}
}

func (n *Node) execute(actions []ike.Action) {
	w := n.world
	for _, a := range actions {
		switch a := a.(type) {
		case ike.Send:
			w.send(n, a)
		case ike.Keepalive:
			if n.nat != nil {
				n.nat.outsideOf(a.Local)
			}
		case ike.Job:
			var d time.Duration
			if w.Faults.JobTime > 0 {
				d = time.Duration(w.rand.Int64N(int64(w.Faults.JobTime)))
			}
			work := n.work
			if work == nil {
				work = n.toy
			}
			w.schedule(d, &event{to: n, ev: ike.JobDone{ID: a.ID, Result: work(a.Work)}})
		case ike.InstallIn:
			w.logf("%s install in %s", n.Name, a.Child.In.SPI)
			w.checkInstall(n, &a.Child)
			i := &Installed{Child: a.Child, In: true, Since: w.Now}
			n.SADB[a.Child.In.SPI] = i
			if n.failing > 0 {
				n.failing--
				i.Failed = true
				w.schedule(0, &event{to: n, ev: ike.InstallFailed{SPI: a.Child.In.SPI}})
			}
			if n.expire {
				w.schedule(a.Child.Soft.Time, &event{to: n, ev: ike.ChildExpiring{SPI: a.Child.In.SPI, Limit: ike.LimitSoft}})
				w.schedule(a.Child.Hard.Time, &event{to: n, ev: ike.ChildExpiring{SPI: a.Child.In.SPI, Limit: ike.LimitHard}})
			}
			n.order = append(n.order, a.Child.In.SPI)
		case ike.InstallOut:
			if i := n.SADB[a.Child.In.SPI]; i != nil {
				i.Out = true
			} else {
				w.broken("I1 %s: InstallOut of %s without InstallIn", n.Name, a.Child.In.SPI)
			}
		case ike.SwitchOut:
			w.logf("%s switch to out %s (in %s)", n.Name, a.Child.Out.SPI, a.Child.In.SPI)
			i := n.SADB[a.Child.In.SPI]
			if i == nil || !i.Out {
				w.broken("I1 %s: SwitchOut of %s, which is not installed", n.Name, a.Child.In.SPI)
				continue
			}
			first := i.Switched == 0
			n.last++
			i.Switched = n.last
			if first || w.quiet() {
				w.checkSwitch(n, i)
			}
		case ike.Remove:
			w.logf("%s remove in %s: %s", n.Name, a.Child.In.SPI, a.Reason)
			if n.SADB[a.Child.In.SPI] == nil {
				w.broken("I1 %s: Remove of %s, which is not installed", n.Name, a.Child.In.SPI)
			}
			delete(n.SADB, a.Child.In.SPI)
			if len(n.order) > 16+4*len(n.SADB) {
				n.order = n.live()
			}
			n.removed[a.Child.In.SPI] = a.Reason
			if a.Reason == ike.ReasonRekeyed {
				n.replaced = append(n.replaced, a.Child)
			}
			w.mix(a.Child.In.SPI)
		case ike.Move:
			if i := n.SADB[a.SPI]; i != nil {
				w.logf("%s move in %s to %s - %s", n.Name, a.SPI, a.Local, a.Remote)
				i.Child.Local, i.Child.Remote, i.Child.Encap = a.Local, a.Remote, a.Encap
			} else {
				w.broken("I1 %s: Move of %s, which is not installed", n.Name, a.SPI)
			}
		case ike.Fallback:
			w.logf("%s %T", n.Name, a)
			w.checkFallback(n, a)
			n.Results = append(n.Results, a)
		case ike.Refuse:
			w.logf("%s %T %s %s", n.Name, a, a.Reason, a.Detail)
			n.Results = append(n.Results, a)
		case ike.Up:
			w.logf("%s up %016x %s", n.Name, uint64(a.IKE), a.Peer)
			w.checkUp(n, a)
			n.Ups++
		case ike.Down:
			w.logf("%s down %016x %s %s", n.Name, uint64(a.IKE), a.Reason, a.Detail)
			w.checkDown(n, a)
			n.Downs = append(n.Downs, a)
		case *ike.Trace:
			w.logf("%s [%04x] %s", n.Name, uint64(a.IKE)>>48, a)
		case ike.KeyLog:
			n.keyLog = append(n.keyLog, string(a.Line.Expose()))
		default:
			panic(fmt.Sprintf("ikesim: unknown action %T", a))
		}
	}
}

// send puts a datagram on its way, with the faults of the network.
func (w *World) send(from *Node, s ike.Send) {
	if w.sniff != nil {
		w.sniff(s)
	}
	w.observeSend(from, s)
	if from.plan != nil && !from.owns(s.Local.Addr()) { // no kernel sends from there
		return
	}
	source := s.Local
	if from.nat != nil {
		source = from.nat.outsideOf(source)
	}
	to, target := w.route(s.Remote)
	if to == nil || from.Cut {
		return
	}
	datagram := ike.Datagram{Local: target, Remote: source, Bytes: s.Bytes}
	if w.translate != nil && !w.translate(from, to, &datagram) {
		return
	}
	copies := 1
	if w.rand.Float64() < w.Faults.Loss {
		w.logf("lost: datagram of %s", from.Name)
		copies = 0
	}
	if w.rand.Float64() < w.Faults.Duplicate {
		copies++
	}
	exchange, response := s.Bytes[18], s.Bytes[19]&0x20 != 0
	for range copies {
		d := w.Faults.Delay
		if w.Faults.Jitter > 0 {
			d += time.Duration(w.rand.Int64N(int64(w.Faults.Jitter)))
		}
		e := &event{
			to: to, from: from, exchange: exchange, response: response,
			ev: datagram,
		}
		if w.hold != nil && w.hold(from, to, exchange, response) {
			w.logf("held: datagram of %s", from.Name)
			e.epoch = to.epoch
			w.held = append(w.held, e)
			continue
		}
		w.schedule(d, e)
	}
}

// Hold keeps the datagrams for which hold is true until Release.
func (w *World) Hold(hold func(from, to *Node, exchange uint8, response bool) bool) { w.hold = hold }

// Release delivers what is held, in order, and holds no longer.
func (w *World) Release() {
	held := w.held
	w.held, w.hold = nil, nil
	for _, e := range held {
		w.schedule(0, e)
	}
}

// DropHeld forgets what is held, and holds no longer.
func (w *World) DropHeld() { w.held, w.hold = nil, nil }

// Run lets d pass.
func (w *World) Run(d time.Duration) {
	end := w.Now.Add(d)
	for steps := 0; ; steps++ {
		if steps > 2_000_000 {
			w.broken("I5 the world does not come to rest")
			return
		}
		var node *Node
		next := end.Add(1)
		for _, n := range w.Nodes {
			if n.Off {
				continue
			}
			if at := n.deadline(); !at.IsZero() && at.Before(next) {
				node, next = n, at
			}
		}
		if len(w.pending) > 0 && !w.pending[0].at.After(next) {
			e := heap.Pop(&w.pending).(*event)
			if e.at.After(end) {
				heap.Push(&w.pending, e)
				w.Now = end
				return
			}
			if e.at.After(w.Now) {
				w.Now = e.at
			}
			if e.arrives() {
				e.to.Do(e.ev)
			}
			continue
		}
		if node == nil || next.After(end) {
			w.Now = end
			return
		}
		if next.After(w.Now) {
			w.Now = next
		}
		if !w.tick(node) {
			return
		}
	}
}

func isDatagram(ev ike.Event) bool {
	_, ok := ev.(ike.Datagram)
	return ok
}
