package ikesim

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
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

	rand    *rand.Rand
	seed    uint64
	pending events
	seq     int
	held    []*event // while Hold says so
	hold    func(from, to *Node, exchange uint8, response bool) bool
	// disturbed says that a test has damaged or dropped something by itself: that is loss, whatever Faults says.
	disturbed bool
	sends     map[sendKey][]string
	keys      map[string]string
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

	// expire makes the model of the datapath report the limits of Child SAs.
	expire bool

	world  *World
	rand   *rand.ChaCha8
	epoch  int
	active map[ike.IKESPI]bool
	last   int
	// removed tells why a Child SA is no longer there.
	removed map[sa.SPI]ike.Reason
}

// Installed is one Child SA in the model of a datapath.
type Installed struct {
	Child    sa.Child
	In, Out  bool
	Switched int // order of SwitchOut; 0: never
	Since    time.Time
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
	return &World{
		Now: Start, Faults: f, seed: seed, rand: rand.New(rand.NewPCG(seed, 0x1c0ffee)),
		sends: make(map[sendKey][]string), keys: make(map[string]string),
	}
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
	copy(seed[8:], n.Name)
	binary.BigEndian.PutUint64(seed[24:], uint64(n.epoch))
	n.rand = rand.NewChaCha8(seed)
	n.Engine = engine.New(n.Config, n.rand)
	n.SADB = make(map[sa.SPI]*Installed)
	n.order = nil
	n.removed = make(map[sa.SPI]ike.Reason)
	n.active = make(map[ike.IKESPI]bool)
}

// Crash loses everything that a node knows; it starts anew at once, unless Off is set.
func (n *Node) Crash() {
	n.world.logf("%s crashes", n.Name)
	n.epoch++
	n.boot()
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
		if n.Addr == addr || slices.Contains(n.Others, addr) {
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
	n.execute(n.Engine.Step(n.world.Now, ev))
	if !n.world.unchecked {
		n.world.checkStep(n)
	}
}

func (n *Node) execute(actions []ike.Action) {
	w := n.world
	for _, a := range actions {
		switch a := a.(type) {
		case ike.Send:
			w.send(n, a)
		case ike.Keepalive:
		case ike.Job:
			var d time.Duration
			if w.Faults.JobTime > 0 {
				d = time.Duration(w.rand.Int64N(int64(w.Faults.JobTime)))
			}
			w.schedule(d, &event{to: n, ev: ike.JobDone{ID: a.ID, Result: toy(n.rand, string(n.Config.Local.Data), a.Work)}})
		case ike.InstallIn:
			w.logf("%s install in %s", n.Name, a.Child.In.SPI)
			w.checkInstall(n, a.Child)
			n.SADB[a.Child.In.SPI] = &Installed{Child: a.Child, In: true, Since: w.Now}
			if n.expire {
				w.schedule(a.Child.Soft.Time, &event{to: n, ev: ike.ChildExpiring{SPI: a.Child.In.SPI, Limit: ike.LimitSoft}})
				w.schedule(a.Child.Hard.Time, &event{to: n, ev: ike.ChildExpiring{SPI: a.Child.In.SPI, Limit: ike.LimitHard}})
			}
			n.order = append(n.order, a.Child.In.SPI)
		case ike.InstallOut:
			if i := n.SADB[a.Child.In.SPI]; i != nil {
				i.Out = true
			} else {
				w.broken("%s: InstallOut of %s without InstallIn", n.Name, a.Child.In.SPI)
			}
		case ike.SwitchOut:
			w.logf("%s switch to out %s (in %s)", n.Name, a.Child.Out.SPI, a.Child.In.SPI)
			i := n.SADB[a.Child.In.SPI]
			if i == nil || !i.Out {
				w.broken("%s: SwitchOut of %s, which is not installed", n.Name, a.Child.In.SPI)
				continue
			}
			n.last++
			i.Switched = n.last
			w.checkSwitch(n, i)
		case ike.Remove:
			w.logf("%s remove in %s: %s", n.Name, a.Child.In.SPI, a.Reason)
			if n.SADB[a.Child.In.SPI] == nil {
				w.broken("%s: Remove of %s, which is not installed", n.Name, a.Child.In.SPI)
			}
			delete(n.SADB, a.Child.In.SPI)
			n.removed[a.Child.In.SPI] = a.Reason
		case ike.Move:
		case ike.Fallback, ike.Refuse:
			w.logf("%s %T", n.Name, a)
			n.Results = append(n.Results, a)
		case ike.Up:
			w.logf("%s up %016x %s", n.Name, uint64(a.IKE), a.Peer)
			if n.active[a.IKE] {
				w.broken("%s: second Up of %016x", n.Name, uint64(a.IKE))
			}
			n.active[a.IKE] = true
			n.Ups++
		case ike.Down:
			w.logf("%s down %016x %s %s", n.Name, uint64(a.IKE), a.Reason, a.Detail)
			delete(n.active, a.IKE)
			n.Downs = append(n.Downs, a)
		case ike.Trace:
			w.logf("%s [%04x] %s", n.Name, uint64(a.IKE)>>48, a.Text)
		case ike.KeyLog:
		default:
			panic(fmt.Sprintf("ikesim: unknown action %T", a))
		}
	}
}

// send puts a datagram on its way, with the faults of the network.
func (w *World) send(from *Node, s ike.Send) {
	w.checkSend(from, s)
	to := w.at(s.Remote.Addr())
	if to == nil {
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
			ev: ike.Datagram{Local: s.Remote, Remote: s.Local, Bytes: s.Bytes},
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
			w.broken("the world does not come to rest")
			return
		}
		var node *Node
		next := end.Add(1)
		for _, n := range w.Nodes {
			if n.Off {
				continue
			}
			if at := n.Engine.Deadline(); !at.IsZero() && at.Before(next) {
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
			if e.epoch == e.to.epoch || isDatagram(e.ev) {
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
		before := node.Engine.Deadline()
		node.Do(ike.Timeout{})
		if after := node.Engine.Deadline(); !after.IsZero() && !after.After(before) { // I5
			w.broken("%s: Step at the deadline %s leaves the deadline at %s", node.Name, before.Sub(Start), after.Sub(Start))
			return
		}
	}
}

func isDatagram(ev ike.Event) bool {
	_, ok := ev.(ike.Datagram)
	return ok
}
