package authority_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/bailiwick-net/bailiwick/controller/authority"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/e2e/lab/daemon"
	"github.com/bailiwick-net/bailiwick/e2e/lab/etcd"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/slots"
)

const (
	// callTime is how long each caller waits for its certificate, or its step.
	callTime = 5 * time.Second
	// overtime is what a caller may come late because the machine is busy; who hangs comes later.
	overtime = 20 * time.Second
	// patience bounds every wait: reached only by a test that fails.
	patience = 2 * time.Minute
)

// witness is a store that notes what was signed.
type witness struct {
	*store.Store

	mu     sync.Mutex
	signed [][]byte
}

func (w *witness) Complete(ctx context.Context, serial string, der []byte) error {
	w.mu.Lock()
	w.signed = append(w.signed, der)
	w.mu.Unlock()
	return w.Store.Complete(ctx, serial, der)
}

// A pair is two controllers that issue at once, while one of them rotates.
type pair struct {
	t       *testing.T
	keepers [2]*authority.Keeper
	stores  [2]*witness

	running sync.WaitGroup
	stop    chan struct{}

	mu sync.Mutex
	// given are the serial numbers of what was given away, by its controller; steps are those of the rotation.
	given   [2][]string
	steps   int
	latest  [3]time.Time // when a call that succeeded began, of both and of the rotation
	refused map[string]int
	moved   chan struct{} // has one when something succeeded
}

