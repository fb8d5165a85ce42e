package userspace

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/esp"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/transport"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// association is one Child SA as the packet threads use it. Whoever has the world alone may change it; what threads change
// while others are at work is apart.
type association struct {
	child   sa.Child
	out     *esp.Outbound   // nil until InstallOut
	forks   []*esp.Outbound // of it, by thread; nil where a thread has sealed nothing yet
	sealers uint64          // the threads that seal with it, a bit each
	limit   int             // longest IP packet whose ESP fits the path
	probed  int             // longest IP packet that needs no search for the path MTU
	whole   int             // longest ESP packet that the kernel can be given as it is
	path    pathMTU
	pieces  *packet.Reassembler // of inner packets; nil before the first piece
	probing *probing            // nil before the first search
	remote  netip.AddrPort
	moved   uint64 // sequence number of the packet that moved remote last
	// reported is when IKE was told last that a mobile peer seems to be elsewhere.
	reported time.Time
	// heard counts the inbound packets that IKE knows of as signs of life, since heardAt.
	heard   uint64
	heardAt time.Time

	current   bool // carries outbound traffic
	switched  bool // has been current
	replaced  bool // another one took over
	dead      bool // reached a hard limit, or was removed
	installed time.Time
	told      [4]bool // limits that were reported, by ike.Limit
	// next and nextTime are where the first limit lies that was not reported; before that there is nothing to look at.
	next     sa.Limits
	nextTime time.Time

	// sealing is held from the first sequence number to the send call by each of several threads that share out.
	sealing sync.Mutex

	opening                    sync.Mutex // guards in and what stands in this group
	in                         *esp.Inbound
	inOctets, inPackets        uint64
	replayed, failed, mismatch uint64
	received                   time.Time

	outOctets, outPackets, discarded atomic.Uint64
	sealedAt                         atomic.Int64 // when a packet was sealed last, in nanoseconds since 1970
}

// used is when a packet last went through, or when the SA was installed.
func (a *association) used() time.Time {
	used := a.installed
	if a.received.After(used) {
		used = a.received
	}
	if sent := time.Unix(0, a.sealedAt.Load()); sent.After(used) {
		used = sent
	}
	return used
}

// sealer returns what a thread seals with, once fork has made it.
func (a *association) sealer(thread int) *esp.Outbound {
	if thread == 0 {
		return a.out
	}
	return a.forks[thread]
}

// shared reports whether several threads seal with the SA. Then each gives what it sealed to the kernel before the next one
// seals: a peer drops what is further behind than its replay window reaches (RFC 4303 3.4.3), which many keep at 32 packets,
// and a thread seals more than those for one call.
func (a *association) shared() bool { return a.sealers&(a.sealers-1) != 0 }

// fork makes what a thread seals with, unless it is there: all of them share the sequence numbers. The thread has the
// world alone.
func (l *loop) fork(a *association) error {
	if a.sealers&(1<<l.index) != 0 {
		return nil
	}
	for _, other := range l.loops { // those that seal with it already did not know that they share it
		other.flush()
	}
	if err := a.fork(l.index); err != nil {
		return err
	}
	a.sealers |= 1 << l.index
	return nil
}

func (a *association) fork(thread int) error {
	if thread == 0 || thread < len(a.forks) && a.forks[thread] != nil {
		return nil
	}
	out, err := a.out.Fork()
	if err != nil {
		return err
	}
	if thread >= len(a.forks) {
		a.forks = append(a.forks, make([]*esp.Outbound, thread+1-len(a.forks))...)
	}
	a.forks[thread] = out
	return nil
}

// sadb is the security association database of the packet thread.
type sadb struct {
	children map[sa.SPI]*association // by inbound SPI
	hosts    map[hostPair][]*association
	wide     map[string][]*association // by rule: those that cover more than two single hosts
}

// hostPair is where an SA in transport mode is found. rule is empty for those of the default response.
type hostPair struct {
	rule          string
	local, remote netip.Addr
}

func newSADB() sadb {
	return sadb{children: map[sa.SPI]*association{}, hosts: map[hostPair][]*association{}, wide: map[string][]*association{}}
}

// activate makes a the first choice for its selectors.
func (d *sadb) activate(a *association) {
	d.deactivate(a)
	a.current, a.switched = true, true
	if old, ok := d.children[a.child.ReplacesIn]; ok && old != a {
		old.replaced = true
	}
	if key, ok := hosts(a.child); ok {
		d.hosts[key] = append([]*association{a}, d.hosts[key]...)
		return
	}
	d.wide[a.child.Rule] = append([]*association{a}, d.wide[a.child.Rule]...)
}

// standsFor reports whether a carries what b was chosen for: it is b, or was made together with it for another thread.
func (a *association) standsFor(b *association) bool {
	return a == b || a.child.Bundle != 0 && a.child.Bundle == b.child.Bundle && a.current && !a.replaced
}

func (d *sadb) deactivate(a *association) {
	a.current = false
	if key, ok := hosts(a.child); ok {
		if d.hosts[key] = without(d.hosts[key], a); len(d.hosts[key]) == 0 {
			delete(d.hosts, key)
		}
		return
	}
	if d.wide[a.child.Rule] = without(d.wide[a.child.Rule], a); len(d.wide[a.child.Rule]) == 0 {
		delete(d.wide, a.child.Rule)
	}
}

func without(list []*association, a *association) []*association {
	out := make([]*association, 0, len(list))
	for _, other := range list {
		if other != a {
			out = append(out, other)
		}
	}
	return out
}

func hosts(c sa.Child) (hostPair, bool) {
	if len(c.LocalTS) != 1 || len(c.RemoteTS) != 1 || c.LocalTS[0].From != c.LocalTS[0].To || c.RemoteTS[0].From != c.RemoteTS[0].To {
		return hostPair{}, false
	}
	return hostPair{c.Rule, c.LocalTS[0].From, c.RemoteTS[0].From}, true
}

