package userspace

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/datapath/nftable"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/esp"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/tun"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// decision is what happens to an outbound packet.
type decision struct {
	fate        spd.Fate
	effect      spd.Effect
	association *association // with spd.Protect; with spd.Hold, the one that is about to be switched to
	match       spd.Match
}

// readTUN takes what the kernel wants protected, up to a bound, and sends it. While packets come in a stream faster than
// the thread can send each for itself, it lets whoever makes them run before it sends: then more of them share a call.
// Super-packets fill a call by themselves.
func (l *loop) readTUN() {
	octets, reads, before := 0, 0, 0
	for reads < readsPerRound && octets < octetsPerRound {
		if n := l.readOne(); n > 0 {
			reads++
			octets += n
			continue
		}
		if reads == before || !l.stream || l.outbox.packets == 0 || octets >= bulk {
			break
		}
		before = reads
		yield()
	}
	l.stream = reads >= streamReads
	l.settle()
}

// yield lets another thread run that waits for the processor, if there is one.
func yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// readOne takes one packet or super-packet, and returns its length; 0 when there is none.
func (l *loop) readOne() int {
	header, pkt, err := l.tun.Read(l.buffer)
	if errors.Is(err, tun.ErrWouldBlock) {
		return 0
	}
	if err != nil {
		if !l.lost {
			l.lost = true
			l.warn("cannot read the TUN", err)
			select {
			case l.gone <- struct{}{}:
			default:
			}
		}
		return 0
	}
	l.counters[counterTUNReads]++
	l.outbound(header, pkt)
	return len(pkt)
}

// outbound takes one packet or super-packet that the kernel wants protected. The policy is asked again: it may have
// changed since the kernel decided.
func (l *loop) outbound(header tun.Header, pkt []byte) {
	if !l.ready {
		l.counters[counterNotReady]++
		return
	}
	info, err := packet.Parse(pkt)
	if err != nil {
		l.counters[counterUnparsed]++
		return
	}
	if info.Fragment {
		l.outboundFragment(pkt, &info)
		return
	}
	p := info.SPD()
	icmp(&p, info, pkt)
	if l.last.out != nil && p == l.last.outbound {
		l.protect(l.last.out, header, pkt, &info)
		return
	}
	if a, ok := l.cache[p]; ok {
		l.last.outbound, l.last.out = p, a
		l.protect(a, header, pkt, &info)
		return
	}
	l.alone()
	defer l.share()
	d := l.decide(p)
	switch d.fate {
	case spd.Protect:
		if err := l.fork(d.association); err != nil {
			l.sealFailed(d.association, err)
			return
		}
		if len(l.cache) >= cacheSize {
			clear(l.cache)
		}
		l.cache[p] = d.association
		l.protect(d.association, header, pkt, &info)
	case spd.Pass:
		if d.match.Filter == nil && !l.owns(p.Source) {
			// The kernel saw that it is to be protected. No filter is about it any more, and it is from an address that the
			// machine has lost meanwhile: it is no clear traffic for that.
			l.counters[counterBlocked]++
			return
		}
		if d.effect == spd.Acquire && !l.discover(d.match, p) {
			return
		}
		l.reinject(header, pkt, info)
	case spd.Hold:
		if d.association != nil {
			l.holdFor(d.association, p, header, pkt)
			return
		}
		l.hold(d.match, p, header, pkt)
	default:
		l.counters[counterBlocked]++
	}
}

// owns reports whether an address is the machine's own, as far as the policy in force and the one about to be know.
func (l *loop) owns(a netip.Addr) bool {
	return l.set.Owns(a) && (l.prepared == nil || l.prepared.Owns(a))
}

// decide looks a packet up in the policy in force, and while another one is about to replace it in both: clear traffic
// needs the permission of both.
func (l *loop) decide(p spd.Packet) decision {
	d := l.decideBy(l.set, p)
	if l.prepared == nil {
		return d
	}
	next := l.decideBy(*l.prepared, p)
	if d.fate == spd.Pass || next.fate == spd.Drop {
		return next
	}
	return d
}

func (l *loop) decideBy(set spd.Set, p spd.Packet) decision {
	m := set.LookupByAddress(spd.Out, p)
	d := decision{match: m}
	if m.Filter == nil {
		// Nothing but an SA of the default response asks for protection here.
		if a := l.find("", &p); a != nil {
			d.fate, d.association = spd.Protect, a
			return d
		}
		if a := l.sadb.upcoming(&p); a != nil {
			d.fate, d.association = spd.Hold, a
			return d
		}
	}
	if m.Action != spd.ActionNegotiate || m.Rule == nil {
		d.fate = spd.Outbound(m, spd.StateNone).Fate
		return d
	}
	var state spd.State
	if a := l.find(m.Rule.ID, &p); a != nil {
		state, d.association = spd.StateLive, a
	} else {
		state = l.state(m, p)
	}
	v := spd.Outbound(m, state)
	d.fate, d.effect = v.Fate, v.Effect
	return d
}

