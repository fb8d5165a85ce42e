package xfrm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"

	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
)

// repairPause keeps two programs from fighting over XFRM as fast as they can.
const repairPause = 50 * time.Millisecond

// monitor hears what happens in XFRM.
type monitor struct {
	conn *netlink.Conn
	own  uint32 // port of the socket whose changes are our own
}

func openMonitor(own uint32) (*monitor, error) {
	conn, err := netlink.Dial(unix.NETLINK_XFRM, nil)
	if err != nil {
		return nil, fmt.Errorf("open the netlink socket that watches XFRM: %w", err)
	}
	m := &monitor{conn, own}
	err = conn.SetReadBuffer(queueBuffer)
	for _, group := range []uint32{groupExpire, groupSA, groupPolicy, groupMapping} {
		err = errors.Join(err, conn.JoinGroup(group))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch XFRM: %w", err), conn.Close())
	}
	return m, nil
}

func (m *monitor) close() error { return m.conn.Close() }

// readMonitor follows the events of XFRM until the monitor is closed.
func (b *backend) readMonitor() {
	for {
		messages, err := b.monitor.conn.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			if !b.isClosed() {
				b.cfg.Logger.Error("events of XFRM cannot be read any more", "error", err)
			}
			return
		}
		others := err != nil // something was lost, and may have been about us
		for _, m := range messages {
			others = b.happened(m) || others
		}
		if others {
			b.recover()
			<-time.After(repairPause)
		}
	}
}

// happened handles one event, and reports whether somebody else has deleted something.
func (b *backend) happened(m netlink.Message) (others bool) {
	switch m.Header.Type {
	case msgExpire:
		const hardAt = stateLen
		if len(m.Data) > hardAt {
			b.refresh()
		}
	case msgMapping:
		const mappingLen = 64
		if len(m.Data) < mappingLen {
			return false
		}
		family := native.Uint16(m.Data[20:])
		spi := sa.SPI(binary.BigEndian.Uint32(m.Data[16:]))
		b.mapped(spi, netip.AddrPortFrom(addressOf(m.Data[44:], family), binary.BigEndian.Uint16(m.Data[62:])))
	case msgDelSA, msgFlushSA, msgDelPolicy, msgFlushPol, msgUpdPolicy:
		return m.Header.PID != b.monitor.own
	default: // says nothing that matters here
	}
	return false
}

// recover puts back the policies that others took away, and gives up the SAs of which the kernel has no more.
func (b *backend) recover() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed || b.mu.fresh {
		return
	}
	b.cfg.Logger.Warn("policies or SAs of XFRM were changed by another program, they are restored")
	b.warn("cannot restore the policies of XFRM", b.mu.policies.restore())
	b.refreshLocked()
}

// refresh brings what is known of the SAs up to date, and reports what follows.
func (b *backend) refresh() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.mu.closed {
		b.refreshLocked()
	}
}

type stateKey struct {
	target netip.Addr
	spi    sa.SPI
}

func (b *backend) refreshLocked() {
	if len(b.mu.children) == 0 {
		return
	}
	list, err := b.kernel.states()
	if err != nil {
		b.warn("cannot read the SAs of the kernel", err)
		return
	}
	all := make(map[stateKey]state, len(list))
	for _, s := range list {
		all[stateKey{s.target, s.spi}] = s
	}
	now := time.Now()
	for _, a := range b.mu.children {
		if !a.dead {
			b.refreshOne(a, all, now)
		}
		b.checkLimits(a, now)
		if a.in.packets != a.heard && now.Sub(a.heardAt) >= heardEvery && b.emit(ike.Heard{SPI: a.child.In.SPI}) {
			a.heard, a.heardAt = a.in.packets, now
		}
	}
}

// refreshOne takes over what the kernel says of an SA. One half that is missing ends both: the kernel has ended it at a
// limit, or others have deleted it.
func (b *backend) refreshOne(a *association, all map[stateKey]state, now time.Time) {
	before := a.in.packets + a.out.packets
	in, ok := all[stateKey{a.child.Local.Addr(), a.child.In.SPI}]
	if ok {
		a.in.take(in)
	}
	if a.hasOut {
		out, there := all[stateKey{a.child.Remote.Addr(), a.child.Out.SPI}]
		if ok = ok && there; there {
			a.out.take(out)
		}
	}
	if a.in.packets+a.out.packets != before {
		a.used = now
	}
	if !ok {
		b.cfg.Logger.Warn("the kernel has ended an SA", "spi", a.child.In.SPI)
		b.kill(a)
	}
}

// heardEvery is how often IKE is told that authentic packets come: well below the silence after which it asks.
const heardEvery = 10 * time.Second

// tick is how often limits are looked at; with many SAs, whose list takes its time, less often, but every slowTick.
const (
	tick     = 250 * time.Millisecond
	slowTick = 2 * time.Second
)

// housekeep ends what has no packets to end it.
func (b *backend) housekeep() {
	wait := time.NewTimer(tick)
	defer wait.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-wait.C:
		}
		begin := time.Now()
		b.expire(begin)
		b.listen(begin)
		b.refresh()
		wait.Reset(min(max(tick, 4*time.Since(begin)), slowTick))
	}
}

func (b *backend) expire(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return
	}
	late := b.mu.waiting.Expire(now)
	b.mu.counters[counterWaitedTooLong] += uint64(len(late))
	for _, p := range late {
		b.drop(p)
	}
	for q := range b.mu.waiting.Flows() {
		if !q.IsEmpty() {
			b.ask(q) // the reader of events may have lagged behind
		}
	}
	for key, until := range b.mu.soft {
		if now.After(until) {
			delete(b.mu.soft, key)
		}
	}
}

// repair puts the rules back that others change, until the watch is closed.
func (b *backend) repair() { b.watch.Repair(b.cfg.Logger, b.restore) }

func (b *backend) restore() (restored bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed || b.mu.fresh {
		return false, nil // nothing of ours is in force any more, or yet
	}
	return true, b.table.Replace(steering.Compile(b.mu.set, b.params), true, b.entries())
}
