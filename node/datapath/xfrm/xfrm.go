// Package xfrm is the datapath that leaves ESP to the kernel: nftables decides what passes, what is dropped and what is to
// be protected, XFRM knows for which packets there is an SA, and seals and opens them.
//
// Its invariant: what the policy wants protected leaves the machine through an SA or not at all. The rules that hold a
// packet for which XFRM has no SA are the kernel's and outlive the process, whose queue they hold it in: without a process
// it is dropped. XFRM itself is never asked to let anything pass: its policies, in the order of the filters' weights, only
// say which SAs a packet may use. It leaves the semantics to policies/spd, the rules to userspace/steering and nftable,
// negotiation to node/ike.
//
// XFRM could ask for an SA by itself (acquire). It is not asked to: it would hold one packet of a flow, drop those that
// come meanwhile, and name neither the rule nor the packet. What has no SA waits in a queue of netfilter.
//
// What the kernel does otherwise than the userspace backend: packets of an SA with several pairs of traffic selectors are
// held to the prefixes around them, and to the filters of its rule.
package xfrm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/datapath/nftable"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/datapath/waiting"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// The marks beside those of the userspace backend. Its own marks for the TUN may have policy routing of an earlier process,
// and are not used. What came out of an SA has one of the last two, which differ in one bit.
const (
	markProtect uint32 = 0x00b70000
	markOpened  uint32 = 0x00b80000
	markFresh   uint32 = 0x00ba0000
)

var (
	ownMark      = mark{userspace.MarkOwn, userspace.MarkMask}
	protectMark  = mark{markProtect, userspace.MarkMask}
	reinjectMark = mark{userspace.MarkReinject, userspace.MarkMask}
	freshMark    = mark{markFresh, userspace.MarkMask}
	sealedMark   = mark{markOpened, userspace.MarkMask}
	openedMark   = mark{markOpened, userspace.MarkMask &^ (markOpened ^ markFresh)}
)

// DefaultQueue is the first of the two packet queues of netfilter that the backend uses.
const DefaultQueue = 29803

// firstReqid is the first of the numbers that join our policies to our SAs; each rule has one.
const firstReqid = 0x42570000

// eventQueue bounds the events that nobody has read yet.
const eventQueue = 4096

// Config describes a backend; the zero value of every field means its default. The sockets of IKE have to be open, in the
// namespace that New is called in, with the mark userspace.MarkOwn and transport.Config.KernelESP.
type Config struct {
	NFTable string // name of the nftables table, family inet
	// Owner is the socket that the nftables table belongs to (nftable.NewOwner), for whoever holds it beyond the life of this
	// process; nil for a socket of the backend's own.
	Owner  *os.File
	Queue  uint16 // the first of two packet queues
	Logger hclog.Logger
	Limits waiting.Limits
	// Offload asks for hardware that seals and opens, where a network device has it; Status tells what became of that.
	Offload bool
}

