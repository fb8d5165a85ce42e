package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/leak/proof"
)

// lane is one kind of traffic from one machine to another: requests that are answered, again and again.
type lane struct {
	name   string
	sent   atomic.Int64
	passed atomic.Int64
	last   atomic.Int64 // when the latest request that was answered was sent, in nanoseconds of the Unix time
}

// since reports whether a request that was sent after t was answered.
func (l *lane) since(t time.Time) bool { return l.last.Load() > t.UnixNano() }

const (
	answerTime = 400 * time.Millisecond // after which a request counts as lost
	smallSize  = 200
	largeSize  = 4000 // in fragments, on Ethernet
	recordSize = 900  // of TCP
)

// startTraffic starts servers and lanes. It ends with the context.
func (w *world) startTraffic(ctx context.Context) error {
	var n atomic.Uint64
	for _, pair := range w.pairs {
		for _, s := range pair {
			if err := w.serve(ctx, s); err != nil {
				return err
			}
		}
	}
	if err := w.serveUDP(ctx, w.intruder, openPort, w.open); err != nil {
		return err
	}
	for at := range 2 * len(w.pairs) {
		pair, from := w.pairs[at/2], at%2
		a, b := pair[from], pair[1-from]
		for family := range a.address {
			name := fmt.Sprintf("%s to %s IPv%d ", a.Name, b.Name, 4+2*family)
			c := caller{ctx: ctx, world: w, n: &n, host: a.host, from: a.address[family], to: b.address[family], party: w.party}
			w.start(name+"UDP", 20*time.Millisecond, c, &udpCaller{port: udpPort, octets: smallSize})
			w.start(name+"UDP, new socket each", 100*time.Millisecond, c, &udpCaller{port: udpPort, octets: smallSize, once: true})
			w.start(name+"UDP in fragments", 200*time.Millisecond, c, &udpCaller{port: udpPort, octets: largeSize})
			w.start(name+"TCP", 50*time.Millisecond, c, &tcpCaller{})
			w.start(name+"TCP, new connection each", 100*time.Millisecond, c, &tcpCaller{once: true})
			w.start(name+"echo", 100*time.Millisecond, c, &echoCaller{})
			w.running.Go(c.knock)
			if pair != w.nodes {
				continue
			}
			open := c
			open.to, open.party = w.intruder.address[family], w.open
			w.start(fmt.Sprintf("%s to %s IPv%d permitted UDP", a.Name, w.intruder.Name, 4+2*family), 100*time.Millisecond, open, &udpCaller{port: openPort, octets: smallSize})
		}
	}
	return nil
}

// caller makes the requests of a lane.
type caller struct {
	ctx      context.Context
	world    *world
	n        *atomic.Uint64
	host     *lab.Host
	from, to netip.Addr
	party    *proof.Party
}

// way is how a lane asks and is answered. Its methods are called by one goroutine.
type way interface {
	ask(c caller, request []byte) (answer []byte, err error)
	size() int
	close()
}

func (w *world) start(name string, every time.Duration, c caller, how way) {
	l := &lane{name: name}
	w.lanes = append(w.lanes, l)
	w.running.Go(func() {
		defer how.close()
		each(c.ctx, every, func() {
			number, start := c.n.Add(1), time.Now()
			l.sent.Add(1)
			answer, err := how.ask(c, c.party.Append(nil, how.size(), number))
			if err != nil {
				return
			}
			if got, ours := c.party.Number(answer); ours && got == number {
				l.passed.Add(1)
				l.last.Store(start.UnixNano())
			}
		})
	})
}

// dial makes a connected socket of the machine.
func (c caller) dial(network string, port uint16) (conn net.Conn, err error) {
	d := net.Dialer{Timeout: 2 * answerTime}
	if network == "tcp" {
		d.LocalAddr = &net.TCPAddr{IP: c.from.AsSlice()}
	} else {
		d.LocalAddr = &net.UDPAddr{IP: c.from.AsSlice()}
	}
	err = c.host.Do(func() (err error) {
		conn, err = d.DialContext(c.ctx, network, netip.AddrPortFrom(c.to, port).String())
		return err
	})
	return conn, err
}
