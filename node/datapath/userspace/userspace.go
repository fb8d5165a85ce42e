// Package userspace is the datapath that encrypts in this process: nftables and policy routing steer what the policy
// wants protected into a TUN device, one locked thread for each of its queues moves it through ESP, both ways.
//
// Its invariant: what the policy wants protected leaves the machine through an SA or not at all. The kernel's tables
// outlive the process and drop what it does not carry; the process looks every packet up again before it lets one go in
// clear. What cannot be steered, the packets of sockets bound to a device and those to IPv6 link-local peers, is dropped
// where the policy wants security. It leaves the semantics to policies/spd, the rules to its package steering, ESP to node/esp and sockets to
// node/transport.
package userspace

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/datapath/nftable"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/esp"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/transport"
	"github.com/bailiwick-net/bailiwick/node/tun"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// tunMTU is the greatest there is: the packet thread knows the path of each SA and answers for it, and a datagram in
// transport mode must reach it before it is fragmented.
const tunMTU = 65520

// gsoMaxSize is that of other devices. A sender forms its super-packets for the device of its own route, before the mark
// reroutes them, and the kernel would cut those that are longer into single packets.
const gsoMaxSize = 65536

// eventQueue bounds the events that nobody has read yet.
const eventQueue = 4096

// backend is the shell around the packet threads: it makes keys and kernel objects, which are slow, and hands the threads
// what is ready.
type backend struct {
	cfg     Config
	device  *tun.Device
	table   *nftable.Table
	routing *routing
	clear   *rawSockets
	whole   *rawSockets
	world   *world
	params  steering.Params

	home      namespace
	watch     *nftable.Watch
	repaired  chan struct{} // closed when the goroutine of repair has ended
	recovered chan struct{} // closed when the goroutine of recoverTUN has ended
	routers   *routers
	listened  chan struct{} // closed when the goroutine of listen has ended
	lost      *routingWatch
	kept      chan struct{} // closed when the goroutine of keepRouting has ended

	// mu orders the calls of the datapath.Backend interface.
	mu struct {
		sync.Mutex
		closed  bool
		fresh   bool // no policy was set yet: what an earlier process left is to be replaced
		notes   []string
		set     spd.Set
		dynamic map[nftable.Dynamic]int // entries of the dynamic sets, with the number of SAs
		owner   map[sa.SPI][]nftable.Dynamic
		last    map[string]uint64 // counters of the thread after it ended
	}
}

var _ datapath.Backend = (*backend)(nil)

// do has a packet thread run a command, and waits for it.
func (b *backend) do(c command) error { return b.world.loops[0].do(c) }

// do has the thread run a command, and waits for it.
func (l *loop) do(c command) error {
	r := request{command: c, answer: make(chan error, 1)}
	select {
	case l.requests <- r:
	case <-l.stopped:
		return errClosed
	}
	l.wake()
	select {
	case err := <-r.answer:
		return err
	case <-l.stopped:
	}
	select {
	case err := <-r.answer: // it was the last command
		return err
	default:
		return errClosed
	}
}

// wake has the thread look at its commands, also where it exchanges its poller at this moment.
func (l *loop) wake() {
	for woken := (*transport.Poller)(nil); woken != l.poller.Load(); {
		woken = l.poller.Load()
		woken.Wake()
	}
}

// SetPolicy puts a policy into force. The packet threads obey the stricter of the old and the new one until the kernel
// has taken the new one.
func (b *backend) SetPolicy(ctx context.Context, set spd.Set) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return errClosed
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("set policy %q: %w", set.Name(), err)
	}
	if err := b.do(prepare{set}); err != nil {
		return fmt.Errorf("set policy %q: %w", set.Name(), err)
	}
	if err := b.table.Replace(steering.Compile(set, b.params), b.mu.fresh, nil); err != nil {
		return errors.Join(fmt.Errorf("set policy %q: %w", set.Name(), err), b.do(abort{}))
	}
	b.mu.fresh = false
	b.mu.set = set
	if err := b.do(commit{}); err != nil {
		return fmt.Errorf("set policy %q: %w", set.Name(), err)
	}
	return nil
}