// find returns the SA of a rule that carries an outbound packet of a thread; the one that was switched to last where several
// do, or of the SAs that were made together with it (RFC 9611) the one whose packets arrive at the same thread.
func (d *sadb) find(rule string, p *spd.Packet, thread, threads int) *association {
	list := d.hosts[hostPair{rule, p.Source, p.Destination}]
	first := slices.IndexFunc(list, func(a *association) bool { return !a.dead && a.coversOut(p) })
	if first < 0 {
		list = d.wide[rule]
		first = slices.IndexFunc(list, func(a *association) bool { return !a.dead && a.coversOut(p) })
	}
	if first < 0 {
		return nil
	}
	newest := list[first]
	if threads == 1 || newest.child.Bundle == 0 {
		return newest
	}
	var together []*association
	for _, a := range list[first:] {
		if a.dead || a.replaced || a.child.Bundle != newest.child.Bundle || !a.coversOut(p) {
			continue
		}
		if transport.QueueOf(uint32(a.child.In.SPI), threads) == thread {
			return a
		}
		together = append(together, a)
	}
	if len(together) == 0 {
		return newest
	}
	return together[thread%len(together)]
}

// upcoming returns the SA of the default response that will carry an outbound packet as soon as it is switched to.
func (d *sadb) upcoming(p *spd.Packet) *association {
	for _, a := range d.children {
		if a.child.Rule == "" && a.out != nil && !a.switched && !a.dead && a.coversOut(p) {
			return a
		}
	}
	return nil
}

func (a *association) coversOut(p *spd.Packet) bool {
	return covered(a.child.LocalTS, p.Source, p.Protocol, p.SourcePort, p) &&
		covered(a.child.RemoteTS, p.Destination, p.Protocol, p.DestinationPort, p)
}

func (a *association) coversIn(p *spd.Packet) bool {
	return covered(a.child.RemoteTS, p.Source, p.Protocol, p.SourcePort, p) &&
		covered(a.child.LocalTS, p.Destination, p.Protocol, p.DestinationPort, p)
}

func covered(selectors []sa.Selector, address netip.Addr, protocol uint8, port uint16, p *spd.Packet) bool {
	for i := range selectors {
		s := &selectors[i]
		if s.From.BitLen() != address.BitLen() || address.Compare(s.From) < 0 || s.To.Compare(address) < 0 {
			continue
		}
		if s.Protocol != 0 && s.Protocol != protocol {
			continue
		}
		if s.Protocol == spd.ProtocolICMP || s.Protocol == spd.ProtocolICMPv6 {
			port = uint16(p.ICMPType)<<8 | uint16(p.ICMPCode) // RFC 7296 3.13.1
		}
		if s.PortFrom <= port && port <= s.PortTo {
			return true
		}
	}
	return false
}

// limit is one that an SA may reach.
type limit struct {
	limit  ike.Limit
	bounds sa.Limits
}

// limits are in the order in which they count.
func (a *association) limits() [2]limit {
	return [2]limit{{ike.LimitHard, a.child.Hard}, {ike.LimitSoft, a.child.Soft}}
}

// expiring returns the limit that a has reached and that was not reported yet.
func (a *association) expiring(now time.Time) (ike.Limit, bool) {
	age := now.Sub(a.installed)
	octets, packets := max(a.inOctets, a.outOctets.Load()), max(a.inPackets, a.outPackets.Load())
	for _, l := range a.limits() {
		b := l.bounds
		reached := b.Time > 0 && age >= b.Time || b.Bytes > 0 && octets >= b.Bytes || b.Packets > 0 && packets >= b.Packets
		if reached && !a.told[l.limit] {
			return l.limit, true
		}
	}
	if a.child.Idle > 0 && now.Sub(a.used()) >= a.child.Idle && !a.told[ike.LimitIdle] {
		return ike.LimitIdle, true
	}
	return 0, false
}

// never is later than any limit in time.
const never = 100 * 365 * 24 * time.Hour

// remind notes where the next limit lies.
func (a *association) remind() {
	a.next = sa.Limits{Time: never, Bytes: math.MaxUint64, Packets: math.MaxUint64}
	for _, l := range a.limits() {
		if a.told[l.limit] {
			continue
		}
		if l.bounds.Time > 0 {
			a.next.Time = min(a.next.Time, l.bounds.Time)
		}
		if l.bounds.Bytes > 0 {
			a.next.Bytes = min(a.next.Bytes, l.bounds.Bytes)
		}
		if l.bounds.Packets > 0 {
			a.next.Packets = min(a.next.Packets, l.bounds.Packets)
		}
	}
	a.nextTime = a.installed.Add(a.next.Time)
}

func (a *association) status() datapath.ChildStatus {
	c := a.child
	return datapath.ChildStatus{
		In: c.In.SPI, Out: c.Out.SPI, Rule: c.Rule, DefaultResponse: c.DefaultResponse, Peer: c.Peer, Mode: c.Mode,
		Suite: fmt.Sprint(c.Suite), Local: c.Local, Remote: a.remote, LocalTS: c.LocalTS, RemoteTS: c.RemoteTS, Installed: a.installed,
		InPackets: a.inPackets, OutPackets: a.outPackets.Load(), InOctets: a.inOctets, OutOctets: a.outOctets.Load(),
		ReplayDropped: a.replayed, AuthFailed: a.failed, SelectorMismatch: a.mismatch, Discarded: a.discarded.Load(),
		Current: a.current && !a.dead && !a.replaced, PathMTU: a.path.known, PathMTUSource: a.path.from(),
	}
}