func (c Config) withDefaults() Config {
	if c.NFTable == "" {
		c.NFTable = userspace.DefaultNFTable
	}
	if c.Queue == 0 {
		c.Queue = DefaultQueue
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return c
}

// backend holds what it has asked the kernel for. Every method and every goroutine works under mu.
type backend struct {
	cfg     Config
	params  steering.Params
	kernel  *kernel
	table   *nftable.Table
	watch   *nftable.Watch
	queue   *packetQueue
	monitor *monitor
	errors  *errorCounters
	tap     *tap
	forward *forwarder
	routes  *routes
	events  chan ike.Event
	stop    chan struct{}
	running sync.WaitGroup

	mu struct {
		sync.Mutex
		closed   bool
		fresh    bool // no policy was set yet: what an earlier process left is to be replaced
		set      spd.Set
		policies *policies
		children map[sa.SPI]*association
		waiting  *waiting.Room[heldPacket]
		soft     map[softKey]time.Time
		secured  map[softKey]bool
		reqids   map[string]uint32
		dynamic  map[nftable.Dynamic]int
		owner    map[sa.SPI][]nftable.Dynamic
		counters [counters]uint64
		last     datapath.Status // after close
		offloads offloads
		notes    []string
	}
}

var _ datapath.Backend = (*backend)(nil)

// softKey names a soft association.
type softKey struct {
	rule          string
	local, remote netip.Addr
}

var errClosed = errors.New("kernel datapath is closed")

// New starts the backend in the network namespace of the calling thread. It takes over the nftables table that an earlier
// process left and removes that one's SAs, of which nobody knows any more. It enforces nothing new until SetPolicy.
func New(cfg Config) (datapath.Backend, error) {
	b := &backend{cfg: cfg.withDefaults(), events: make(chan ike.Event, eventQueue), stop: make(chan struct{})}
	b.params = steering.Params{
		Mask: userspace.MarkMask, Protect: markProtect, Own: userspace.MarkOwn, Reinject: userspace.MarkReinject,
		Tunnel: markOpened, Fresh: markFresh, Forward: userspace.MarkForward, Kernel: true, Queue: b.cfg.Queue,
	}
	b.mu.fresh = true
	b.mu.children, b.mu.soft, b.mu.secured = map[sa.SPI]*association{}, map[softKey]time.Time{}, map[softKey]bool{}
	b.mu.reqids, b.mu.dynamic, b.mu.owner = map[string]uint32{}, map[nftable.Dynamic]int{}, map[sa.SPI][]nftable.Dynamic{}
	b.mu.waiting = waiting.New(b.cfg.Limits, func(p heldPacket) int { return len(p.octets) }, func(p heldPacket) heldPacket { return p })
	if err := b.open(); err != nil {
		return nil, errors.Join(err, b.closeKernel())
	}
	for _, run := range []func(){b.watch.Run, b.repair, b.readQueue, b.readMonitor, b.housekeep} {
		b.running.Go(run)
	}
	return b, nil
}

func (b *backend) open() (err error) {
	if b.kernel, err = openKernel(); err != nil {
		return err
	}
	if err = b.kernel.probe(); err != nil {
		return err
	}
	if b.table, err = nftable.Open(b.cfg.NFTable, b.cfg.Owner); err != nil {
		return err
	}
	if !b.table.Takes(steering.HookOutput, steering.Rule{
		Matches: []steering.Match{steering.Secured{Not: true}, steering.Opened{}}, Verdict: steering.Queue, Number: b.cfg.Queue,
	}) {
		return errors.New("the kernel's nftables cannot hold packets for IPsec (NFT_QUEUE, XFRM)")
	}
	b.params.Conntrack = !b.table.Reassembles()
	if b.params.Conntrack {
		b.mu.notes = append(b.mu.notes, "The kernel has no nft_tproxy: connection tracking reassembles fragments, for all traffic of the machine.")
	}
	if note := b.table.Note(); note != "" {
		b.mu.notes = append(b.mu.notes, note)
	}
	if b.watch, err = b.table.Watch(); err != nil {
		return err
	}
	if b.monitor, err = openMonitor(b.kernel.port); err != nil {
		return err
	}
	if b.errors, err = openErrorCounters(); err != nil {
		return err
	}
	if b.errors.file == nil {
		b.mu.notes = append(b.mu.notes, "The kernel does not count what IPsec drops (CONFIG_XFRM_STATISTICS): peers that send to SAs of before a restart are not told.")
	}
	if b.tap, err = openTap(); err != nil {
		return err
	}
	if b.forward, err = openForwarder(); err != nil {
		return err
	}
	if b.routes, err = openRoutes(); err != nil {
		return err
	}
	if b.queue, err = openQueue(b.cfg.Queue); err != nil {
		return err
	}
	b.mu.policies = newPolicies(b.kernel)
	return b.kernel.sweep()
}

// Sweep removes SAs and policies that an earlier process has left, in the network namespace of the calling thread. What
// had an SA is held, or dropped, by the rules that it left as well.
func Sweep() error {
	k, err := openKernel()
	if err != nil {
		return err
	}
	return errors.Join(k.sweep(), k.close())
}

func (k *kernel) sweep() error {
	left, err := k.states()
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range left {
		if s.set.mask == userspace.MarkMask && slices.Contains([]uint32{userspace.MarkOwn, markOpened, markFresh}, s.set.value) {
			errs = append(errs, k.deleteState(s.target, s.spi))
		}
	}
	keys, err := k.ownPolicies()
	errs = append(errs, err)
	for _, key := range keys {
		errs = append(errs, k.deletePolicy(key))
	}
	return errors.Join(errs...)
}

// reqid is the number that joins the SAs of a rule to its policies.
func (b *backend) reqid(rule string) uint32 {
	if n, ok := b.mu.reqids[rule]; ok {
		return n
	}
	n := firstReqid + uint32(len(b.mu.reqids))
	b.mu.reqids[rule] = n
	return n
}

// SetPolicy puts a policy into force. The rules decide, and change in one transaction; which SAs a packet may use follows.
func (b *backend) SetPolicy(ctx context.Context, set spd.Set) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return errClosed
	}
	err := ctx.Err()
	if err == nil {
		err = b.enforce(set)
	}
	if err != nil {
		return fmt.Errorf("set policy %q: %w", set.Name(), err)
	}
	b.mu.fresh, b.mu.set = false, set
	for key := range b.mu.soft {
		if r, ok := set.Rule(key.rule); !ok || r.Action.Fallback.Mode == spd.FallbackNone {
			delete(b.mu.soft, key)
		}
	}
	for key := range b.mu.secured {
		if r, ok := set.Rule(key.rule); !ok || r.Action.Fallback.Mode != spd.FallbackDiscover {
			delete(b.mu.secured, key)
		}
	}
	// What waits for a negotiation that the new policy still wants goes on waiting.
	b.resume(func(q *waitingFlow) bool {
		flow, err := b.flow(set.LookupByAddress(spd.Out, q.Packet), q.Packet)
		return err != nil || waiting.Key(flow) != waiting.Key(q.Flow)
	})
	return nil
}

