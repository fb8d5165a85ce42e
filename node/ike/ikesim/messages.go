package ikesim

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// What the wire alone shows of the invariants: I4 message IDs, I2 initialisation vectors, I7 octets to strangers.

// sentKey names one datagram of one side: a message, or a fragment of one.
type sentKey struct {
	spis     [16]byte
	id       uint32
	fragment uint32 // number and total: a message is cut anew for a path that takes small datagrams only (RFC 7383 2.5.2)
	flags    byte
	exchange byte
	epoch    int
	node     *Node
}

type ivKey struct {
	spis [16]byte
	// keys tells the keys of the IKE SA apart: every round of IKE_INTERMEDIATE makes others (RFC 9370 2.2.2).
	keys  uint32
	iv    [8]byte
	flags byte
	epoch int
	node  *Node
}

// windowKey names an IKE SA by the SPI of the node itself.
type windowKey struct{ own wire.SPI }

// window is what one side has sent and got in one IKE SA; -1: nothing.
type window struct {
	requestSent, responseGot int64
	requestGot, responseSent int64
}

// sourceKey is an address whose owner has proved nothing.
type sourceKey struct{ addr netip.Addr }

// exposure is how many octets came from an address, and went there, while no SA with it was established.
type exposure struct{ in, out int }

func ownSPI(b []byte, sending bool) wire.SPI {
	initiator := b[19]&byte(wire.FlagInitiator) != 0
	at := 8
	if initiator == sending {
		at = 0
	}
	return wire.SPI(binary.BigEndian.Uint64(b[at:]))
}

func (n *Node) window(own wire.SPI) *window {
	v := n.windows[windowKey{own}]
	if v == nil {
		v = &window{-1, -1, -1, -1}
		n.windows[windowKey{own}] = v
	}
	return v
}

func isProtected(b []byte) bool {
	return len(b) > 44 && (wire.PayloadType(b[16]) == wire.TypeSK || wire.PayloadType(b[16]) == wire.TypeSKF)
}

// observeArrival notes what reaches a node.
func (w *World) observeArrival(n *Node, d ike.Datagram) {
	if w.flooded {
		n.exposure(d.Remote.Addr()).in += len(d.Bytes)
	}
	if !isProtected(d.Bytes) {
		return
	}
	id := int64(binary.BigEndian.Uint32(d.Bytes[20:]))
	v := n.window(ownSPI(d.Bytes, false))
	if d.Bytes[19]&byte(wire.FlagResponse) != 0 {
		v.responseGot = max(v.responseGot, id)
	} else {
		v.requestGot = max(v.requestGot, id)
	}
}

func (n *Node) exposure(a netip.Addr) *exposure {
	x := n.sources[sourceKey{a}]
	if x == nil {
		x = &exposure{}
		n.sources[sourceKey{a}] = x
	}
	return x
}

// observeSend checks a datagram that a node sends.
func (w *World) observeSend(n *Node, s ike.Send) {
	if len(s.Bytes) < wire.HeaderLen || w.unchecked {
		return
	}
	sum := maphash.Bytes(hashSeed, s.Bytes)
	w.fingerprint = (w.fingerprint ^ sum) * 1099511628211
	if w.flooded {
		w.checkExposure(n, s)
	}
	if !isProtected(s.Bytes) {
		return // IKE_SA_INIT changes with cookies; unprotected errors answer whatever came
	}
	b := s.Bytes
	k := sentKey{
		spis: [16]byte(b[:16]), flags: b[19], id: binary.BigEndian.Uint32(b[20:]), exchange: b[18], epoch: n.epoch, node: n,
	}
	iv := ivKey{spis: k.spis, flags: k.flags & byte(wire.FlagInitiator), epoch: n.epoch, node: n, iv: [8]byte(b[32:40])}
	if wire.PayloadType(b[16]) == wire.TypeSKF {
		k.fragment = binary.BigEndian.Uint32(b[32:])
		iv.iv = [8]byte(b[36:44])
	}
	if wire.ExchangeType(k.exchange) == wire.IKEIntermediate {
		iv.keys = k.id
	}
	if old, seen := w.sends[k]; seen && old != sum {
		w.broken("I4 %s: message %d of exchange %d is repeated with other octets", n.Name, k.id, k.exchange)
	} else if !seen {
		w.checkWindow(n, k, b)
	}
	w.sends[k] = sum
	if old, seen := w.ivs[iv]; seen && old != sum {
		w.broken("I2 %s: an initialisation vector of IKE SA %x is used twice", n.Name, iv.spis)
	}
	w.ivs[iv] = sum
}

