package userspace

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/datapath/nftable"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/datapath/waiting"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/transport"
	"github.com/bailiwick-net/bailiwick/node/tun"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// New starts the backend in the network namespace of the calling thread: it makes the TUN device, the routing table
// and the marks' policy routing rules, and takes over the nftables table that an earlier process left. It enforces
// nothing new until SetPolicy; until then nothing passes the TUN.
func New(cfg Config) (datapath.Backend, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	b := &backend{cfg: cfg, repaired: make(chan struct{}), recovered: make(chan struct{}), listened: make(chan struct{}), kept: make(chan struct{}), params: steering.Params{
		Device: cfg.Name, Mask: MarkMask, Protect: MarkProtect, Own: MarkOwn, Reinject: MarkReinject, Tunnel: MarkTunnel, Forward: MarkForward,
	}}
	b.mu.fresh = true
	b.mu.dynamic, b.mu.owner = map[nftable.Dynamic]int{}, map[sa.SPI][]nftable.Dynamic{}
	if err := b.open(); err != nil {
		return nil, errors.Join(err, b.closeKernel())
	}
	for _, l := range b.world.loops {
		go l.run()
	}
	go b.watch.Run()
	go b.repair()
	go b.recoverTUN()
	go b.listen()
	go b.keepRouting()
	return b, nil
}

func (b *backend) open() (err error) {
	if b.home, err = currentNamespace(); err != nil {
		return err
	}
	if b.table, err = nftable.Open(b.cfg.NFTable, b.cfg.Owner); err != nil {
		return err
	}
	if b.watch, err = b.table.Watch(); err != nil {
		return err
	}
	if b.routing, err = openRouting(b.cfg.Table, b.cfg.Priority, b.cfg.Name); err != nil {
		return err
	}
	if b.lost, err = watchRouting(); err != nil {
		return err
	}
	if note := b.table.Note(); note != "" {
		b.mu.notes = append(b.mu.notes, note)
	}
	b.params.Conntrack = !b.table.Reassembles()
	if b.params.Conntrack {
		b.mu.notes = append(b.mu.notes, "The kernel has no nft_tproxy: connection tracking reassembles fragments, for all traffic of the machine.")
	}
	for i := range b.cfg.Sockets.Queues() {
		for _, fd := range b.cfg.Sockets.Queue(i).FDs() {
			if err := letRoutersFragment(fd); err != nil {
				return err
			}
		}
	}
	if b.clear, err = openRawSockets(b.cfg.Sockets.IPv6(), MarkReinject); err != nil {
		return err
	}
	if b.whole, err = openRawSockets(b.cfg.Sockets.IPv6(), MarkOwn); err != nil {
		return err
	}
	if b.routers, err = openRouters(b.cfg.Sockets.IPv6()); err != nil {
		return err
	}
	var pollers []*transport.Poller
	if b.device, pollers, err = b.openDevice(); err != nil {
		return err
	}
	b.world = &world{
		events: make(chan ike.Event, eventQueue), gone: make(chan struct{}, 1), table: b.table, routing: b.routing,
		sadb: newSADB(), waiting: waiting.New(b.cfg.Limits, func(pkt []byte) int { return len(pkt) }, slices.Clone),
		soft: map[softKey]time.Time{}, secured: map[softKey]bool{}, sources: map[string]flowSource{},
	}
	// Two lives of the process must not use the same numbers for different packets.
	fragmentID := rand.Uint32()
	for i, poller := range pollers {
		sockets, queue := b.cfg.Sockets.Queue(i), b.device.Queue(i)
		l := &loop{
			world: b.world, index: i, logger: b.cfg.Logger, tun: queue, sockets: sockets,
			requests: make(chan request, 16), stopped: make(chan struct{}), clear: b.clear, whole: b.whole,
			cache: map[spd.Packet]*association{}, checked: map[checkedKey]bool{}, buffer: make([]byte, tun.BufferSize), outbox: newOutbox(sockets),
			writer: tun.NewWriter(queue), batch: transport.NewBatch(64), fragmentID: fragmentID + uint32(i),
		}
		l.poller.Store(poller)
		b.world.loops = append(b.world.loops, l)
	}
	return nil
}

// letRoutersFragment clears DF on outer packets and keeps the kernel's path MTU cache out of their way. The cache is
// shared with the flows that ESP protects: each "too big" that those are told would shrink the path of ESP itself.
func letRoutersFragment(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err == nil && domain == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT)
	} else if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT)
	}
	if err != nil {
		return fmt.Errorf("turn path MTU discovery of an ESP socket off: %w", err)
	}
	return nil
}
