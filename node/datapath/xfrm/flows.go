package xfrm

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/datapath/nftable"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/datapath/waiting"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// readQueue decides about what the rules hold, until the queue is closed.
func (b *backend) readQueue() {
	for {
		packets, err := b.queue.receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			b.count(counterQueueFull)
			continue
		case errors.Is(err, unix.ENOENT):
			continue // the kernel had dropped by itself what a verdict was about
		case err != nil:
			if !b.isClosed() {
				b.cfg.Logger.Error("packets that wait for an SA cannot be read any more: they are dropped", "error", err)
			}
			return
		}
		for _, p := range packets {
			b.held(p)
		}
	}
}

func (b *backend) count(c counter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.counters[c]++
}

func (b *backend) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.closed
}

// held takes one packet that the rules hold.
func (b *backend) held(p heldPacket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return // the kernel drops it with the queue
	}
	info, err := packet.Parse(p.octets)
	if err != nil {
		b.mu.counters[counterUnparsed]++
		b.drop(p)
		return
	}
	described := info.SPD()
	if (described.Protocol == spd.ProtocolICMP || described.Protocol == spd.ProtocolICMPv6) && info.FragmentOffset == 0 && info.HeaderLen+1 < len(p.octets) {
		described.ICMPType, described.ICMPCode = p.octets[info.HeaderLen], p.octets[info.HeaderLen+1]
	}
	if p.hook == hookInput || p.queue != b.cfg.Queue {
		b.arrived(p, described)
		return
	}
	b.outbound(p, described)
}

func (b *backend) drop(p heldPacket) { b.warn("cannot drop a packet", b.queue.drop(p)) }

func (b *backend) warn(what string, err error) {
	if err != nil {
		b.cfg.Logger.Warn(what, "error", err)
	}
}

// arrived takes the first packet that came through an SA of which the outbound half is not used yet. The peer uses the SA,
// so it has installed its inbound half (RFC 7296 2.8): there is nothing to wait for.
func (b *backend) arrived(p heldPacket, described spd.Packet) {
	for _, a := range b.mu.children {
		if !a.hasOut || a.switched || a.dead || !a.coversIn(&described) {
			continue
		}
		if s, err := b.kernel.getState(a.child.Local.Addr(), a.child.In.SPI); err == nil && s.packets > 0 {
			b.warn("cannot switch to an SA that the peer uses", b.switchTo(a))
		}
	}
	b.warn("cannot deliver a packet", b.queue.accept(p, sealedMark))
}

// outbound decides about a packet for which XFRM had no SA. The policy is asked again: it may have changed since.
func (b *backend) outbound(p heldPacket, described spd.Packet) {
	if b.mu.fresh {
		b.mu.counters[counterNotReady]++
		b.drop(p)
		return
	}
	m := b.mu.set.LookupByAddress(spd.Out, described)
	if m.Filter == nil {
		b.unfiltered(p, described)
		return
	}
	if m.Action != spd.ActionNegotiate || m.Rule == nil {
		if spd.Outbound(m, spd.StateNone).Fate == spd.Pass {
			b.pass(p)
			return
		}
		b.mu.counters[counterBlocked]++
		b.drop(p)
		return
	}
	if a := b.find(m.Rule.ID, &described); a != nil {
		b.protect(p)
		return
	}
	switch v := spd.Outbound(m, b.state(m, described)); v.Fate {
	case spd.Pass:
		if v.Effect == spd.Acquire && !b.discover(m, described) {
			b.drop(p)
			return
		}
		b.pass(p)
	case spd.Hold:
		b.hold(m, described, p)
	default:
		b.mu.counters[counterBlocked]++
		b.drop(p)
	}
}

// unfiltered decides about a packet that nothing but an SA of the default response asks to protect.
func (b *backend) unfiltered(p heldPacket, described spd.Packet) {
	if b.find("", &described) != nil {
		b.protect(p)
		return
	}
	for _, a := range b.mu.children {
		if a.child.Rule == "" && a.hasOut && !a.switched && !a.dead && a.coversOut(&described) {
			// Nobody is asked for a negotiation: it has taken place.
			q := b.mu.waiting.Open(ike.Flow{
				Local: described.Source, Remote: described.Destination, LocalTS: a.child.LocalTS[0], RemoteTS: a.child.RemoteTS[0], Packet: described,
			}, time.Now())
			if q != nil {
				q.Acquired = true
			}
			b.wait(q, p)
			return
		}
	}
	b.pass(p)
}

