package transport

import (
	"net/netip"
	"sync"
)

// Lane is a queue of IKE messages: a flood in one takes no room in another, and none waits for ever.
type Lane uint8

// The lanes, the most urgent first.
const (
	LaneFirst Lane = iota
	LaneSecond
	LaneThird
	lanes
)

// LaneNone is for messages that nobody reads.
const LaneNone = lanes

// turns are how many messages of a lane are read before one of a later lane gets its turn.
var turns = [lanes]int{8, 4, 1}

// Screen looks at an IKE message, without marker, as it arrives: it names the lane and may append to room an answer, which
// is sent back at once. It is called by the goroutines that read the sockets, the packet threads among them, so it must
// be quick, and keep neither octets nor room.
type Screen func(local, remote netip.AddrPort, octets, room []byte) (lane Lane, answer []byte)

// SetScreen makes f look at every message from now on. Without a screen all messages are in one lane.
func (s *Sockets) SetScreen(f Screen) { s.screen.Store(&f) }

// queue holds the IKE messages that wait to be read.
type queue struct {
	depth int           // of each lane
	ready chan struct{} // has a value when there may be messages
	mu    struct {
		sync.Mutex
		lanes [lanes]ring
		left  [lanes]int // of the turns of each lane
	}
}

// ring is a queue that grows to what it had to hold.
type ring struct {
	slots     []message
	first, in int
}

func newQueue(depth int) *queue {
	q := &queue{depth: depth, ready: make(chan struct{}, 1)}
	q.mu.left = turns
	return q
}

// put adds a message, whose octets it copies; false when the lane is full.
func (q *queue) put(lane Lane, octets []byte, local, remote netip.AddrPort) bool {
	q.mu.Lock()
	r := &q.mu.lanes[lane]
	if r.in == q.depth {
		q.mu.Unlock()
		return false
	}
	if r.in == len(r.slots) {
		r.grow(min(max(2*r.in, 16), q.depth))
	}
	r.slots[(r.first+r.in)%len(r.slots)] = message{octets: append([]byte(nil), octets...), local: local, remote: remote}
	r.in++
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
	return true
}

// waiting is how many messages there are.
func (q *queue) waiting() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for i := range q.mu.lanes {
		n += q.mu.lanes[i].in
	}
	return uint64(n)
}

func (r *ring) grow(n int) {
	slots := make([]message, n)
	copy(slots[copy(slots, r.slots[r.first:]):], r.slots[:r.first])
	r.slots, r.first = slots, 0
}

// take removes the next message.
func (q *queue) take() (message, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for range 2 {
		for i := range q.mu.lanes {
			if r := &q.mu.lanes[i]; r.in > 0 && q.mu.left[i] > 0 {
				q.mu.left[i]--
				m := r.slots[r.first]
				r.slots[r.first] = message{}
				r.first, r.in = (r.first+1)%len(r.slots), r.in-1
				return m, true
			}
		}
		q.mu.left = turns // every lane that has messages has had its turns
	}
	return message{}, false
}
