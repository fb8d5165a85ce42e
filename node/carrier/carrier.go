// Package carrier joins the IKE driver to the sockets: it gives the driver its datagrams, and puts what the engine has to
// say of them first where they arrive.
//
// Its invariant: the class of a datagram decides the lane that it waits in, and nothing else. It leaves sockets and queues
// to node/transport and the classes to node/ike/engine.
package carrier

import (
	"net/netip"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

// Carrier is the transport of an IKE driver. The driver's loop takes its datagrams from the queue of the sockets.
type Carrier struct {
	*transport.Sockets
	datagrams chan ike.Datagram
	done      chan struct{}
}

// New carries IKE over sockets until they end, or until Stop.
func New(sockets *transport.Sockets) *Carrier {
	c := &Carrier{sockets, make(chan ike.Datagram), make(chan struct{})}
	go func() {
		defer close(c.datagrams)
		_ = sockets.Ended(c.done) // the driver says that its transport ended
	}()
	return c
}

// Stop says that nobody takes datagrams any more.
func (c *Carrier) Stop() { close(c.done) }

// Datagrams is closed when the sockets have ended; what arrives is to be taken with Next (driver.Transport).
func (c *Carrier) Datagrams() <-chan ike.Datagram { return c.datagrams }

// Next takes the next datagram (driver.Queue).
func (c *Carrier) Next() (ike.Datagram, bool) {
	octets, local, remote, ok := c.NextIKE()
	return ike.Datagram{Local: local, Remote: remote, Bytes: octets}, ok
}

// Screen puts a judge where datagrams arrive (driver.Screened).
func (c *Carrier) Screen(judge func(d ike.Datagram, room []byte) (engine.Class, []byte)) {
	c.SetScreen(func(local, remote netip.AddrPort, octets, room []byte) (transport.Lane, []byte) {
		class, answer := judge(ike.Datagram{Local: local, Remote: remote, Bytes: octets}, room)
		switch class {
		case engine.ClassPeer:
			return transport.LaneFirst, answer
		case engine.ClassNewcomer:
			return transport.LaneSecond, answer
		case engine.ClassStranger:
			return transport.LaneThird, answer
		case engine.ClassDone:
		}
		return transport.LaneNone, answer
	})
}