// find returns the SA of a rule that carries an outbound packet of this thread.
func (l *loop) find(rule string, p *spd.Packet) *association {
	return l.sadb.find(rule, p, l.index, len(l.loops))
}

// state is what is known about a flow without an SA.
func (l *loop) state(m spd.Match, p spd.Packet) spd.State {
	key := softKey{m.Rule.ID, p.Source, p.Destination}
	if until, ok := l.soft[key]; ok && l.now.Before(until) {
		return spd.StateSoft
	}
	if f, err := l.flow(m, p); err == nil {
		if q := l.waiting.Get(f); q != nil {
			if q.IsRefused(l.now) {
				return spd.StateFailed
			}
			if !l.secured[key] {
				return spd.StateNegotiating
			}
		}
	}
	if l.secured[key] {
		return spd.StateSecured
	}
	return spd.StateNone
}

// flowSource is the own endpoint of a tunnel rule.
type flowSource struct {
	address netip.Addr
	until   time.Time
}

// flow names the negotiation that a packet needs.
func (l *loop) flow(m spd.Match, p spd.Packet) (ike.Flow, error) {
	f, err := datapath.FlowOf(m, p)
	if err != nil || f.Local.IsValid() {
		return f, err
	}
	if s, ok := l.sources[m.Rule.ID]; ok && l.now.Before(s.until) {
		f.Local = s.address
		return f, nil
	}
	address, err := l.routing.source(f.Remote)
	if err != nil {
		return ike.Flow{}, err
	}
	l.sources[m.Rule.ID] = flowSource{address, l.now.Add(time.Second)}
	f.Local = address
	return f, nil
}

// hold keeps a packet until its flow is decided, and asks for a negotiation once.
func (l *loop) hold(m spd.Match, p spd.Packet, header tun.Header, pkt []byte) {
	f, err := l.flow(m, p)
	if err != nil {
		l.counters[counterQueueFull]++
		l.warn("cannot ask for a negotiation", err)
		return
	}
	q := l.waiting.Open(f, l.now)
	if q == nil {
		l.counters[counterQueueFull]++
		return
	}
	q.Forgive()
	if l.put(q, header, pkt) {
		l.ask(q)
	}
}

// put cuts a packet or super-packet and lets it wait.
func (l *loop) put(q *queue, header tun.Header, pkt []byte) bool {
	if err := l.splitter.Reset(header, pkt); err != nil {
		l.counters[counterUnparsed]++
		return false
	}
	for segment, ok := l.splitter.Next(); ok; segment, ok = l.splitter.Next() {
		if !l.waiting.Put(q, segment, l.now) {
			l.counters[counterQueueFull]++
		}
	}
	return true
}

// holdFor keeps a packet until an SA that is installed is switched to. Nobody is asked for a negotiation: it has taken
// place.
func (l *loop) holdFor(a *association, p spd.Packet, header tun.Header, pkt []byte) {
	q := l.waiting.Open(ike.Flow{
		Local: p.Source, Remote: p.Destination, LocalTS: a.child.LocalTS[0], RemoteTS: a.child.RemoteTS[0], Packet: p,
	}, l.now)
	if q == nil {
		l.counters[counterQueueFull]++
		return
	}
	q.Acquired = true
	l.put(q, header, pkt)
}

func (l *loop) ask(q *queue) {
	if !q.Acquired {
		if q.Acquired = l.emit(ike.Acquire{Flow: q.Flow}); q.Acquired {
			l.counters[counterAcquire]++
		}
	}
}

// discover grants clear traffic while the negotiation that it starts is under way (spd.FallbackDiscover). The answer
// may come at once, so the kernel has to know before the packet leaves.
func (l *loop) discover(m spd.Match, p spd.Packet) bool {
	f, err := l.flow(m, p)
	if err != nil {
		l.warn("cannot ask for a negotiation", err)
		return false
	}
	if !l.emit(ike.Acquire{Flow: f}) {
		return false // clear traffic without a negotiation was not granted
	}
	l.counters[counterAcquire]++
	ttl := softTTL(m.Rule)
	key := softKey{m.Rule.ID, p.Source, p.Destination}
	for _, direction := range []spd.Direction{spd.In, spd.Out} {
		set := steering.SoftSet(key.rule, direction, key.local.Is6())
		if err := l.table.Add(set, nftable.Pair{Local: key.local, Remote: key.remote}, ttl); err != nil {
			l.warn("cannot grant a soft association", err)
			return false
		}
	}
	l.soft[key] = l.now.Add(ttl)
	return true
}

