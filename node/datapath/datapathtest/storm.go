package datapathtest

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Storm fails where a backend with several packet threads sends anything in clear, stops for ever or does not recover while
// all that may change does so at once under the traffic of a bundle: policies, SAs that are rekeyed, moved and removed, and
// the TUN.
func Storm(t *testing.T, prefix string, factory Factory, queues int) {
	const lasting, pause = 5 * time.Second, 5 * time.Millisecond
	w := NewWorld(t, prefix, factory)
	for _, p := range []*Peer{w.A, w.B} {
		p.SetPolicy(t, requireAll())
	}
	o := Options{Mode: sa.Transport, Encap: true, Rule: [2]string{ruleID, ruleID}}
	pairs := w.bundle(t, o, queues)
	to := netip.AddrPortFrom(w.B.V4, 9)
	w.B.EchoUDP(t, to)
	w.B.EchoTCP(t, 7)
	watch := w.Watch(t)
	deadline := time.Now().Add(lasting)
	var traffic, changes sync.WaitGroup
	for range queues {
		traffic.Go(func() {
			for time.Now().Before(deadline) {
				// What it is there for is the packets: they may well be refused in between.
				_ = w.A.TransferTCP(netip.AddrPortFrom(w.B.V4, 7), 1<<20, time.Second)
			}
		})
		traffic.Go(func() {
			for time.Now().Before(deadline) {
				_ = w.A.TryUDP(to, 1200, pause)
			}
		})
	}
	change := func(what string, change func(i int) error) {
		changes.Go(func() {
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for i := 0; time.Now().Before(deadline); i++ {
				if err := change(i); err != nil {
					t.Errorf("%s: %v", what, err)
					return
				}
				<-tick.C
			}
		})
	}
	other := requireAll()
	other.Rules = append(other.Rules, rule("no-telnet", blockAction, port(6, 23)), rule("no-echo", blockAction, port(17, 9)))
	for _, p := range []*Peer{w.A, w.B} {
		change("policies of "+p.Name, func(i int) error {
			p.SetPolicy(t, []spd.Policy{requireAll(), other}[i%2])
			return nil
		})
		change("status of "+p.Name, func(int) error {
			if n := len(p.Node.Status().Children); n < queues-1 || n > 2*queues {
				return fmt.Errorf("%d SAs", n)
			}
			return nil
		})
	}
	change("SAs", func(i int) error {
		lane := i % queues
		old := pairs[lane]
		if i%3 == 0 { // it is gone before there is another one
			if err := old.Remove(); err != nil {
				return err
			}
			old = nil
		}
		next, err := w.inLane(o, lane, pairs, old)
		if err == nil {
			err = next.Install()
		}
		if err != nil {
			return err
		}
		pairs[lane] = next
		if old != nil {
			return old.Remove()
		}
		moved := &next.FromEnd
		return next.From.Node.Move(moved.In.SPI, moved.Local, moved.Remote, true)
	})
	change("the TUN", func(i int) error {
		if i%100 != 50 {
			return nil
		}
		fields := strings.Fields(w.A.mustRun(t, "ip", "-o", "link", "show", "type", "tun"))
		if len(fields) > 1 {
			w.A.mustRun(t, "sh", "-c", "ip link del "+strings.TrimSuffix(fields[1], ":")+" || true")
		}
		return nil
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		changes.Wait()
		traffic.Wait()
	}()
	select {
	case <-done:
	case <-time.After(lasting + 20*time.Second):
		t.Fatal("a change or the traffic never ended")
	}
	for _, p := range []*Peer{w.A, w.B} {
		p.SetPolicy(t, requireAll())
	}
	eventually(t, "datagrams pass after the storm", func() bool { return w.A.TryUDP(to, 100, short) == nil })
	if err := w.A.TransferTCP(netip.AddrPortFrom(w.B.V4, 7), 4<<20, 30*time.Second); err != nil {
		t.Errorf("TCP after the storm: %v", err)
	}
	watch().wantProtected(t)
	for _, p := range []*Peer{w.A, w.B} {
		if n := len(p.Node.Status().Children); n != queues {
			t.Errorf("%s has %d SAs, want %d", p.Name, n, queues)
		}
		for _, c := range p.Node.Status().Children {
			if c.AuthFailed > 0 {
				t.Errorf("SA %s of %s: %d packets are not authentic", c.In, p.Name, c.AuthFailed)
			}
		}
	}
}
