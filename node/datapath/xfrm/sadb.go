package xfrm

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/datapath/nftable"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// association is one Child SA, whose halves are states of the kernel.
type association struct {
	child     sa.Child
	transform transform
	reqid     uint32
	hasOut    bool
	switched  bool // carries outbound traffic, or has
	replaced  bool // another one took over
	dead      bool // reached a hard limit: the kernel has nothing of it any more
	installed time.Time
	told      [4]bool // limits that were reported, by ike.Limit
	used      time.Time
	heard     uint64 // inbound packets that IKE knows of as signs of life, since heardAt
	heardAt   time.Time
	reported  time.Time // when IKE was told last that a mobile peer seems to be elsewhere
	in, out   usage
}

// usage is what the kernel says of a half, and in base what it said of those that stood in its place before a move, of
// what does not go on with the next one.
type usage struct {
	packets, octets     uint64
	replayed, failed    uint64
	baseRepl, baseFails uint64
	offload             int // index of the device that does the work, 0 for none
}

func (u *usage) take(s state) {
	u.packets, u.octets, u.offload = s.packets, s.bytes, s.offload
	u.replayed, u.failed = u.baseRepl+uint64(s.late)+uint64(s.seen), u.baseFails+uint64(s.failed)
}

func (u *usage) rebase() {
	u.baseRepl, u.baseFails = u.replayed, u.failed
}

// backstop is how much later than the backend the kernel ends an SA by itself.
const backstop = 2 * time.Second

// half describes one half for the kernel.
func (a *association) half(inbound bool) state {
	c := &a.child
	s := state{
		spi: c.Out.SPI, source: c.Local.Addr(), target: c.Remote.Addr(), reqid: a.reqid, mode: c.Mode, encap: c.Encap,
		sport: c.Local.Port(), dport: c.Remote.Port(), esn: c.Suite.ESN, replay: replay{window: max(c.ReplayWindow, 32)},
		transform: a.transform, key: c.Out, set: ownMark, soft: c.Soft, hard: c.Hard,
	}
	s.soft.Time = 0 // the backend's own clock is finer
	if s.hard.Time > 0 {
		s.hard.Time += backstop
	}
	if !inbound {
		return s
	}
	s.spi, s.key, s.set = c.In.SPI, c.In, sealedMark
	s.source, s.target, s.sport, s.dport = s.target, s.source, s.dport, s.sport
	if a.hasOut && !a.switched {
		s.set = freshMark
	}
	s.selector, _ = hull(c.RemoteTS, c.LocalTS)
	return s
}

// verify reads back what the kernel has made of an SA.
func (b *backend) verify(want state) error {
	got, err := b.kernel.getState(want.target, want.spi)
	if err != nil {
		return err
	}
	return want.same(got)
}

// same reports what an SA of the kernel has otherwise than was asked for.
func (s *state) same(got state) error {
	var errs []error
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"extended sequence numbers", got.esn, s.esn},
		{"replay window", got.replay.window, s.replay.window},
		{"last sequence number sent", got.replay.out, s.replay.out},
		{"mode", got.mode, s.mode},
		{"encapsulation in UDP", got.encap, s.encap},
		{"algorithms", got.transform, s.transform},
		{"selector", got.selector, s.selector},
		{"mark", got.set, s.set},
		{"request", got.reqid, s.reqid},
		{"source", got.source, s.source},
	} {
		if c.got != c.want {
			errs = append(errs, fmt.Errorf("SA %s to %s: the kernel installed %s %v, want %v", s.spi, s.target, c.what, c.got, c.want))
		}
	}
	// Packets may have come since.
	if got.replay.in < s.replay.in {
		errs = append(errs, fmt.Errorf("SA %s to %s: the kernel has %d as the highest sequence number received, want %d at least", s.spi, s.target, got.replay.in, s.replay.in))
	}
	return errors.Join(errs...)
}

// install puts a half into the kernel and verifies it; after an error it is not there.
func (b *backend) install(s state, a *association) error {
	if err := b.place(s, a); err != nil {
		return err
	}
	if err := b.verify(s); err != nil {
		return errors.Join(err, b.kernel.deleteState(s.target, s.spi))
	}
	return nil
}

