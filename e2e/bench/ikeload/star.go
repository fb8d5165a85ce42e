package ikeload

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Star is a hub and many machines around it on a wire, each with an engine, a key and a certificate of its own.
type Star struct {
	Wire   *Wire
	Hub    *Machine
	Spokes []*Machine
}

// NewStar starts a hub and n spokes.
func NewStar(n int) (*Star, error) {
	plan := DefaultPlan(MethodCertificate, n)
	ca, err := NewAuthority(KeyECDSA)
	if err != nil {
		return nil, err
	}
	own, err := ca.Issue("hub.load.example")
	if err != nil {
		return nil, err
	}
	s := &Star{Wire: NewWire()}
	// The hub has one address: all spokes call the first responder.
	if s.Hub, err = OnWire(s.Wire, MachineConfig{Plan: plan, Responder: true, Identity: &own, Root: ca.DER()}, plan.Responder(0)); err != nil {
		return nil, err
	}
	for i := range n {
		own, err := ca.Issue(fmt.Sprintf("spoke%d.load.example", i))
		if err != nil {
			return nil, errors.Join(err, s.Stop())
		}
		m, err := OnWire(s.Wire, MachineConfig{Plan: plan, Identity: &own, Root: ca.DER()}, plan.Initiator(i))
		if err != nil {
			return nil, errors.Join(err, s.Stop())
		}
		s.Spokes = append(s.Spokes, m)
	}
	return s, nil
}

// Up lets all spokes call the hub at the same moment, and waits until each has one association with it in use.
func (s *Star) Up(ctx context.Context) error {
	var wait sync.WaitGroup
	errs := make([]error, len(s.Spokes))
	for i, m := range s.Spokes {
		wait.Go(func() {
			flow := m.plan.Flow(i)
			flow.Remote = m.plan.Responder(0)
			flow.RemoteTS = single(flow.Remote)
			if errs[i] = m.ask(ctx, flow); errs[i] == nil {
				errs[i] = m.Await(ctx, func(c Counters) bool { return c.Out >= 1 })
			}
			if errs[i] != nil {
				errs[i] = fmt.Errorf("spoke %d: %w, because of %+v", i, errs[i], m.failures())
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w\nthe hub says: %+v", err, s.Hub.failures())
	}
	return s.Hub.Await(ctx, func(c Counters) bool { return c.In >= int64(len(s.Spokes)) })
}

// Check looks at both ends of every association: one IKE SA with one Child SA at each spoke, and all of them at the hub,
// with the SPIs of the other end.
func (s *Star) Check(ctx context.Context) error {
	v, err := s.Hub.Snapshot(ctx)
	if err != nil {
		return err
	}
	type ends struct{ own, peer uint64 }
	hub := make(map[ends]int)
	for _, x := range v.SAs {
		if !x.Established.IsZero() {
			hub[ends{x.PeerSPI, x.SPI}] = len(x.Children)
		}
	}
	if len(hub) != len(s.Spokes) {
		return fmt.Errorf("the hub has %d established IKE SAs, want %d", len(hub), len(s.Spokes))
	}
	for i, m := range s.Spokes {
		v, err := m.Snapshot(ctx)
		if err != nil {
			return err
		}
		if len(v.SAs) != 1 || len(v.SAs[0].Children) != 1 || hub[ends{v.SAs[0].SPI, v.SAs[0].PeerSPI}] != 1 {
			return fmt.Errorf("spoke %d has %d IKE SAs, and not the same as the hub", i, len(v.SAs))
		}
	}
	return nil
}

// Stop ends all machines.
func (s *Star) Stop() error {
	var wait sync.WaitGroup
	errs := make([]error, len(s.Spokes)+1)
	for i, m := range append([]*Machine{s.Hub}, s.Spokes...) {
		wait.Go(func() { errs[i] = m.Stop() })
	}
	wait.Wait()
	return errors.Join(errs...)
}
