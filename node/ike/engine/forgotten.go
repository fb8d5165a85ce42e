package engine

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// What is said about SAs that this machine does not have, and what is believed of it.

// refuseSPI answers a request for an IKE SA that is not here (RFC 7296 2.21.4: MAY tell, outside of any SA), with the
// token that proves it where there is a secret. No token ever leaves for an SA that lives, in whatever role the SPIs of
// the message put this side: whoever gets it could end the SA (RFC 6290 7.1).
func (e *Engine) refuseSPI(d ike.Datagram, h wire.Header) {
	notifies := []wire.Notify{{Type: wire.NotifyInvalidIKESPI}}
	token := wire.Notify{Protocol: wire.ProtocolIKE, Type: wire.NotifyQuickCrashDetection}
	_, first := e.table.bySPI[h.SPIi]
	_, second := e.table.bySPI[h.SPIr]
	_, third := e.table.expected[h.SPIi]
	_, fourth := e.table.expected[h.SPIr]
	if third || fourth { // the peer has answered the rekey that makes it, and asks again when this side has read that
		return
	}
	const size = wire.HeaderLen + 8 + 8 + suite.CrashTokenLen
	if !first && !second && e.cfg.CrashSecret.Len() > 0 && len(d.Bytes) >= size {
		token.Data = suite.CrashToken(e.cfg.CrashSecret, h.SPIi, h.SPIr)
		notifies = append(notifies, token)
	}
	if len(d.Bytes) < wire.HeaderLen+8 || !e.replies.allow(e.now, d.Remote.Addr()) {
		e.count("answers_withheld")
		return
	}
	e.answer(d, h, notifies...)
}

// unknownESP tells the sender of ESP for an SPI that nobody has here (RFC 7296 1.5): a peer from before a restart hears so
// that there is nobody, long before it would ask. With peers that have an IKE SA the SPI was just deleted.
func (e *Engine) unknownESP(ev ike.UnknownESP) {
	const size = wire.HeaderLen + 8 + 4
	if e.stopping || ev.Octets < size || e.hasPeer(ev.Remote.Addr()) || !e.espReplies.allow(e.now, ev.Remote.Addr()) {
		return
	}
	local, remote := ev.Local, ev.Remote
	if remote.Port() == 0 {
		port := e.cfg.Port
		if port == 0 {
			port = ikev2.Port
		}
		local, remote = netip.AddrPortFrom(local.Addr(), port), netip.AddrPortFrom(remote.Addr(), port)
	}
	h := wire.Header{SPIi: wire.SPI(binary.BigEndian.Uint64(e.Random(8)) | 1), Exchange: wire.Informational, Flags: wire.FlagInitiator}
	m := wire.Message{Header: h, Payloads: []wire.Payload{wire.Notify{
		Type: wire.NotifyInvalidSPI, Data: binary.BigEndian.AppendUint32(nil, uint32(ev.SPI)),
	}}}
	e.count("unknown_esp_told")
	e.Emit(ike.Send{Local: local, Remote: remote, Bytes: wire.AppendMessage(nil, m)})
}

func (e *Engine) hasPeer(a netip.Addr) bool {
	return slices.ContainsFunc(e.table.byPeer[a], func(x *entry) bool { return x.sa.State() == ikev2.StateEstablished })
}

// outsideSA reads a message that belongs to no SA. It is never answered, and INVALID_SPI in it is a hint (RFC 7296 1.5):
// the SA that holds the SPI asks its peer.
func (e *Engine) outsideSA(d ike.Datagram) {
	e.drop(d, ike.ReasonUnprotected)
	m, err := wire.ParseMessage(d.Bytes, wire.LimitBeforeAuth)
	if err != nil {
		return
	}
	n, ok := wire.FindNotify(m.Payloads, wire.NotifyInvalidSPI)
	if !ok || len(n.Data) != 4 {
		return
	}
	out := sa.SPI(binary.BigEndian.Uint32(n.Data))
	for _, x := range slices.Clone(e.table.byPeer[d.Remote.Addr()]) {
		e.run(x, func(s *ikev2.SA) { s.PeerLostChild(e.now, out) })
	}
}

// peerForgot ends an SA of which the peer has proved that it knows nothing. Rules ask for another one with their next
// packet, and hold it meanwhile; the default response holds nothing: what the peer wanted protected would go in clear. So
// another SA is made for that first, and the forgotten one, whose packets the peer drops, stays until then.
func (e *Engine) peerForgot(x *entry) {
	if x.forgotten {
		return
	}
	x.forgotten = true
	for _, c := range x.sa.Children() {
		if e.stopping || x.retiring || !c.DefaultResponse || e.carriedBeside(x, c) {
			continue
		}
		if y := e.again(x, c); y != nil {
			e.count("restarted_peer_asked")
			y.revives = x
			e.after(y)
			return
		}
	}
	e.dropForgotten(x)
}

// carriedBeside reports whether another SA with the peer carries what a Child SA of x does.
func (e *Engine) carriedBeside(x *entry, c sa.Child) bool {
	return slices.ContainsFunc(e.table.byPeer[x.filed.remote.Addr()], func(y *entry) bool {
		return twins(x, y) && y.sa.Covers(flowOf(c))
	})
}

// revived ends the forgotten SA that x was begun for.
func (e *Engine) revived(x *entry) {
	if old := x.revives; old != nil {
		x.revives = nil
		e.dropForgotten(old)
	}
}

func (e *Engine) dropForgotten(x *entry) {
	e.run(x, func(s *ikev2.SA) {
		s.Drop(e.now, ike.ReasonPeerRestarted, "the peer has proved that it knows nothing of the IKE SA")
	})
}