// resume decides again about everything that waits in the chosen queues.
func (l *loop) resume(choose func(*queue) bool) {
	var chosen []*queue
	for q := range l.waiting.Flows() {
		if choose(q) {
			chosen = append(chosen, q)
		}
	}
	for _, q := range chosen {
		for _, pkt := range l.waiting.Take(q) {
			l.outbound(tun.Header{}, pkt)
		}
	}
	l.flush()
}

// protect seals a packet or super-packet into the outbox. The SA has what this thread seals with. Nothing before the last
// packet lets others at the world: what was decided about the first is true of all.
func (l *loop) protect(a *association, header tun.Header, pkt []byte, info *packet.Info) {
	if a.dead || a.out == nil {
		l.counters[counterExpired]++
		return
	}
	out := a.sealer(l.index)
	if err := l.splitter.Reset(header, pkt); err != nil {
		l.counters[counterUnparsed]++
		return
	}
	long := l.splitter.SegmentLen()
	if long > a.limit && l.answerTooBig(a, pkt, info) {
		l.search(a, info)
		return
	}
	fields, extended := a.outerOf(pkt, info), a.child.Mode == sa.Transport && info.TransportOffset != packet.FixedHeaderLen(info.Version)
	packets, octets := uint64(0), uint64(0)
	shared := a.shared()
	if shared || extended { // which go at once, and not past what was sealed before
		l.sendOutbox()
	}
	if shared {
		a.sealing.Lock()
	}
	var err error
	for inner, ok := l.splitter.Next(); ok; inner, ok = l.splitter.Next() {
		if info.Protocol == packet.ProtocolTCP {
			clampMSS(inner, info, a.limit)
		}
		var n int
		if extended {
			n, err = l.sealWhole(a, out, inner, info)
		} else {
			n, err = l.seal(a, out, inner, fields)
		}
		if err != nil {
			break
		}
		packets++
		octets += uint64(n)
	}
	if shared {
		l.flush()
		a.sealing.Unlock()
	}
	if err != nil {
		l.sealFailed(a, err)
	}
	if packets == 0 {
		return
	}
	if now := l.now.UnixNano(); a.sealedAt.Load() != now {
		a.sealedAt.Store(now)
	}
	l.counters[counterConfidentialOut] += octets
	l.counters[counterPacketsSealed] += packets
	if a.child.Mode == sa.Tunnel {
		l.counters[counterTunnelOut] += octets
	} else {
		l.counters[counterTransportOut] += octets
	}
	if long > a.probed {
		l.search(a, info)
	}
	l.account(a, a.outOctets.Add(octets), a.outPackets.Add(packets))
}

func (l *loop) sealFailed(a *association, err error) {
	l.alone()
	defer l.share()
	l.counters[counterSealFailed]++
	a.discarded.Add(1)
	if errors.Is(err, esp.ErrExhausted) && !a.dead { // RFC 4303 3.3.3
		a.dead = true
		l.forget()
		a.told[ike.LimitHard] = l.emit(ike.ChildExpiring{SPI: a.child.In.SPI, Limit: ike.LimitHard})
		return
	}
	l.warn("cannot seal a packet", err)
}

// answerTooBig tells the sender of a packet that does not fit the path to send shorter ones, and reports whether it
// did. Only senders that listen are told: TCP, and IPv4 with DF. Others get their packet through, and the ESP packet is
// fragmented: in transport mode the fragments of an inner packet could not be protected (RFC 4303 3.1.1).
func (l *loop) answerTooBig(a *association, pkt []byte, info *packet.Info) bool {
	listens := info.Protocol == packet.ProtocolTCP || info.Version == 4 && pkt[6]&0x40 != 0
	if !listens {
		return false
	}
	// The message seems to come from the destination: it passes the reverse path filter as its packets do.
	reply, err := packet.AppendTooBig(l.reply[:0], pkt, info.Destination, a.limit)
	if err != nil {
		return false
	}
	l.reply = reply
	l.counters[counterTooBig]++
	if err := l.tun.Write(tun.Header{}, reply); err != nil {
		l.counters[counterTUNFailed]++
	}
	return true
}

// clampMSS keeps the peers from sending segments that do not fit the path once they are sealed.
func clampMSS(pkt []byte, info *packet.Info, limit int) {
	const synFlag, flagsAt = 0x02, 13
	if at := info.HeaderLen + flagsAt; at >= len(pkt) || pkt[at]&synFlag == 0 {
		return
	}
	headers := packet.IPv4HeaderLen + tcpHeaderLen
	if info.Version == 6 {
		headers = packet.IPv6HeaderLen + tcpHeaderLen
	}
	if limit > headers {
		packet.ClampMSS(pkt, *info, uint16(limit-headers))
	}
}

const tcpHeaderLen = 20
