package userspace

import (
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/datapath/waiting"
	"github.com/bailiwick-net/bailiwick/node/esp"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/transport"
	"github.com/bailiwick-net/bailiwick/node/tun"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Bounds of one round of the packet thread.
const (
	readsPerRound    = 64                     // packets or super-packets of the TUN
	octetsPerRound   = 8 << 16                // of them
	streamReads      = 2                      // that make a stream of packets
	receivesPerRound = 2                      // batches of datagrams of each socket
	spin             = 100 * time.Microsecond // without packets, in which the thread only yields the processor before it sleeps
	bulk             = 32 << 10               // octets in a round that are a transfer, for which spinning takes the processor from its ends
	bulkFor          = time.Millisecond       // after such a round
	tick             = 250 * time.Millisecond
	lostPause        = 5 * time.Millisecond
	cacheSize        = 1 << 16
)

// queue is a flow with what waits for it.
type queue = waiting.Flow[[]byte]

// loop is a packet thread: it alone reads its queue of the TUN and of the ESP sockets, and it alone touches the state
// below, but for the world, and for who has the world alone. It runs each batch to completion, in both directions, on one locked thread, without channels
// in the path of a packet.
type loop struct {
	*world
	index int          // of the thread and its queues; the first one keeps house
	depth int          // calls of alone without share
	held  *association // whose inbound half this thread has

	logger   hclog.Logger
	tun      *tun.Queue
	sockets  *transport.Queue
	poller   atomic.Pointer[transport.Poller] // changed by the thread, woken by all
	requests chan request
	stopped  chan struct{} // closed when the thread has ended
	clear    *rawSockets
	whole    *rawSockets // for ESP

	now      time.Time // of the current round
	bulkAt   time.Time // the last round that moved much
	stopping bool
	lost     bool // somebody deleted the TUN
	nextTick time.Time
	warned   time.Time // when warn logged last
	unknown  time.Time // when an unknown SPI was reported last

	cache   map[spd.Packet]*association
	checked map[checkedKey]bool // inbound packets that were found right

	counters   [counters]uint64
	last       last
	buffer     []byte
	outbox     outbox
	stream     bool // the last round read more than one packet
	spill      esp.Spill
	reply      []byte
	fragmentID uint32 // of the packet that was cut last; each thread has others
	splitter   tun.Splitter
	writer     *tun.Writer
	batch      *transport.Batch
}

// last is the decision about the packet before, in each direction: most packets have the same 5-tuple.
type last struct {
	outbound spd.Packet
	out      *association // nil when there is none
	inbound  spd.Packet
	in       *association // nil when there is none
}

// checkedKey names an inbound 5-tuple of an SA.
type checkedKey struct {
	spi    sa.SPI
	packet spd.Packet
}

// run is the thread. It ends after a stop command.
func (l *loop) run() {
	runtime.LockOSThread()
	defer close(l.stopped)
	wait, busy := time.Duration(0), time.Now()
	for !l.stopping {
		err := l.poller.Load().Wait(wait)
		worked := l.commands()
		l.enter()
		l.now = time.Now()
		if err != nil {
			l.warn("cannot wait for packets", err)
		}
		if l.index == 0 && l.now.After(l.nextTick) {
			l.nextTick = l.now.Add(tick)
			l.housekeep()
		}
		worked = l.round() || worked
		kept := l.outbox.packets > 0
		l.leave() // from here on a command of another thread may touch what is this one's
		if worked {
			busy, wait = l.now, 0
			continue
		}
		if l.now.Sub(busy) < spin && l.now.Sub(l.bulkAt) >= bulkFor {
			wait = 0
			yield()
			continue
		}
		if kept {
			wait = patience
			continue
		}
		wait = tick
		if l.lost {
			// A deleted TUN is always ready. What should go through it is refused by the kernel.
			_, _ = unix.Poll(nil, int(lostPause.Milliseconds()))
		}
	}
	for {
		select {
		case r := <-l.requests:
			r.answer <- errClosed
		default:
			return
		}
	}
}

// round moves the packets that the last look at the descriptors found, and reports whether there were any.
func (l *loop) round() bool {
	poller := l.poller.Load() // a command may have exchanged it: then nothing is ready yet
	worked := false
	before := l.counters[counterConfidentialOut] + l.counters[counterConfidentialIn]
	if poller.Ready(0) {
		l.readTUN()
		worked = !l.lost
	}
	for place := range l.sockets.Len() {
		if poller.Ready(place + 1) {
			l.receive(place)
			worked = true
		}
	}
	if l.outbox.expired(l.now) {
		l.flush()
	}
	if l.counters[counterConfidentialOut]+l.counters[counterConfidentialIn]-before >= bulk {
		l.bulkAt = l.now
	}
	return worked
}

func (l *loop) commands() bool {
	worked := false
	for {
		select {
		case r := <-l.requests:
			r.answer <- l.command(r.command)
			worked = true
		default:
			return worked
		}
	}
}

// housekeep ends what has no packets to end it.
func (l *loop) housekeep() {
	l.alone()
	defer l.share()
	l.counters[counterWaitedTooLong] += uint64(len(l.waiting.Expire(l.now)))
	for q := range l.waiting.Flows() {
		if !q.IsEmpty() {
			l.ask(q) // the reader of events may have lagged behind
		}
	}
	for key, until := range l.soft {
		if l.now.After(until) {
			delete(l.soft, key)
		}
	}
	for _, a := range l.sadb.children {
		l.checkLimits(a)
		l.probe(a)
		if a.inPackets != a.heard && l.now.Sub(a.heardAt) >= heardEvery && l.emit(ike.Heard{SPI: a.child.In.SPI}) {
			a.heard, a.heardAt = a.inPackets, l.now
		}
	}
}

// heardEvery is how often IKE is told that authentic packets come: well below the silence after which it asks.
const heardEvery = 10 * time.Second

// checkLimits reports the limits that an SA reached; beyond a hard one it carries nothing any more (RFC 4301 4.4.2.1).
func (l *loop) checkLimits(a *association) {
	defer a.remind()
	for {
		limit, ok := a.expiring(l.now)
		if !ok {
			return
		}
		if limit == ike.LimitHard {
			a.dead = true
			l.forget()
		}
		if !l.emit(ike.ChildExpiring{SPI: a.child.In.SPI, Limit: limit}) {
			return // the next tick tries again
		}
		a.told[limit] = true
	}
}

// account looks at the limits of an SA that has carried so much in one direction, where one may have been reached.
func (l *loop) account(a *association, octets, packets uint64) {
	if octets >= a.next.Bytes || packets >= a.next.Packets || !l.now.Before(a.nextTime) {
		l.alone()
		defer l.share()
		l.checkLimits(a)
	}
}

// emit hands an event to the reader of Events, unless it lags too far behind.
func (l *loop) emit(e ike.Event) bool {
	select {
	case l.events <- e:
		return true
	default:
		l.counters[counterEventsLost]++
		return false
	}
}

// warn logs what may happen for every packet, but not for every packet.
func (l *loop) warn(message string, err error) {
	if l.now.Sub(l.warned) < time.Second {
		return
	}
	l.warned = l.now
	l.logger.Warn(message, "error", err)
}

// icmp fills in what a filter can see of ICMP.
func icmp(p *spd.Packet, info packet.Info, pkt []byte) {
	if p.Protocol != spd.ProtocolICMP && p.Protocol != spd.ProtocolICMPv6 || info.FragmentOffset > 0 {
		return
	}
	if at := info.HeaderLen; at+1 < len(pkt) {
		p.ICMPType, p.ICMPCode = pkt[at], pkt[at+1]
	}
}

var errClosed = errors.New("userspace datapath is closed")
