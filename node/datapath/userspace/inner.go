package userspace

import (
	"slices"

	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/transport"
	"github.com/bailiwick-net/bailiwick/node/tun"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// aboutOwn reports whether an inner packet is an ICMP error about a packet that went out through the same SA. Such a
// message comes from anywhere on the way, and has another protocol than an SA for one alone: its own header is not what
// decides (RFC 4301 6.2).
func (l *loop) aboutOwn(a *association, pkt []byte, info *packet.Info) bool {
	quoted, ok := packet.Quoted(pkt, *info)
	if !ok || !l.ready || quoted.Source != info.Destination {
		return false
	}
	p := quoted.SPD()
	if !a.coversOut(&p) || a.child.Mode == sa.Transport && !l.owns(info.Destination) {
		return false
	}
	for _, set := range []*spd.Set{&l.set, l.prepared} {
		if set == nil {
			continue
		}
		rule := ""
		m := set.LookupByAddress(spd.Out, p)
		if m.Rule != nil {
			rule = m.Rule.ID
		}
		if rule != a.child.Rule || m.Filter != nil && m.Action != spd.ActionNegotiate {
			return false
		}
	}
	return true
}

// fragment takes a piece of an inner packet. Only the whole packet has the ports that selectors and policy speak of, so it
// waits for the other pieces (RFC 4301 7.4). Transport mode has whole packets only (RFC 4303 3.1.1).
func (l *loop) fragment(a *association, d *transport.Datagram, pkt []byte, info *packet.Info) {
	l.alone()
	defer l.share()
	if a.child.Mode != sa.Tunnel {
		a.discarded.Add(1)
		l.counters[counterMalformed]++
		return
	}
	l.counters[counterTunnelIn] += uint64(len(pkt))
	if !packet.DecapsulateECN(pkt, d.TrafficClass) { // RFC 6040 4.2
		a.discarded.Add(1)
		return
	}
	if a.pieces == nil {
		a.pieces = packet.NewReassembler()
	}
	whole, all, p, err := l.reassemble(a.pieces, pkt, info)
	if err != nil {
		a.discarded.Add(1)
		l.counters[counterMalformed]++
		return
	}
	if whole == nil || !l.admit(a, p, whole, &all) {
		return
	}
	if err := l.pieced(whole, &all, l.write); err != nil {
		l.warn("cannot cut a packet that came in pieces", err)
	}
}

// reassemble adds a piece of a packet. Once all pieces are there it returns the whole packet, which is nil before, and what
// filters see of it.
func (l *loop) reassemble(r *packet.Reassembler, pkt []byte, info *packet.Info) (whole []byte, all packet.Info, p spd.Packet, err error) {
	whole, ok := r.Add(l.now, pkt, *info)
	if !ok {
		return nil, all, p, nil
	}
	if all, err = packet.Parse(whole); err != nil {
		return nil, all, p, err
	}
	p = all.SPD()
	icmp(&p, all, whole)
	return whole, all, p, nil
}

// outboundFragment takes a piece of a packet that this gateway forwards: what is decided about it is decided about the
// whole packet.
func (l *loop) outboundFragment(pkt []byte, info *packet.Info) {
	l.alone()
	defer l.share()
	if l.pieces == nil {
		l.pieces = packet.NewReassembler()
	}
	whole, all, p, err := l.reassemble(l.pieces, pkt, info)
	if err != nil {
		l.counters[counterUnparsed]++
		return
	}
	if whole == nil {
		return
	}
	if d := l.decide(p); d.fate != spd.Protect || d.association.child.Mode != sa.Tunnel {
		l.outbound(tun.Header{}, whole)
		return
	} else if err := l.fork(d.association); err != nil {
		l.sealFailed(d.association, err)
	} else if err := l.pieced(whole, &all, func(b []byte, info *packet.Info) { l.protect(d.association, tun.Header{}, b, info) }); err != nil {
		l.warn("cannot cut a packet that came in pieces", err)
	}
}

// pieced passes a packet on that came in pieces. A router may cut a packet of IPv4 again; one of IPv6 it may not (RFC 8200
// 5): it goes on in pieces that fit every link, unless it has extension headers.
func (l *loop) pieced(whole []byte, info *packet.Info, pass func([]byte, *packet.Info)) error {
	if info.Version == 4 || len(whole) <= leastMTU6 || info.TransportOffset != packet.IPv6HeaderLen {
		pass(whole, info)
		return nil
	}
	l.fragmentID += uint32(len(l.loops))
	return packet.FragmentIPv6(whole, leastMTU6, l.fragmentID, func(b []byte) error {
		piece, err := packet.Parse(b)
		if err == nil {
			pass(slices.Clone(b), &piece)
		}
		return err
	})
}

// write gives the kernel a packet that may come in.
func (l *loop) write(pkt []byte, info *packet.Info) {
	if err := l.writer.AddParsed(pkt, info, false); err != nil {
		l.tunFailed(err)
	}
}