// find returns an SA of a rule that carries an outbound packet.
func (b *backend) find(rule string, p *spd.Packet) *association {
	for _, a := range b.mu.children {
		if a.child.Rule == rule && a.switched && !a.dead && a.coversOut(p) {
			return a
		}
	}
	return nil
}

// protect lets a packet go on to the SA that XFRM has for it now. A changed mark has the kernel look again; should there be
// none after all, the mark has the rules drop it. What is forwarded is past that point, and is sent anew.
func (b *backend) protect(p heldPacket) {
	if p.hook != hookForward {
		b.warn("cannot send a packet that waited", b.queue.accept(p, protectMark))
		return
	}
	b.drop(p)
	b.warn("cannot send a packet that waited", b.forward.send(p.octets))
}

// pass lets a packet go on in clear. The caller has asked the policy.
func (b *backend) pass(p heldPacket) {
	if p.hook == hookForward {
		b.mu.counters[counterBlocked]++
		b.drop(p)
		return
	}
	b.mu.counters[counterReinjected]++
	b.warn("cannot send a packet in clear", b.queue.accept(p, reinjectMark))
}

// state is what is known about a flow without an SA.
func (b *backend) state(m spd.Match, p spd.Packet) spd.State {
	key, now := softKey{m.Rule.ID, p.Source, p.Destination}, time.Now()
	if until, ok := b.mu.soft[key]; ok && now.Before(until) {
		return spd.StateSoft
	}
	if f, err := b.flow(m, p); err == nil {
		if q := b.mu.waiting.Get(f); q != nil {
			if q.IsRefused(now) {
				return spd.StateFailed
			}
			if !b.mu.secured[key] {
				return spd.StateNegotiating
			}
		}
	}
	if b.mu.secured[key] {
		return spd.StateSecured
	}
	return spd.StateNone
}

// flow names the negotiation that a packet needs.
func (b *backend) flow(m spd.Match, p spd.Packet) (ike.Flow, error) {
	f, err := datapath.FlowOf(m, p)
	if err == nil && !f.Local.IsValid() {
		f.Local, _, err = b.routes.lookup(f.Remote)
	}
	return f, err
}

// hold keeps a packet in the kernel until its flow is decided, and asks for a negotiation once.
func (b *backend) hold(m spd.Match, described spd.Packet, p heldPacket) {
	f, err := b.flow(m, described)
	if err != nil {
		b.warn("cannot ask for a negotiation", err)
		b.mu.counters[counterQueueFull]++
		b.drop(p)
		return
	}
	q := b.mu.waiting.Open(f, time.Now())
	if q != nil {
		q.Forgive()
	}
	b.wait(q, p)
	b.ask(q)
}

func (b *backend) wait(q *waitingFlow, p heldPacket) {
	if q == nil || !b.mu.waiting.Put(q, p, time.Now()) {
		b.mu.counters[counterQueueFull]++
		b.drop(p)
	}
}

func (b *backend) ask(q *waitingFlow) {
	if q != nil && !q.Acquired {
		if q.Acquired = b.emit(ike.Acquire{Flow: q.Flow}); q.Acquired {
			b.mu.counters[counterAcquire]++
		}
	}
}

// waitingFlow is a flow with what the kernel holds of it.
type waitingFlow = waiting.Flow[heldPacket]

// resume decides again about everything that waits in the chosen flows.
func (b *backend) resume(choose func(*waitingFlow) bool) {
	var chosen []*waitingFlow
	for q := range b.mu.waiting.Flows() {
		if choose(q) {
			chosen = append(chosen, q)
		}
	}
	for _, q := range chosen {
		for _, p := range b.mu.waiting.Take(q) {
			if info, err := packet.Parse(p.octets); err == nil {
				described := info.SPD()
				described.ICMPType, described.ICMPCode = q.Packet.ICMPType, q.Packet.ICMPCode
				b.outbound(p, described)
				continue
			}
			b.drop(p)
		}
	}
}

// discover grants clear traffic while the negotiation that it starts is under way (spd.FallbackDiscover).
func (b *backend) discover(m spd.Match, p spd.Packet) bool {
	f, err := b.flow(m, p)
	if err != nil || !b.emit(ike.Acquire{Flow: f}) {
		b.warn("cannot ask for a negotiation", err)
		return false // clear traffic without a negotiation was not granted
	}
	b.mu.counters[counterAcquire]++
	key := softKey{m.Rule.ID, p.Source, p.Destination}
	for _, d := range []spd.Direction{spd.In, spd.Out} {
		if err := b.grant(key, d, softTTL(m.Rule)); err != nil {
			b.warn("cannot grant a soft association", err)
			return false
		}
	}
	b.mu.soft[key] = time.Now().Add(softTTL(m.Rule))
	return true
}