// InstallIn makes the inbound half usable before it returns.
func (b *backend) InstallIn(child sa.Child) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return errClosed
	}
	if child.In.SPI < 256 {
		return fmt.Errorf("install inbound SA %s: the SPI is reserved (RFC 4303 2.1)", child.In.SPI)
	}
	in, err := esp.NewInbound(child)
	if err != nil {
		return fmt.Errorf("install inbound SA %s: %w", child.In.SPI, err)
	}
	if err := b.do(installIn{child: child, in: in, mtu: b.mtu(child.In.SPI, child.Local.Addr(), child.Remote.Addr())}); err != nil {
		return err
	}
	return nil
}

// InstallOut makes the outbound half known without using it. Where no filter asks for the SA, its traffic is steered into
// the TUN from now on and waits there: the peer may use the SA as soon as it hears of it, and no answer to it may leave
// in clear.
func (b *backend) InstallOut(child sa.Child) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return errClosed
	}
	out, err := esp.NewOutbound(child)
	if err != nil {
		return fmt.Errorf("install outbound SA %s: %w", child.Out.SPI, err)
	}
	if err := b.do(installOut{spi: child.In.SPI, out: out}); err != nil {
		return err
	}
	return b.steer(child)
}

// steer sends the traffic of an SA that no filter asks for into the TUN.
func (b *backend) steer(child sa.Child) error {
	if _, known := b.mu.owner[child.In.SPI]; known || child.Rule != "" {
		return nil
	}
	entries, err := nftable.DynamicOf(child.LocalTS, child.RemoteTS)
	if err != nil {
		return fmt.Errorf("install outbound SA %s: %w", child.Out.SPI, err)
	}
	b.mu.owner[child.In.SPI] = entries
	for _, e := range entries {
		if b.mu.dynamic[e]++; b.mu.dynamic[e] == 1 {
			if err := b.table.AddDynamic(e); err != nil {
				return fmt.Errorf("install outbound SA %s: %w", child.Out.SPI, err)
			}
		}
	}
	return nil
}

// mtu returns the MTU of the device that an SA sends by.
func (b *backend) mtu(in sa.SPI, local, remote netip.Addr) int {
	mtu, err := b.routing.mtu(local, remote)
	if err != nil {
		mtu = 1280 // every IPv6 path has it (RFC 8200 5), and every IPv4 path that matters
		b.cfg.Logger.Warn("cannot tell the MTU for an SA", "spi", in, "mtu", mtu, "error", err)
	}
	return min(mtu, 65535)
}

// SwitchOut sends the traffic of the child's selectors through it from now on, packets that waited first.
func (b *backend) SwitchOut(child sa.Child) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return errClosed
	}
	if err := b.do(switchOut{child.In.SPI}); err != nil {
		return err
	}
	return b.endSoft(child)
}

// endSoft takes the grant of clear traffic back from a flow that has an SA now.
func (b *backend) endSoft(child sa.Child) error {
	key, ok := hosts(child)
	rule, known := b.mu.set.Rule(child.Rule)
	if !ok || !known || rule.Action.Fallback.Mode == spd.FallbackNone || rule.Tunnel.IsValid() {
		return nil
	}
	p := nftable.Pair{Local: key.local, Remote: key.remote}
	if rule.Action.Fallback.Mode == spd.FallbackDiscover {
		if err := b.table.Add(steering.SecuredSet(rule.ID, p.Local.Is6()), p, 0); err != nil {
			return err
		}
	}
	return b.forbid(softKey(key))
}

// forbid takes the permission of a soft association back from the kernel.
func (b *backend) forbid(key softKey) error {
	p := nftable.Pair{Local: key.local, Remote: key.remote}
	return errors.Join(
		b.table.Remove(steering.SoftSet(key.rule, spd.Out, p.Local.Is6()), p),
		b.table.Remove(steering.SoftSet(key.rule, spd.In, p.Local.Is6()), p),
	)
}

// Remove deletes the Child SA with this inbound SPI; unknown SPIs are no error.
func (b *backend) Remove(in sa.SPI) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return errClosed
	}
	if err := b.do(remove{in}); err != nil {
		return err
	}
	var errs []error
	for _, e := range b.mu.owner[in] {
		if b.mu.dynamic[e]--; b.mu.dynamic[e] == 0 {
			delete(b.mu.dynamic, e)
			errs = append(errs, b.table.RemoveDynamic(e))
		}
	}
	delete(b.mu.owner, in)
	return errors.Join(errs...)
}

