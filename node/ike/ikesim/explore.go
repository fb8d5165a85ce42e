package ikesim

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// Small is a small world that is explored completely: two peers with one IKE SA and one Child SA, what each of them does
// once, and how often the network may do wrong. Every order of all that is tried.
type Small struct {
	Name       string
	First      []Op // of node a, in this order
	Second     []Op // of node b
	Loss, Dup  int
	Retransmit int
	// LowFirst gives the lowest nonces to a, else to b.
	LowFirst bool
	// None says that no Child SA may be left.
	None bool
}

// Explored is what an exploration has seen.
type Explored struct {
	States, Ends int
	Broken       string   // what the first violation was; "" when there is none
	Path         []string // that leads to it
}

// move is one thing that happens in a small world.
type move struct {
	kind byte // 'd' deliver, 'l' lose, '2' deliver a copy, 'r' retransmit, 'o' operation
	at   int  // index of the datagram, or of the node
}

// nonceSource is a source of randomness whose nonces are low or high.
type nonceSource struct {
	io.Reader
	low bool
}

func (s nonceSource) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if len(p) == 32 {
		p[0] |= 0x80
		if s.low {
			p[0] &= 0x7f
		}
	}
	return n, err
}

// smallWorld is one path of a small world.
type smallWorld struct {
	*World
	spec    Small
	done    [2]int
	left    [3]int // losses, copies, retransmissions
	history [2]uint64
}

// wrongly prepares a world, for example with nodes that make mistakes.
type wrongly func(w *World)

// operate lets a node do what is next in its list.
func (w *smallWorld) operate(i int) {
	list := w.spec.First
	if i == 1 {
		list = w.spec.Second
	}
	op := list[w.done[i]]
	w.done[i]++
	n := w.Nodes[i]
	w.note(i, []byte{'o', byte(op)})
	w.logf("--- %s %s", n.Name, op)
	switch op {
	case OpRekeyIKE, OpDeleteIKE:
		w.performIKE(n, Step{Op: op})
	default:
		w.performChild(n, Step{Op: op})
	}
}

// note adds what a node has seen to its history: its state is a function of that.
func (w *smallWorld) note(i int, b []byte) {
	var h maphash.Hash
	h.SetSeed(hashSeed)
	var old [8]byte
	binary.BigEndian.PutUint64(old[:], w.history[i])
	_, _ = h.Write(old[:])
	_, _ = h.Write(b)
	w.history[i] = h.Sum64()
}

// settle does the jobs, which take no time in a small world, and leaves the datagrams.
func (w *smallWorld) settle() {
	for {
		i := slices.IndexFunc(w.pending, func(e *event) bool { _, job := e.ev.(ike.JobDone); return job })
		if i < 0 {
			return
		}
		e := heap.Remove(&w.pending, i).(*event)
		e.to.Do(e.ev)
	}
}

// inFlight are the datagrams, in the order of their sending.
func (w *smallWorld) inFlight() []*event {
	list := slices.DeleteFunc(slices.Clone(w.pending), func(e *event) bool { return !isDatagram(e.ev) })
	slices.SortFunc(list, func(a, b *event) int { return a.seq - b.seq })
	return list
}

func (w *smallWorld) index(n *Node) int { return slices.Index(w.Nodes, n) }

func (w *smallWorld) take(m move) {
	switch m.kind {
	case 'o':
		w.operate(m.at)
	case 'r':
		w.left[2]--
		w.disturbed = true // a wait for the peer may be over before the peer has been heard
		n := w.Nodes[m.at]
		n.Skew += max(0, n.Engine.Deadline().Sub(n.now()))
		w.note(m.at, []byte{'r'})
		n.Do(ike.Timeout{})
	default:
		e := w.inFlight()[m.at]
		if m.kind != '2' {
			heap.Remove(&w.pending, slices.Index(w.pending, e))
		}
		switch m.kind {
		case 'l':
			w.left[0]--
			w.disturbed = true
			w.logf("--- lost, for %s", e.to.Name)
			return
		case '2':
			w.left[1]--
		}
		w.note(w.index(e.to), e.ev.(ike.Datagram).Bytes)
		e.to.Do(e.ev)
	}
	w.settle()
}

func (w *smallWorld) moves() []move {
	var list []move
	seen := make(map[uint64]bool)
	for i, e := range w.inFlight() {
		h := maphash.Bytes(hashSeed, e.ev.(ike.Datagram).Bytes)
		if seen[h] {
			continue // a copy of the same: one of them stands for both
		}
		seen[h] = true
		list = append(list, move{'d', i})
		if w.left[0] > 0 {
			list = append(list, move{'l', i})
		}
		if w.left[1] > 0 {
			list = append(list, move{'2', i})
		}
	}
	for i, ops := range [][]Op{w.spec.First, w.spec.Second} {
		if w.done[i] < len(ops) {
			list = append(list, move{'o', i})
		}
		if w.left[2] > 0 {
			list = append(list, move{'r', i})
		}
	}
	return list
}

// key is the state: what both nodes have seen, what is on its way, and what may still happen.
func (w *smallWorld) key() uint64 {
	var flight uint64
	for _, e := range w.inFlight() {
		flight += maphash.Bytes(hashSeed, e.ev.(ike.Datagram).Bytes) // a set with repetitions: order does not count
	}
	var h maphash.Hash
	h.SetSeed(hashSeed)
	for _, v := range []uint64{
		w.history[0], w.history[1], flight, uint64(w.done[0]), uint64(w.done[1]), uint64(w.left[0]), uint64(w.left[1]), uint64(w.left[2]),
	} {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], v)
		_, _ = h.Write(b[:])
	}
	return h.Sum64()
}

// Explore tries every order of what can happen in a small world, until limit states. States are reached by replay from the
// beginning: engines need not be copied. arm, unless nil, prepares each world.
func Explore(spec Small, base func() *World, limit int, arm wrongly) Explored {
	var x Explored
	replay := func(path []move) *smallWorld {
		w := &smallWorld{World: base(), spec: spec, left: [3]int{spec.Loss, spec.Dup, spec.Retransmit}}
		if arm != nil {
			arm(w.World)
		}
		for _, m := range path {
			w.take(m)
		}
		return w
	}
	seen := make(map[uint64]bool)
	stack := [][]move{nil}
	for len(stack) > 0 && x.States < limit {
		path := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		w := replay(path)
		if k := w.key(); seen[k] {
			continue
		} else {
			seen[k] = true
		}
		x.States++
		moves := w.moves()
		ended := len(w.inFlight()) == 0 && w.done[0] == len(spec.First) && w.done[1] == len(spec.Second)
		if len(w.Broken) == 0 && ended {
			x.Ends++
			w.finish()
		}
		if len(w.Broken) > 0 {
			x.Broken = w.Broken[0]
			for _, m := range path {
				x.Path = append(x.Path, fmt.Sprintf("%c%d", m.kind, m.at))
			}
			return x
		}
		for _, m := range moves {
			stack = append(stack, append(slices.Clone(path), m))
		}
	}
	return x
}

// finish lets a world come to rest with a network that does nothing wrong, and checks what is left.
func (w *smallWorld) finish() {
	w.disturbed = true
	w.Run(4 * time.Minute)
	if why := w.unrest(); why != "" {
		w.broken("I5 no rest: %s", why)
	}
	w.CheckRest()
	for _, n := range w.Nodes {
		if w.spec.None && len(n.SADB) > 0 {
			w.broken("%s has %d Child SAs left, want none", n.Name, len(n.SADB))
		}
	}
}
