package userspace

import (
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/datapath/nftable"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/transport"
	"github.com/bailiwick-net/bailiwick/node/tun"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Bounds of one round of the packet thread.
const (
	readsPerRound    = 16 // packets or super-packets of the TUN
	receivesPerRound = 8  // batches of datagrams
	idleRounds       = 50 // that only yield the processor before the thread sleeps
	tick             = 250 * time.Millisecond
	lostPause        = 5 * time.Millisecond
	cacheSize        = 1 << 16
	sendBuffer       = 160 << 10 // one sealed super-packet: 64 KiB and the overhead of its segments
)

// loop is the packet thread: it alone reads the TUN and the ESP sockets, and it alone touches the state below. It runs
// each batch to completion, in both directions, on one locked thread, without channels in the path of a packet.
type loop struct {
	logger   hclog.Logger
	tun      *tun.Queue
	sockets  *transport.Queue
	poller   atomic.Pointer[transport.Poller] // changed by the thread, woken by all
	requests chan request
	stopped  chan struct{} // closed when the thread has ended
	events   chan ike.Event
	clear    *clearSocket
	table    *nftable.Table
	routing  *routing

	now      time.Time // of the current round
	stopping bool
	lost     bool          // somebody deleted the TUN
	gone     chan struct{} // tells that
	nextTick time.Time
	warned   time.Time // when warn logged last
	unknown  time.Time // when an unknown SPI was reported last

	ready    bool    // a policy was set; before that nothing passes
	set      spd.Set // in force
	prepared *spd.Set
	sadb     sadb
	waiting  waiting
	soft     map[softKey]time.Time
	secured  map[softKey]bool // flows of rules with spd.FallbackDiscover that were protected once
	cache    map[spd.Packet]*association
	checked  map[checkedKey]bool // inbound packets that were found right
	sources  map[string]flowSource

	counters [counters]uint64
	buffer   []byte
	send     []byte
	reply    []byte
	splitter tun.Splitter
	writer   *tun.Writer
	batch    *transport.Batch
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
	idle := 0
	for !l.stopping {
		l.now = time.Now()
		worked := l.commands()
		if l.now.After(l.nextTick) {
			l.nextTick = l.now.Add(tick)
			l.housekeep()
		}
		for range readsPerRound {
			if !l.readTUN() {
				break
			}
			worked = true
		}
		for range receivesPerRound {
			if !l.receive() {
				break
			}
			worked = true
		}
		if worked {
			idle = 0
			continue
		}
		if idle++; idle < idleRounds {
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			continue
		}
		if err := l.poller.Load().Wait(tick); err != nil {
			l.warn("cannot wait for packets", err)
		}
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

func (l *loop) commands() bool {
	worked := false
	for {
		select {
		case r := <-l.requests:
			r.answer <- r.command.run(l)
			worked = true
		default:
			return worked
		}
	}
}

// housekeep ends what has no packets to end it.
func (l *loop) housekeep() {
	l.counters[counterWaitedTooLong] += uint64(l.waiting.expire(l.now))
	for _, q := range l.waiting.flows {
		if len(q.packets) > 0 {
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
		if a.inPackets != a.heard && l.now.Sub(a.heardAt) >= heardEvery && l.emit(ike.Heard{SPI: a.child.In.SPI}) {
			a.heard, a.heardAt = a.inPackets, l.now
		}
	}
}

// heardEvery is how often IKE is told that authentic packets come: well below the silence after which it asks.
const heardEvery = 10 * time.Second

// checkLimits reports the limits that an SA reached; beyond a hard one it carries nothing any more (RFC 4301 4.4.2.1).
func (l *loop) checkLimits(a *association) {
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

// forget empties the caches of decisions. It is called whenever a decision may come out differently.
func (l *loop) forget() {
	clear(l.cache)
	clear(l.checked)
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