// InstallIn makes the inbound half usable before it returns.
func (b *backend) InstallIn(child sa.Child) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	fail := func(err error) error { return fmt.Errorf("install inbound SA %s: %w", child.In.SPI, err) }
	switch {
	case b.mu.closed:
		return errClosed
	case child.In.SPI < 256 || child.Out.SPI < 256:
		return fail(errors.New("the SPI is reserved (RFC 4303 2.1)"))
	case b.mu.children[child.In.SPI] != nil:
		return fail(errors.New("the SPI is in use"))
	case child.Local.Addr().Is4() != child.Remote.Addr().Is4():
		return fail(fmt.Errorf("%s and %s are not of one family", child.Local, child.Remote))
	}
	t, err := transformOf(child.Suite)
	if err == nil {
		err = errors.Join(t.check(child.In), t.check(child.Out))
	}
	if err != nil {
		return fail(err)
	}
	if rule, ok := b.mu.set.Rule(child.Rule); ok && rule.Tunnel.IsValid() != (child.Mode == sa.Tunnel) {
		return fail(fmt.Errorf("%s mode is not what rule %q wants", child.Mode, child.Rule))
	}
	now := time.Now()
	a := &association{child: child, transform: t, reqid: b.reqid(child.Rule), installed: now, used: now}
	if err := b.install(a.half(true), a); err != nil {
		return fail(err)
	}
	b.mu.children[child.In.SPI] = a
	return nil
}

// InstallOut makes the outbound half known without using it. What comes through the inbound half is held from now on,
// until the outbound one is used.
func (b *backend) InstallOut(child sa.Child) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.mu.children[child.In.SPI]
	fail := func(err error) error { return fmt.Errorf("install outbound SA %s: %w", child.Out.SPI, err) }
	switch {
	case b.mu.closed:
		return errClosed
	case a == nil:
		return fail(fmt.Errorf("its inbound SA %s is not installed", child.In.SPI))
	case a.hasOut:
		return fail(errors.New("it is installed already"))
	}
	if err := a.transform.check(child.Out); err != nil {
		return fail(err)
	}
	a.child.Out = child.Out
	if err := b.install(a.half(false), a); err != nil {
		return fail(err)
	}
	a.hasOut = true
	b.mu.counters[counterKeyAdditions]++
	if a.child.ReplacesIn != 0 {
		b.mu.counters[counterRekeys]++
	}
	if err := b.steer(a.child); err != nil {
		return fail(err)
	}
	if err := b.kernel.addState(a.half(true), true); err != nil {
		return fail(err)
	}
	return nil
}

// steer has the rules hold the traffic of an SA that no filter asks for, unless XFRM has it go through one.
func (b *backend) steer(child sa.Child) error {
	if _, known := b.mu.owner[child.In.SPI]; known || child.Rule != "" {
		return nil
	}
	entries, err := nftable.DynamicOf(child.LocalTS, child.RemoteTS)
	if err != nil {
		return err
	}
	b.mu.owner[child.In.SPI] = entries
	for _, e := range entries {
		if b.mu.dynamic[e]++; b.mu.dynamic[e] == 1 {
			if err := b.table.AddDynamic(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// SwitchOut sends the traffic of the child's selectors through it from now on, packets that waited first.
func (b *backend) SwitchOut(child sa.Child) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return errClosed
	}
	a := b.mu.children[child.In.SPI]
	if a == nil || !a.hasOut {
		return fmt.Errorf("switch to the SA with inbound SPI %s: its outbound half is not installed", child.In.SPI)
	}
	return b.switchTo(a)
}

func (b *backend) switchTo(a *association) error {
	if a.dead {
		return fmt.Errorf("switch to the SA with inbound SPI %s: it is beyond its hard limit", a.child.In.SPI)
	}
	first := !a.switched
	a.switched = true
	if old := b.mu.children[a.child.ReplacesIn]; old != nil && old != a {
		old.replaced = true
	}
	if err := b.mu.policies.propose(a.child.In.SPI, outbound(b.mu.set, a.child, a.reqid)); err != nil {
		return err
	}
	var errs []error
	if first {
		errs = append(errs, b.kernel.addState(a.half(true), true))
	}
	errs = append(errs, b.endSoft(a.child))
	b.resume(func(q *waitingFlow) bool { return a.serves(q) })
	return errors.Join(errs...)
}

// endSoft takes the grant of clear traffic back from a flow that has an SA now.
func (b *backend) endSoft(child sa.Child) error {
	rule, known := b.mu.set.Rule(child.Rule)
	local, remote, single := hosts(child)
	if !single || !known || rule.Action.Fallback.Mode == spd.FallbackNone || rule.Tunnel.IsValid() {
		return nil
	}
	key := softKey{child.Rule, local, remote}
	delete(b.mu.soft, key)
	var err error
	if rule.Action.Fallback.Mode == spd.FallbackDiscover {
		b.mu.secured[key] = true
		err = b.table.Add(steering.SecuredSet(rule.ID, local.Is6()), nftable.Pair{Local: local, Remote: remote}, 0)
	}
	return errors.Join(err, b.forbid(key))
}

func hosts(c sa.Child) (local, remote netip.Addr, ok bool) {
	if len(c.LocalTS) != 1 || len(c.RemoteTS) != 1 || c.LocalTS[0].From != c.LocalTS[0].To || c.RemoteTS[0].From != c.RemoteTS[0].To {
		return local, remote, false
	}
	return c.LocalTS[0].From, c.RemoteTS[0].From, true
}

// Remove deletes the Child SA with this inbound SPI; unknown SPIs are no error.
func (b *backend) Remove(in sa.SPI) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return errClosed
	}
	a := b.mu.children[in]
	if a == nil {
		return nil
	}
	delete(b.mu.children, in)
	b.mu.counters[counterKeyDeletions]++
	errs := []error{b.forget(a)}
	for _, e := range b.mu.owner[in] {
		if b.mu.dynamic[e]--; b.mu.dynamic[e] == 0 {
			delete(b.mu.dynamic, e)
			errs = append(errs, b.table.RemoveDynamic(e))
		}
	}
	delete(b.mu.owner, in)
	if !a.switched {
		// What waited for this one, since IKE saw it coming, would wait in vain: it asks again.
		b.resume(func(q *waitingFlow) bool { return a.serves(q) })
	}
	return errors.Join(errs...)
}