// enforce brings the kernel to a policy, or back to the one in force.
func (b *backend) enforce(set spd.Set) error {
	static, err := compile(set, b.reqid)
	if err != nil {
		return err
	}
	if err := b.table.Replace(steering.Compile(set, b.params), b.mu.fresh, nil); err != nil {
		return err
	}
	err = b.proposeAll(set, static)
	if err == nil || b.mu.fresh {
		return err
	}
	former, back := compile(b.mu.set, b.reqid)
	if back == nil {
		back = errors.Join(b.table.Replace(steering.Compile(b.mu.set, b.params), false, b.entries()), b.proposeAll(b.mu.set, former))
	}
	return errors.Join(err, back)
}

func (b *backend) proposeAll(set spd.Set, static []policy) error {
	errs := []error{b.mu.policies.propose(0, static)}
	for spi, a := range b.mu.children {
		if a.switched && !a.dead {
			errs = append(errs, b.mu.policies.propose(spi, outbound(set, a.child, a.reqid)))
		}
	}
	return errors.Join(errs...)
}

// entries are the elements that the sets of the rules hold.
func (b *backend) entries() []nftable.Entry {
	var out []nftable.Entry
	for d := range b.mu.dynamic {
		out = append(out, d.Entry())
	}
	for key := range b.mu.secured {
		out = append(out, nftable.Pair{Local: key.local, Remote: key.remote}.In(steering.SecuredSet(key.rule, key.local.Is6()), 0))
	}
	for key, until := range b.mu.soft {
		if left := time.Until(until); left > 0 {
			for _, d := range []spd.Direction{spd.In, spd.Out} {
				out = append(out, nftable.Pair{Local: key.local, Remote: key.remote}.In(steering.SoftSet(key.rule, d, key.local.Is6()), left))
			}
		}
	}
	return out
}

// Events delivers what the packets bring up.
func (b *backend) Events() <-chan ike.Event { return b.events }

// Close ends the backend. What the policy wants protected stays blocked in the kernel unless release is true.
func (b *backend) Close(release bool) error {
	err := b.close(release)
	b.running.Wait()
	return err
}

func (b *backend) close(release bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return nil
	}
	b.mu.last = b.status()
	b.mu.closed = true
	close(b.stop)
	close(b.events)
	// The rules stay until the SAs are gone, and hold what had one.
	var errs []error
	for _, a := range b.mu.children {
		errs = append(errs, b.forget(a))
	}
	errs = append(errs, b.mu.policies.release())
	if release {
		errs = append(errs, b.table.Release())
	}
	return errors.Join(errors.Join(errs...), b.closeKernel())
}

// closeKernel closes what New opened, and ends who reads it.
func (b *backend) closeKernel() error {
	var errs []error
	if b.queue != nil {
		errs = append(errs, b.queue.close())
	}
	if b.watch != nil {
		errs = append(errs, b.watch.Close())
	}
	if b.monitor != nil {
		errs = append(errs, b.monitor.close())
	}
	if b.errors != nil {
		errs = append(errs, b.errors.close())
	}
	if b.tap != nil {
		errs = append(errs, b.tap.close())
	}
	if b.forward != nil {
		errs = append(errs, b.forward.close())
	}
	if b.routes != nil {
		errs = append(errs, b.routes.close())
	}
	if b.kernel != nil {
		errs = append(errs, b.kernel.close())
	}
	if b.table != nil {
		errs = append(errs, b.table.Close())
	}
	return errors.Join(errs...)
}

// emit hands an event to the reader of Events, unless it lags too far behind.
func (b *backend) emit(e ike.Event) bool {
	if b.mu.closed {
		return false
	}
	select {
	case b.events <- e:
		return true
	default:
		b.mu.counters[counterEventsLost]++
		return false
	}
}
