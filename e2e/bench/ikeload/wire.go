package ikeload

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// errNoRoute says that nobody on the wire has an address.
var errNoRoute = errors.New("no machine on the wire has this address")

// Wire joins machines in one process. It delivers at once and in order; what finds a full queue is dropped and counted,
// as a socket does.
type Wire struct {
	dropped atomic.Uint64
	mu      struct {
		sync.RWMutex
		ends map[netip.Addr]*wireEnd
	}
}

// NewWire returns a wire without machines.
func NewWire() *Wire {
	w := &Wire{}
	w.mu.ends = make(map[netip.Addr]*wireEnd)
	return w
}

// Dropped counts the datagrams that found a full queue.
func (w *Wire) Dropped() uint64 { return w.dropped.Load() }

// plug joins a machine with these addresses; depth is the length of its queue.
func (w *Wire) plug(depth int, addresses ...netip.Addr) *wireEnd {
	e := &wireEnd{wire: w, datagrams: make(chan ike.Datagram, depth)}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range addresses {
		w.mu.ends[a] = e
	}
	return e
}

// wireEnd is the transport of one machine.
type wireEnd struct {
	wire      *Wire
	datagrams chan ike.Datagram
}

// Datagrams implements driver.Transport.
func (e *wireEnd) Datagrams() <-chan ike.Datagram { return e.datagrams }

// WriteIKE implements driver.Transport. The octets change hands: the driver never touches what it has sent.
func (e *wireEnd) WriteIKE(local, remote netip.AddrPort, b []byte) error {
	e.wire.mu.RLock()
	to, ok := e.wire.mu.ends[remote.Addr()]
	e.wire.mu.RUnlock()
	if !ok {
		return errNoRoute
	}
	select {
	case to.datagrams <- ike.Datagram{Local: remote, Remote: local, Bytes: b}:
	default:
		e.wire.dropped.Add(1)
	}
	return nil
}

// WriteKeepalive implements driver.Transport.
func (e *wireEnd) WriteKeepalive(netip.AddrPort, netip.AddrPort) error { return nil }
