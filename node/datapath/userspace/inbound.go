package userspace

import (
	"errors"

	"github.com/bailiwick-net/bailiwick/node/esp"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/transport"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// receive takes what came to the socket at a place of the queue, up to a bound, batch by batch: it opens the packets in
// place and writes them to the TUN.
func (l *loop) receive(place int) {
	for range receivesPerRound {
		more, err := l.sockets.ReceiveFrom(place, l.batch)
		if err != nil {
			l.warn("cannot receive ESP", err)
			return
		}
		l.counters[counterDatagrams] += uint64(len(l.batch.Datagrams))
		for i := range l.batch.Datagrams {
			d := &l.batch.Datagrams[i]
			for start, end, ok := d.Next(); ok; start, end, ok = d.Next() {
				l.inbound(d, start, end)
			}
		}
		l.letGo()
		l.deliverOpened()
		l.spill.Recycle()
		if !more {
			return
		}
	}
}

// deliverOpened gives the kernel the packets that were opened.
func (l *loop) deliverOpened() {
	if err := l.writer.Flush(); err != nil {
		l.tunFailed(err)
	}
}

func (l *loop) tunFailed(err error) {
	l.counters[counterTUNFailed]++
	l.warn("cannot write to the TUN", err)
}

// inbound takes one ESP packet.
func (l *loop) inbound(d *transport.Datagram, start, end int) {
	spi, ok := esp.SPIOf(d.Buffer[start:end])
	if !ok {
		l.counters[counterMalformed]++
		return
	}
	a := l.sadb.children[spi]
	if a == nil {
		l.counters[counterBadSPI]++
		if l.now.Sub(l.unknown) >= unknownEvery {
			l.unknown = l.now
			l.emit(ike.UnknownESP{SPI: spi, Local: d.Local, Remote: d.Remote, Octets: end - start})
			l.logger.Debug("ESP packet of an unknown SPI", "spi", spi, "remote", d.Remote)
		}
		return
	}
	if a.dead {
		l.counters[counterExpired]++
		a.discarded.Add(1)
		return
	}
	l.take(a)
	opened, err := a.in.Open(d.Buffer, start, end)
	if err != nil {
		l.openFailed(a, err)
		return
	}
	octets := uint64(end - start)
	a.inPackets++
	a.inOctets += octets
	a.received = l.now
	inOctets, inPackets := a.inOctets, a.inPackets
	l.counters[counterConfidentialIn] += octets
	l.counters[counterPacketsOpened]++
	if !a.switched && a.out != nil {
		// The peer uses the SA, so it has installed its inbound half (RFC 7296 2.8): there is nothing to wait for.
		l.alone()
		if err := (switchOut{spi}).run(l); err != nil {
			l.warn("cannot switch to an SA that the peer uses", err)
		}
		l.share()
	}
	if d.Remote != a.remote {
		l.moved(a, d, opened.Sequence)
	}
	if a.dead { // while others had the world
		l.counters[counterExpired]++
		a.discarded.Add(1)
		return
	}
	l.deliver(a, d, opened)
	l.account(a, inOctets, inPackets)
}

// openFailed counts a packet of the SA that the thread has taken.
func (l *loop) openFailed(a *association, err error) {
	switch {
	case errors.Is(err, esp.ErrReplay):
		a.replayed++
		l.counters[counterReplay]++
	case errors.Is(err, esp.ErrIntegrity):
		a.failed++
		l.counters[counterNotAuthentic]++
	case errors.Is(err, esp.ErrDummy): // RFC 4303 2.6: discarded without prejudice
	default:
		a.discarded.Add(1)
		l.counters[counterMalformed]++
	}
}

// deliver hands an opened packet to the kernel if it is what its SA was negotiated for (RFC 4301 5.2 step 4).
func (l *loop) deliver(a *association, d *transport.Datagram, opened esp.Opened) {
	pkt := opened.Packet
	info, err := packet.Parse(pkt)
	if err != nil {
		a.discarded.Add(1)
		l.counters[counterMalformed]++
		return
	}
	if info.Fragment {
		l.fragment(a, d, pkt, &info)
		return
	}
	p := info.SPD()
	icmp(&p, info, pkt)
	if (l.last.in != a || l.last.inbound != p) && !l.admit(a, p, pkt, &info) {
		return
	}
	if a.child.Mode == sa.Tunnel {
		l.counters[counterTunnelIn] += uint64(len(pkt))
		if !packet.DecapsulateECN(pkt, d.TrafficClass) { // RFC 6040 4.2
			a.discarded.Add(1)
			return
		}
	} else {
		l.counters[counterTransportIn] += uint64(len(pkt))
		// The header is that of the outer packet; the one that esp made has other values only in two fields.
		if packet.TrafficClass(pkt) != d.TrafficClass {
			packet.SetTrafficClass(pkt, d.TrafficClass)
		}
		if packet.HopLimit(pkt) != d.HopLimit {
			packet.SetHopLimit(pkt, d.HopLimit)
		}
	}
	switch info.Protocol {
	case packet.ProtocolTCP:
		clampMSS(pkt, &info, a.limit)
	case packet.ProtocolICMP, packet.ProtocolICMPv6:
		if l.probeAnswered(a, pkt, &info) {
			return
		}
	}
	if err := l.writer.AddParsed(pkt, &info, opened.ChecksumUnknown); err != nil {
		l.tunFailed(err)
	}
}

// admit reports whether an inner packet may come out of an SA.
func (l *loop) admit(a *association, p spd.Packet, pkt []byte, info *packet.Info) bool {
	key := checkedKey{a.child.In.SPI, p}
	if !l.checked[key] {
		if !a.coversIn(&p) && l.aboutOwn(a, pkt, info) {
			return true // this one, not all with the same 5-tuple
		}
		if !l.check(a, p, key) {
			return false
		}
	}
	l.last.in, l.last.inbound = a, p
	return true
}

// check compares an inner packet with the selectors of its SA and with the policy, and remembers what is right.
func (l *loop) check(a *association, p spd.Packet, key checkedKey) bool {
	if !l.ready {
		l.counters[counterNotReady]++
		return false
	}
	if !a.coversIn(&p) {
		l.mismatched(a)
		return false
	}
	if a.child.Mode == sa.Transport && !l.owns(p.Destination) {
		// The machine has lost the address: as a gateway it would forward in clear what it was sent protected.
		l.counters[counterSecurePolicy]++
		return false
	}
	for _, set := range []*spd.Set{&l.set, l.prepared} {
		if set == nil {
			continue
		}
		m := set.LookupByAddress(spd.In, p)
		if m.Action == spd.ActionNegotiate && (m.Rule == nil || m.Rule.ID != a.child.Rule) {
			l.mismatched(a)
			return false
		}
		if spd.Inbound(m, spd.StateLive, true).Fate != spd.Pass {
			l.counters[counterSecurePolicy]++
			return false
		}
	}
	if len(l.checked) >= cacheSize {
		clear(l.checked)
	}
	l.checked[key] = true
	return true
}

// mismatched counts a packet that its SA was not negotiated for.
func (l *loop) mismatched(a *association) {
	l.take(a)
	a.mismatch++
	l.counters[counterWrongSA]++
}
