package userspace

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/transport"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// probing is the flow of an SA whose path is searched: probes travel between its hosts, as its packets do.
type probing struct {
	source, destination netip.Addr
	secret              [16]byte // in every probe, before the SPI, so that nobody else's echo counts
	sizes               [32]int  // outer length of the probe with each sequence number
	used                int
}

// setPath computes the bounds of inner packets anew from what is known about the path.
func (a *association) setPath() {
	a.whole = a.longestWhole()
	if a.out == nil {
		a.limit = a.path.known - unknownOverhead
		return
	}
	a.limit = a.out.MaxPacket(a.path.known, a.path.v6)
	a.probed = a.out.MaxPacket(max(a.path.proven, leastMTU6), a.path.v6)
}

// unknownOverhead is more than any suite takes of an outer packet.
const unknownOverhead = 100

// search starts to look for the path MTU, with the flow of a packet that is longer than what is known to pass. It does
// nothing most of the time.
func (l *loop) search(a *association, info *packet.Info) {
	if !a.path.due(l.now) {
		return
	}
	l.alone()
	defer l.share()
	if !a.path.begin(l.now) {
		return
	}
	a.probing = &probing{source: info.Source, destination: info.Destination}
	rand.Read(a.probing.secret[:]) // never fails
}

// probe goes on with the search for a path MTU, and forgets what is too old to be true.
func (l *loop) probe(a *association) {
	if a.path.age(l.now) {
		a.setPath()
	}
	if a.path.known < a.path.device && a.probing != nil && !a.dead && l.now.Sub(a.used()) < probeEvery {
		// Nobody sends what does not fit any more: only this side can find out that the path has more room now.
		a.path.begin(l.now)
	}
	if !a.path.search.active || a.probing == nil || a.out == nil || a.dead {
		return
	}
	sizes := a.path.round(l.now)
	a.setPath() // the search may have ended
	if len(sizes) == 0 {
		return
	}
	// An echo is a packet like any other: it goes where the policy and the selectors let it.
	echo := packet.Echo{
		Source: a.probing.source, Destination: a.probing.destination, ID: uint16(a.child.In.SPI),
		Data: binary.BigEndian.AppendUint32(a.probing.secret[:], uint32(a.child.In.SPI)),
	}
	p := spd.Packet{Source: echo.Source, Destination: echo.Destination, Protocol: spd.ProtocolICMP, ICMPType: 8}
	if !echo.Source.Is4() {
		p.Protocol, p.ICMPType = spd.ProtocolICMPv6, 128
	}
	if d := l.decide(p); d.fate != spd.Protect || !a.standsFor(d.association) {
		return
	}
	for _, other := range l.loops { // no probe overtakes what was sealed before it
		other.flush()
	}
	for _, size := range sizes {
		n := a.probing.used % len(a.probing.sizes)
		a.probing.sizes[n] = size
		a.probing.used++
		echo.Sequence = uint16(n)
		l.sendProbe(a, packet.AppendEcho(nil, echo, a.out.MaxPacket(size, a.path.v6)))
	}
}

// sendProbe sends a packet in an outer one that no router may cut.
func (l *loop) sendProbe(a *association, pkt []byte) {
	sealed, err := a.out.Seal(nil, pkt)
	if err != nil {
		l.sealFailed(a, err)
		return
	}
	a.outPackets.Add(1)
	a.outOctets.Add(uint64(len(sealed)))
	l.counters[counterProbes]++
	err = l.sockets.SendWhole(&transport.Message{Local: a.child.Local, Remote: a.remote, Encap: a.child.Encap, Payload: sealed})
	if err != nil && !errors.Is(err, transport.ErrTooBig) {
		l.warn("cannot send a probe of the path MTU", err)
	}
}

// probeAnswered reports whether an ICMP packet is the answer to a probe, which is for nobody else.
func (l *loop) probeAnswered(a *association, pkt []byte, info *packet.Info) bool {
	if a.probing == nil && a.child.Bundle == 0 {
		return false
	}
	e, ok := packet.ParseEcho(pkt, *info)
	const secretLen = len(a.probing.secret)
	if !ok || !e.Reply || len(e.Data) < secretLen+4 {
		return false
	}
	// The peer answers through any SA of a bundle: its threads have theirs as ours have.
	probed := l.sadb.children[sa.SPI(binary.BigEndian.Uint32(e.Data[secretLen:]))]
	if probed == nil || probed.probing == nil || probed != a && (a.child.Bundle == 0 || probed.child.Bundle != a.child.Bundle) {
		return false
	}
	a = probed
	if e.ID != uint16(a.child.In.SPI) || int(e.Sequence) >= min(a.probing.used, len(a.probing.sizes)) ||
		e.Source != a.probing.destination || e.Destination != a.probing.source || [secretLen]byte(e.Data) != a.probing.secret {
		return false
	}
	l.alone()
	defer l.share()
	size := a.probing.sizes[e.Sequence]
	if a.out == nil || info.Length != a.out.MaxPacket(size, a.path.v6) {
		return false
	}
	a.path.answered(size, l.now)
	a.setPath()
	return true
}

// tooBig is what a router told about one of our ESP packets.
type tooBig struct {
	packet packet.QuotedESP
	mtu    int
}

func (c tooBig) run(l *loop) error {
	for _, a := range l.sadb.children {
		if a.out == nil || uint32(a.child.Out.SPI) != c.packet.SPI || !a.sent(c.packet) {
			continue
		}
		l.counters[counterTooBigReceived]++
		if a.path.told(c.mtu, l.now) {
			a.setPath()
		}
	}
	return nil
}

// sent reports whether a quoted packet may be one of ours: nobody who does not see them knows SPI, addresses and the
// sequence numbers of late (RFC 4301 8.2.1).
func (a *association) sent(q packet.QuotedESP) bool {
	const late = 1 << 16
	if q.Encap != a.child.Encap || q.Source.Addr() != a.child.Local.Addr() || q.Destination.Addr() != a.remote.Addr() {
		return false
	}
	if q.Encap && (q.Source.Port() != a.child.Local.Port() || q.Destination.Port() != a.remote.Port()) {
		return false
	}
	last := uint32(a.out.Last())
	return last-q.Sequence < late
}