// forget takes an SA out of the kernel: first the policies that use it.
func (b *backend) forget(a *association) error {
	errs := []error{b.mu.policies.propose(a.child.In.SPI, nil)}
	if a.dead {
		return errors.Join(errs...)
	}
	if a.hasOut {
		errs = append(errs, b.kernel.deleteState(a.child.Remote.Addr(), a.child.Out.SPI))
	}
	return errors.Join(append(errs, b.kernel.deleteState(a.child.Local.Addr(), a.child.In.SPI))...)
}

// kill ends an SA that is beyond its hard limit, or that others have deleted. What it protected is held from now on.
func (b *backend) kill(a *association) {
	if err := b.forget(a); err != nil {
		b.cfg.Logger.Error("SA beyond its limit cannot be deleted", "spi", a.child.In.SPI, "error", err)
	}
	a.dead = true
}

// serves reports whether a flow may have waited for this SA.
func (a *association) serves(q *waitingFlow) bool {
	return q.Rule == a.child.Rule && a.coversOut(&q.Packet)
}

func (a *association) coversOut(p *spd.Packet) bool {
	return covered(a.child.LocalTS, p.Source, p.SourcePort, p) && covered(a.child.RemoteTS, p.Destination, p.DestinationPort, p)
}

func (a *association) coversIn(p *spd.Packet) bool {
	return covered(a.child.RemoteTS, p.Source, p.SourcePort, p) && covered(a.child.LocalTS, p.Destination, p.DestinationPort, p)
}

func covered(list []sa.Selector, address netip.Addr, port uint16, p *spd.Packet) bool {
	for i := range list {
		s := &list[i]
		if s.From.BitLen() != address.BitLen() || address.Compare(s.From) < 0 || s.To.Compare(address) < 0 ||
			s.Protocol != 0 && s.Protocol != p.Protocol {
			continue
		}
		if icmp(*s) || s.PortFrom <= port && port <= s.PortTo {
			return true
		}
	}
	return false
}

// checkLimits reports the limits that an SA reached; beyond a hard one it carries nothing any more (RFC 4301 4.4.2.1).
func (b *backend) checkLimits(a *association, now time.Time) {
	for _, l := range []struct {
		limit  ike.Limit
		bounds sa.Limits
	}{{ike.LimitHard, a.child.Hard}, {ike.LimitSoft, a.child.Soft}, {ike.LimitIdle, sa.Limits{}}} {
		if a.told[l.limit] || !a.reached(l.limit, l.bounds, now) {
			continue
		}
		if l.limit == ike.LimitHard && !a.dead {
			b.kill(a)
		}
		a.told[l.limit] = b.emit(ike.ChildExpiring{SPI: a.child.In.SPI, Limit: l.limit}) // else the next time
	}
}

func (a *association) reached(l ike.Limit, bounds sa.Limits, now time.Time) bool {
	if l == ike.LimitIdle {
		return a.child.Idle > 0 && now.Sub(a.used) >= a.child.Idle
	}
	octets, packets := max(a.in.octets, a.out.octets), max(a.in.packets, a.out.packets)
	return l == ike.LimitHard && a.dead || bounds.Time > 0 && now.Sub(a.installed) >= bounds.Time ||
		bounds.Bytes > 0 && octets >= bounds.Bytes || bounds.Packets > 0 && packets >= bounds.Packets
}