// checkWindow: I4, for a message that is sent for the first time.
func (w *World) checkWindow(n *Node, k sentKey, b []byte) {
	own := ownSPI(b, true)
	v, id := n.window(own), int64(k.id)
	if k.flags&byte(wire.FlagResponse) != 0 {
		switch {
		case id > v.requestGot:
			w.broken("I4 %s answers request %d, which has not come", n.Name, id)
		case id < v.responseSent:
			w.broken("I4 %s answers request %d after %d", n.Name, id, v.responseSent)
		}
		v.responseSent = max(v.responseSent, id)
		return
	}
	if _, over := n.ended[ike.IKESPI(own)]; over {
		w.broken("I4 %s sends request %d on IKE SA %s, which is over", n.Name, id, own)
	}
	first := v.requestSent < 0 && id <= 1 // the initiator's first request was IKE_SA_INIT
	switch {
	case id == v.requestSent: // another fragment
		return
	case !first && id != v.requestSent+1:
		w.broken("I4 %s: request %d follows %d", n.Name, id, v.requestSent)
	case !first && v.responseGot < v.requestSent:
		w.broken("I4 %s: request %d is sent before the response to %d has come", n.Name, id, v.requestSent)
	}
	v.requestSent = id
}

// The bounds of I7.
const (
	mostHalfOpen       = 4096
	mostHalfOpenSource = 32
	mostQueued         = 4096
	// mostAmplified bounds what goes to an address that has proved nothing, as a multiple of what came from it.
	mostAmplified = 3
	// authenticESP is what ESP that is authentic counts as octets of its source: the peer has sent it, and may be asked
	// there whether it has moved.
	authenticESP = 4096
)

// checkCost: I7.
func (w *World) checkCost(n *Node, halfOpen int) {
	if halfOpen > mostHalfOpen {
		w.broken("I7 %s: %d half-open SAs", n.Name, halfOpen)
	}
	if q := n.Engine.Queued(); q > mostQueued {
		w.broken("I7 %s: %d flows wait", n.Name, q)
	}
	if halfOpen <= cheapHalfOpen {
		return
	}
	count := make(map[netip.Addr]int)
	for s := range n.Engine.SAs() {
		if _, remote := s.Addresses(); !s.Initiator() && s.EstablishedAt().IsZero() && s.InitRequest() != nil {
			count[remote.Addr()]++
			if count[remote.Addr()] == mostHalfOpenSource+1 {
				w.broken("I7 %s: more than %d half-open SAs from one address", n.Name, mostHalfOpenSource)
			}
		}
	}
}

// cheapHalfOpen is a number of half-open SAs that needs no closer look: one address may have as many if it is known.
const cheapHalfOpen = 8

func (w *World) checkExposure(n *Node, s ike.Send) {
	if w.at(s.Remote.Addr()) != nil || w.knownAs(s.Remote.Addr()) { // no stranger: it may have proved that it receives what is sent there
		return
	}
	for q := range n.Engine.SAs() {
		if _, remote := q.Addresses(); remote.Addr() == s.Remote.Addr() && (q.Initiator() || !q.EstablishedAt().IsZero()) {
			return
		}
	}
	x := n.exposure(s.Remote.Addr())
	x.out += len(s.Bytes)
	if x.out > mostAmplified*x.in {
		w.broken("I7 %s sent %d octets to an address that sent %d and proved nothing", n.Name, x.out, x.in)
	}
}