func startPair(t *testing.T, cluster *etcd.Cluster) *pair {
	t.Helper()
	p := &pair{t: t, stop: make(chan struct{}), refused: map[string]int{}, moved: make(chan struct{}, 1)}
	for i := range p.keepers {
		client, err := store.Connect(cluster.Endpoints(), cluster.Members[0].TLS, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		p.stores[i] = &witness{Store: store.New(client, store.Options{})}
		p.keepers[i], err = authority.Open(t.Context(), authority.Config{
			Store: p.stores[i], Unlock: unlock(t, "k"), Init: true, CA: ca.Config{TrustDomain: "bank.example"},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, k := range p.keepers {
		for range 3 {
			p.repeat(i, func(ctx context.Context) error {
				issued, err := issue(ctx, time.Now(), k)
				if err == nil {
					p.mu.Lock()
					p.given[i] = append(p.given[i], issued.Leaf.SerialNumber.Text(16))
					p.mu.Unlock()
				}
				return err
			})
		}
	}
	for i, k := range p.keepers {
		watching, stop := context.WithCancel(t.Context())
		hints := p.stores[i].WatchAuthorities(watching)
		p.running.Go(func() { k.Follow(watching, hints) })
		p.running.Go(func() { <-p.stop; stop() })
	}
	p.repeat(2, p.rotate)
	return p
}

// repeat calls something over and over until the end, each time with a deadline that must be kept. kind is whose it is.
func (p *pair) repeat(kind int, call func(context.Context) error) {
	p.running.Go(func() {
		for {
			select {
			case <-p.stop:
				return
			default:
			}
			ctx, cancel := context.WithTimeout(p.t.Context(), callTime)
			began := time.Now()
			err := call(ctx)
			cancel()
			if took := time.Since(began); took > callTime+overtime {
				p.t.Errorf("a call hung for %v beyond its deadline: %v", took-callTime, err)
			}
			p.mu.Lock()
			switch {
			case err != nil:
				p.refused[err.Error()]++
			case began.After(p.latest[kind]):
				p.latest[kind] = began
			}
			p.mu.Unlock()
			if err == nil {
				select {
				case p.moved <- struct{}{}:
				default:
				}
			}
		}
	})
}

// rotate takes the next step of an endless rotation.
func (p *pair) rotate(ctx context.Context) error {
	k := p.keepers[0]
	state := k.State()
	_, coming := state.Coming()
	var err error
	switch {
	case coming:
		_, err = k.Activate(ctx, nil, true, "")
	case state.Slots[len(state.Slots)-1].Status == slots.Active && len(state.Slots) > 1 && state.Slots[len(state.Slots)-2].Status == slots.Superseded:
		_, err = k.Retire(ctx, state.Slots[len(state.Slots)-2].ID, true, "")
	default:
		_, err = k.PrepareNext(ctx, authority.Preparation{})
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.steps++
	p.mu.Unlock()
	return nil
}

// goesOn waits until both have issued and the rotation has gone on by calls that began after now.
func (p *pair) goesOn(when string) {
	p.t.Helper()
	from := time.Now()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		p.mu.Lock()
		done := true
		for _, at := range p.latest {
			done = done && at.After(from)
		}
		p.mu.Unlock()
		if done {
			p.t.Logf("%s: goes on after %v", when, time.Since(from).Round(time.Millisecond))
			return
		}
		select {
		case <-p.moved:
		case <-timer.C:
			p.mu.Lock()
			defer p.mu.Unlock()
			p.t.Fatalf("%s: after %v it does not go on; refused so far: %v", when, patience, p.refused)
		}
	}
}

// Two controllers issue at once, and one rotates, over three members of etcd that lose their leader again and again, and once
// most of them: nobody hangs, nothing is given away that is not recorded, no serial number twice, and it goes on.
func TestClusterLosesItsLeader(t *testing.T) {
	started, err := etcd.StartCluster(t.Context(), 3)
	cluster := daemon.ForTest(t, started, err)
	leader := func() *etcd.Server {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		m, err := cluster.Leader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := startPair(t, cluster)
	end := sync.OnceFunc(func() { close(p.stop); p.running.Wait() })
	defer end()
	p.goesOn("with all members")

	m := leader()
	m.Kill()
	p.goesOn("after the leader was killed")
	must(cluster.Restart(t.Context(), m))
	p.goesOn("after it came back")

	m = leader()
	must(m.Pause())
	p.goesOn("after the leader was paused")
	must(m.Resume())
	p.goesOn("after it woke up")

	m = leader()
	rest := cluster.Others(m)
	m.Kill()
	rest[0].Kill()
	p.nothing("after most were killed")
	must(cluster.Restart(t.Context(), m, rest[0]))
	p.goesOn("after most came back")

	end()
	p.account()
}

// nothing waits until each controller was refused a certificate, and holds that no other call succeeded meanwhile.
func (p *pair) nothing(when string) {
	p.t.Helper()
	from := time.Now()
	// Long enough for an election, if there could be one.
	ctx, cancel := context.WithTimeout(p.t.Context(), callTime/2)
	defer cancel()
	var asking sync.WaitGroup
	for _, k := range p.keepers {
		asking.Go(func() {
			if _, err := issue(ctx, time.Now(), k); err == nil {
				p.t.Errorf("%s: a certificate was issued", when)
			}
		})
	}
	asking.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for kind, at := range p.latest {
		if at.After(from) {
			p.t.Errorf("%s: a call of kind %d succeeded", when, kind)
		}
	}
}

// account holds what was given away and what was signed against the journal.
func (p *pair) account() {
	p.t.Helper()
	given := map[string]bool{}
	for _, all := range p.given {
		for _, serial := range all {
			if given[serial] {
				p.t.Errorf("the serial number %s was given away twice", serial)
			}
			given[serial] = true
		}
	}
	var signed [][]byte
	for _, w := range p.stores {
		signed = append(signed, w.signed...)
	}
	accounted(p.t, p.keepers[1], p.stores[1], signed)
	entries, err := p.stores[0].Issuances(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range entries {
		if len(e.Certificate) > 0 {
			delete(given, e.Intention.Serial)
		}
	}
	for serial := range given {
		p.t.Errorf("certificate %s was given away and is not recorded", serial)
	}
	p.t.Logf("%d and %d certificates, %d steps of rotations; %d kinds of refusals", len(p.given[0]), len(p.given[1]), p.steps, len(p.refused))
}