// softTTL is the life of a soft association.
func softTTL(r *spd.Rule) time.Duration {
	if ttl := r.Action.Fallback.TTL; ttl > 0 {
		return ttl
	}
	return 5 * time.Minute
}

// Fallback lets the flow's packets pass in clear, in both directions, for ttl; packets that waited go first. Only a
// rule that allows it can be fallen back from.
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
	if ttl <= 0 {
		ttl = softTTL(rule)
	}
	key := softKey{flow.Rule, flow.Local, flow.Remote}
	// Answers are accepted before the first packet leaves, and what waited leaves before the kernel lets others pass.
	p := nftable.Pair{Local: key.local, Remote: key.remote}
	err := b.table.Add(steering.SoftSet(key.rule, spd.In, p.Local.Is6()), p, ttl)
	if err == nil {
		err = b.do(fallback{key, time.Now().Add(ttl)})
	}
	if err == nil {
		err = b.table.Add(steering.SoftSet(key.rule, spd.Out, p.Local.Is6()), p, ttl)
	}
	if err != nil {
		return errors.Join(err, b.do(endFallback{key}), b.forbid(key))
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
	rule, ok := b.mu.set.Rule(flow.Rule)
	if ok && rule.Action.Fallback.Mode == spd.FallbackDiscover && !rule.Tunnel.IsValid() {
		// Clear traffic was granted while the negotiation was under way: a failure is not silence.
		key := softKey{flow.Rule, flow.Local, flow.Remote}
		if err := errors.Join(b.do(endFallback{key}), b.forbid(key)); err != nil {
			return err
		}
	}
	return b.do(refuse{flow})
}

// Events delivers what the packets bring up.
func (b *backend) Events() <-chan ike.Event { return b.world.events }

// Status reports SAs, soft associations and counters. The counters are those of package userspace, see counters.go,
// and with "nft/" before their name those of the rules, see package steering.
func (b *backend) Status() datapath.Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := datapath.Status{Backend: "userspace", Notes: append([]string(nil), b.mu.notes...), Counters: map[string]uint64{}}
	if b.mu.closed {
		maps.Copy(s.Counters, b.mu.last)
		return s
	}

	s.Notes = append(s.Notes, b.missing()...)
	if err := b.do(status{&s}); err != nil {
		s.Notes = append(s.Notes, err.Error())
	}
	for name, n := range b.table.Counters() {
		s.Counters["nft/"+name] = n
	}
	return s
}

// Close ends the backend. What the policy wants protected stays blocked in the kernel unless release is true.
func (b *backend) Close(release bool) error {
	err := b.close(release)
	<-b.repaired
	<-b.recovered
	<-b.listened
	<-b.kept
	return err
}

func (b *backend) close(release bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return nil
	}
	last := datapath.Status{Counters: map[string]uint64{}}
	err := b.do(status{&last})
	for _, l := range b.world.loops {
		err = errors.Join(err, l.do(stop{}))
		<-l.stopped
	}
	b.mu.closed = true
	b.mu.last = last.Counters
	close(b.world.events)
	close(b.world.gone)
	if release {
		// The table first: without it nothing is marked any more.
		err = errors.Join(err, b.table.Release(), b.routing.release())
	}
	for _, l := range b.world.loops {
		err = errors.Join(err, l.poller.Load().Close())
	}
	return errors.Join(err, b.closeKernel())
}

// closeKernel closes what New opened.
func (b *backend) closeKernel() error {
	var errs []error
	if b.home.file != nil {
		errs = append(errs, b.home.file.Close())
	}
	if b.device != nil {
		errs = append(errs, b.device.Close())
	}
	if b.watch != nil {
		errs = append(errs, b.watch.Close())
	}
	if b.lost != nil {
		errs = append(errs, b.lost.conn.Close())
	}
	if b.routers != nil {
		errs = append(errs, b.routers.close())
	}
	for _, s := range []*rawSockets{b.clear, b.whole} {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	if b.routing != nil {
		errs = append(errs, b.routing.close())
	}
	if b.table != nil {
		errs = append(errs, b.table.Close())
	}
	return errors.Join(errs...)
}
