package ikeload

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/driver"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/node/ike/trace"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

// Machine is an IKE driver with a datapath that counts.
type Machine struct {
	plan     Plan
	driver   *driver.Driver
	datapath *datapath
	events   chan ike.Event
	stop     context.CancelFunc
	ended    chan error
	close    func() error       // of the sockets; nil on a wire
	sockets  *transport.Sockets // nil on a wire
}

// MachineConfig says which machine of a plan one is.
type MachineConfig struct {
	Plan      Plan
	Responder bool
	Identity  *Identity // nil without certificates
	Root      []byte    // DER of the authority, with Identity
	// EveryChain verifies the chain of every peer anew, as at a first contact.
	EveryChain bool
	Transport  driver.Transport
}

// OnWire plugs a machine of a plan with these addresses into a wire.
func OnWire(w *Wire, c MachineConfig, addresses ...netip.Addr) (*Machine, error) {
	c.Transport = w.plug(wireDepth, addresses...)
	return Start(c)
}

// wireDepth is the queue of a machine on a wire: what the buffer of a socket holds of messages of this size.
const wireDepth = 4096

// Start runs a machine until Stop.
func Start(c MachineConfig) (*Machine, error) {
	m := &Machine{plan: c.Plan, datapath: newDatapath(), events: make(chan ike.Event, 64), ended: make(chan error, 1)}
	var key credentials
	var authority []byte
	if c.Identity != nil {
		var err error
		if key, authority, err = newCredentials(c.Identity.Key, c.Root); err != nil {
			return nil, err
		}
	}
	jobs := driver.NewJobs(key)
	if c.EveryChain {
		jobs = driver.NewJobsWith(key, driver.BundleVerifier{Credentials: key})
	}
	hub := trace.NewHub() // as a node keeps it, for whoever asks what happened
	observe := func(a ike.Action) {
		if t, ok := a.(*ike.Trace); ok {
			hub.Add(time.Now(), t)
		}
	}
	var err error
	m.driver, err = driver.New(driver.Config{
		IKE: c.Plan.config(c.Responder, c.Identity, authority), Transport: c.Transport,
		SADB: m.datapath, Gate: m.datapath, Events: m.events, Jobs: jobs, Observe: observe,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	go func() { m.ended <- m.driver.Run(ctx) }()
	return m, nil
}

// Stop ends the machine; its peers may be gone already, so that it waits two seconds for them at the most.
func (m *Machine) Stop() error {
	m.stop()
	err := <-m.ended
	if m.close != nil {
		err = errors.Join(err, m.close())
	}
	return err
}

// Counters tell what the datapath was told.
func (m *Machine) Counters() Counters { return m.datapath.counters() }

// Snapshot is the state of the engine.
func (m *Machine) Snapshot(ctx context.Context) (engine.Snapshot, error) {
	return m.driver.Snapshot(ctx)
}

// failures are what went wrong, for the error of who waits in vain.
func (m *Machine) failures() []engine.Failure {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	v, err := m.Snapshot(ctx)
	if err != nil {
		return nil
	}
	return v.Failures
}

// errStuck says that associations did not come up in time.
var errStuck = errors.New("not every association came up")

// Initiate asks for the associations of the pairs from to until (excluded), as a burst of packets does. It returns when
// the driver has taken all of them.
func (m *Machine) Initiate(ctx context.Context, from, until int) error {
	for i := from; i < until; i++ {
		if err := m.ask(ctx, m.plan.Flow(i)); err != nil {
			return err
		}
	}
	return nil
}

// ask is what the datapath does with a packet that has no association.
func (m *Machine) ask(ctx context.Context, f ike.Flow) error {
	select {
	case m.events <- ike.Acquire{Flow: f}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Rekey rekeys the first Child SA of every IKE SA and waits until the new ones are in use.
func (m *Machine) Rekey(ctx context.Context) error {
	v, err := m.Snapshot(ctx)
	if err != nil {
		return err
	}
	have, asked := m.Counters(), int64(0)
	for _, s := range v.SAs {
		if len(s.Children) == 0 {
			continue
		}
		if err := m.driver.Rekey(ctx, ike.IKESPI(s.SPI), s.Children[0].In.SPI); err != nil {
			return err
		}
		asked++
	}
	return m.Await(ctx, func(c Counters) bool { return c.Out-have.Out >= asked && c.Removed-have.Removed >= asked })
}

// Await waits until done says so of what the datapath was told.
func (m *Machine) Await(ctx context.Context, done func(Counters) bool) error {
	refused := m.Counters().Refused
	for !done(m.Counters()) {
		if m.Counters().Refused > refused { // nobody asks again
			return fmt.Errorf("%w, and some were refused: %+v", errStuck, m.Counters())
		}
		select {
		case <-m.datapath.changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %+v", errStuck, m.Counters())
		case err := <-m.ended:
			m.ended <- err
			return fmt.Errorf("the driver has ended: %w", err)
		}
	}
	return nil
}

// Burst initiates the pairs from to until and waits until both machines use all of them.
func Burst(ctx context.Context, initiator, responder *Machine, from, until int) error {
	have, peerHas := initiator.Counters(), responder.Counters()
	n := int64(until - from)
	if err := initiator.Initiate(ctx, from, until); err != nil {
		return err
	}
	if err := initiator.Await(ctx, func(c Counters) bool { return c.Out-have.Out >= n }); err != nil {
		return fmt.Errorf("initiator: %w", err)
	}
	if err := responder.Await(ctx, func(c Counters) bool { return c.In-peerHas.In >= n }); err != nil {
		return fmt.Errorf("responder: %w", err)
	}
	return nil
}

// BurstLimit bounds a burst: far more than retransmissions need.
const BurstLimit = 2 * time.Minute
