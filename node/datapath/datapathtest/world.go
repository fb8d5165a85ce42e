// Package datapathtest is the contract suite of datapath.Backend: what every backend has to do with the packets of two
// real hosts, with keys that the test installs.
//
// Its invariant: a case passes only when the packets were seen to arrive, and a capture on the wire between the hosts
// agrees. It leaves negotiation to node/ike, and rules and queues of one backend to that backend's own tests. It needs
// root and iproute2.
package datapathtest

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Node is an open backend, and what has to be closed after it.
type Node struct {
	datapath.Backend
	Release func() error
}

// Factory opens a backend in the network namespace of the calling thread.
type Factory func() (Node, error)

// World is two hosts on one wire:
//
//	a 10.61.0.1 fd61::1 --- eth0 === eth0 --- b 10.61.0.2 fd61::2
//	  10.62.1.1 fd62:1::1                       10.62.2.1 fd62:2::1     (on lo: the networks behind a gateway)
type World struct {
	A, B *Peer
	Lab  *lab.Lab
}

// Peer is one of the hosts with its backend.
type Peer struct {
	*lab.Host
	Node    Node
	factory Factory
	Facts   spd.Facts
	V4, V6  netip.Addr // on the wire
	In4     netip.Addr // behind the gateway
	In6     netip.Addr
}

// NewWorld builds the hosts and opens a backend on each.
func NewWorld(t testing.TB, prefix string, factory Factory) *World {
	t.Helper()
	w := newHosts(t, prefix)
	for _, p := range []*Peer{w.A, w.B} {
		p.factory = factory
		p.Open(t)
		t.Cleanup(func() {
			if err := p.Close(true); err != nil {
				t.Errorf("close the backend of %s: %v", p.Name, err)
			}
		})
	}
	return w
}

func newHosts(t testing.TB, prefix string) *World {
	t.Helper()
	l := labtest.New(t, prefix)
	w := &World{Lab: l}
	var ends []lab.End
	for i, name := range []string{"a", "b"} {
		h, err := l.Host(name)
		if err != nil {
			t.Fatal(err)
		}
		n := byte(i + 1)
		p := &Peer{
			Host: h, V4: netip.AddrFrom4([4]byte{10, 61, 0, n}), V6: netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x61, 15: n}),
			In4: netip.AddrFrom4([4]byte{10, 62, n, 1}), In6: netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x62, 3: n, 15: 1}),
		}
		p.Facts = spd.Facts{Addresses: []netip.Addr{p.V4, p.V6}}
		ends = append(ends, lab.End{Host: h, Device: "eth0", Addresses: []netip.Prefix{
			netip.PrefixFrom(p.V4, 24), netip.PrefixFrom(p.V6, 64),
		}})
		if i == 0 {
			w.A = p
		} else {
			w.B = p
		}
	}
	if err := l.Link(ends[0], ends[1]); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*Peer{w.A, w.B} {
		for _, inner := range []netip.Addr{p.In4, p.In6} {
			if err := p.AddAddress("lo", netip.PrefixFrom(inner, inner.BitLen())); err != nil {
				t.Fatal(err)
			}
		}
		other := w.other(p)
		p.mustRun(t, "ip", "route", "add", netip.PrefixFrom(other.In4, 24).Masked().String(), "via", other.V4.String(), "src", p.In4.String())
		p.mustRun(t, "ip", "route", "add", netip.PrefixFrom(other.In6, 64).Masked().String(), "via", other.V6.String(), "src", p.In6.String())
	}
	return w
}

func (w *World) other(p *Peer) *Peer {
	if p == w.A {
		return w.B
	}
	return w.A
}

func (p *Peer) mustRun(t testing.TB, command ...string) string {
	t.Helper()
	out, err := p.Run(command...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Open opens the backend of the peer.
func (p *Peer) Open(t testing.TB) {
	t.Helper()
	err := p.Do(func() (err error) {
		p.Node, err = p.factory()
		return err
	})
	if err != nil {
		t.Fatalf("open the backend of %s: %v", p.Name, err)
	}
}

// Close closes the backend; a second call does nothing.
func (p *Peer) Close(release bool) error {
	if p.Node.Backend == nil {
		return nil
	}
	node := p.Node
	p.Node = Node{}
	return p.Do(func() error {
		if err := node.Close(release); err != nil {
			return err
		}
		return node.Release()
	})
}

// SetPolicy puts a policy into force.
func (p *Peer) SetPolicy(t testing.TB, policy spd.Policy) spd.Set {
	t.Helper()
	set, err := spd.Expand(policy, p.Facts)
	if err != nil {
		t.Fatalf("expand the policy of %s: %v", p.Name, err)
	}
	if err := p.Do(func() error { return p.Node.SetPolicy(context.Background(), set) }); err != nil {
		t.Fatal(err)
	}
	return set
}

// Counter returns one counter of the backend.
func (p *Peer) Counter(name string) uint64 {
	return p.Node.Status().Counters[name]
}

// Keyer answers the Acquires of both hosts with static keys, as an IKE engine would. It is started by NewKeyer.
type Keyer struct {
	world *World
	make  func(from *Peer, f ike.Flow) *Pair // nil: no answer

	mu struct {
		sync.Mutex
		acquired []ike.Flow
		events   []ike.Event
		pairs    []*Pair
		errs     []error
	}
}

// NewKeyer starts to read the events of both hosts. answer makes the SAs for a flow; nil leaves it unanswered.
func (w *World) NewKeyer(t testing.TB, answer func(from *Peer, f ike.Flow) *Pair) *Keyer {
	k := &Keyer{world: w, make: answer}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for _, p := range []*Peer{w.A, w.B} {
		events := p.Node.Events()
		wg.Go(func() {
			for {
				select {
				case e, ok := <-events:
					if !ok {
						return
					}
					k.handle(p, e)
				case <-stop:
					return
				}
			}
		})
	}
	t.Cleanup(func() {
		close(stop)
		wg.Wait()
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, err := range k.mu.errs {
			t.Error(err)
		}
	})
	return k
}

func (k *Keyer) handle(p *Peer, e ike.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.events = append(k.mu.events, e)
	acquire, ok := e.(ike.Acquire)
	if !ok {
		return
	}
	k.mu.acquired = append(k.mu.acquired, acquire.Flow)
	pair := k.make(p, acquire.Flow)
	if pair == nil {
		return
	}
	if err := pair.Install(); err != nil {
		k.mu.errs = append(k.mu.errs, err)
		return
	}
	k.mu.pairs = append(k.mu.pairs, pair)
}

// Acquired returns the flows that were asked for.
func (k *Keyer) Acquired() []ike.Flow {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]ike.Flow(nil), k.mu.acquired...)
}

// End takes the SAs down that were installed. The policies go first, so that the last packets of closed connections do
// not ask for new ones.
func (k *Keyer) End(t testing.TB) {
	t.Helper()
	for _, p := range []*Peer{k.world.A, k.world.B} {
		p.SetPolicy(t, policy())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.mu.pairs) == 0 {
		t.Error("no SA was asked for")
	}
	for _, pair := range k.mu.pairs {
		if err := pair.Remove(); err != nil {
			t.Error(err)
		}
	}
}

// Events returns everything that the backends reported.
func (k *Keyer) Events() []ike.Event {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]ike.Event(nil), k.mu.events...)
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(long)
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited %s in vain until %s", long, what)
		case <-poll.C:
		}
	}
}

// whole is the selector of one address with every protocol.
func whole(a netip.Addr) sa.Selector { return sa.Selector{From: a, To: a, PortTo: 65535} }