// softTTL is the life of a soft association.
func softTTL(r *spd.Rule) time.Duration {
	if ttl := r.Action.Fallback.TTL; ttl > 0 {
		return ttl
	}
	return 5 * time.Minute
}

func (b *backend) grant(key softKey, d spd.Direction, ttl time.Duration) error {
	return b.table.Add(steering.SoftSet(key.rule, d, key.local.Is6()), nftable.Pair{Local: key.local, Remote: key.remote}, ttl)
}

// forbid takes the permission of a soft association back from the kernel.
func (b *backend) forbid(key softKey) error {
	p := nftable.Pair{Local: key.local, Remote: key.remote}
	return errors.Join(
		b.table.Remove(steering.SoftSet(key.rule, spd.Out, p.Local.Is6()), p),
		b.table.Remove(steering.SoftSet(key.rule, spd.In, p.Local.Is6()), p),
	)
}

// Fallback lets the flow's packets pass in clear, in both directions, for ttl; packets that waited go first.
func (b *backend) Fallback(flow ike.Flow, ttl time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return errClosed
	}
	rule, ok := b.mu.set.Rule(flow.Rule)
	if !ok || rule.Action.Fallback.Mode == spd.FallbackNone || rule.Tunnel.IsValid() {
		return fmt.Errorf("let %s and %s talk in clear: rule %q of the policy in force does not allow it", flow.Local, flow.Remote, flow.Rule)
	}
	key := softKey{flow.Rule, flow.Local, flow.Remote}
	if b.mu.secured[key] {
		return fmt.Errorf("let %s and %s talk in clear: the flow was protected before, and rule %q never goes back", flow.Local, flow.Remote, flow.Rule)
	}
	if ttl <= 0 {
		ttl = softTTL(rule)
	}
	// Answers are accepted before the first packet leaves, and what waited leaves before the kernel lets others pass.
	err := b.grant(key, spd.In, ttl)
	if err == nil {
		b.mu.soft[key] = time.Now().Add(ttl)
		b.resume(func(q *waitingFlow) bool {
			return q.Rule == key.rule && q.Local == key.local && q.Remote == key.remote
		})
		err = b.grant(key, spd.Out, ttl)
	}
	if err != nil {
		delete(b.mu.soft, key)
		return errors.Join(err, b.forbid(key))
	}
	return nil
}

// Refuse drops the packets that wait for the flow.
func (b *backend) Refuse(flow ike.Flow) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return errClosed
	}
	if rule, ok := b.mu.set.Rule(flow.Rule); ok && rule.Action.Fallback.Mode == spd.FallbackDiscover && !rule.Tunnel.IsValid() {
		// Clear traffic was granted while the negotiation was under way: a failure is not silence.
		key := softKey{flow.Rule, flow.Local, flow.Remote}
		delete(b.mu.soft, key)
		if err := b.forbid(key); err != nil {
			return err
		}
	}
	dropped := b.mu.waiting.Refuse(flow, time.Now())
	b.mu.counters[counterRefused] += uint64(len(dropped))
	for _, p := range dropped {
		b.drop(p)
	}
	return nil
}

// forwarder sends packets of others that waited. They have been routed once; the kernel routes them again.
type forwarder struct{ v4, v6 int }

func openForwarder() (*forwarder, error) {
	f := &forwarder{-1, -1}
	var err error
	if f.v4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW); err == nil {
		f.v6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			f.v6, err = -1, nil
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the raw socket for packets of others: %w", err), f.close())
	}
	return f, nil
}

func (f *forwarder) send(octets []byte) error {
	info, err := packet.Parse(octets)
	if err != nil {
		return err
	}
	if info.Version == 4 {
		return unix.Sendto(f.v4, octets, 0, &unix.SockaddrInet4{Addr: info.Destination.As4()})
	}
	return unix.Sendto(f.v6, octets, 0, &unix.SockaddrInet6{Addr: info.Destination.As16()})
}

func (f *forwarder) close() error {
	var errs []error
	for _, fd := range []int{f.v4, f.v6} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}
