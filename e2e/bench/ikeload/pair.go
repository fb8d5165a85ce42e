package ikeload

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// Pair is one machine with all addresses of the initiators, and one with all of the responders, on a wire.
type Pair struct {
	Wire                 *Wire
	Initiator, Responder *Machine
}

// Identities are what two sides and their authority hold; empty without certificates.
type Identities struct {
	Root                 []byte
	Initiator, Responder *Identity
}

// NewIdentities makes an authority and a certificate for each side. kind is that of all keys.
func NewIdentities(kind KeyKind) (Identities, error) {
	ca, err := NewAuthority(kind)
	if err != nil {
		return Identities{}, err
	}
	initiator, err := ca.Issue("initiator.load.example")
	if err != nil {
		return Identities{}, err
	}
	responder, err := ca.Issue("responder.load.example")
	if err != nil {
		return Identities{}, err
	}
	return Identities{Root: ca.DER(), Initiator: &initiator, Responder: &responder}, nil
}

// NewPair starts both machines, with fresh identities where the plan wants certificates.
func NewPair(plan Plan, kind KeyKind, everyChain bool) (*Pair, error) {
	var ids Identities
	if plan.Method == MethodCertificate {
		var err error
		if ids, err = NewIdentities(kind); err != nil {
			return nil, err
		}
	}
	return NewPairWith(plan, ids, everyChain)
}

// NewPairWith starts both machines with given identities.
func NewPairWith(plan Plan, ids Identities, everyChain bool) (*Pair, error) {
	p := &Pair{Wire: NewWire()}
	var initiators, responders []netip.Addr
	for i := range plan.Peers {
		initiators = append(initiators, plan.Initiator(i))
		responders = append(responders, plan.Responder(i))
	}
	var err error
	p.Responder, err = OnWire(p.Wire, MachineConfig{
		Plan: plan, Responder: true, Identity: ids.Responder, Root: ids.Root, EveryChain: everyChain,
	}, responders...)
	if err != nil {
		return nil, fmt.Errorf("start the responder: %w", err)
	}
	p.Initiator, err = OnWire(p.Wire, MachineConfig{
		Plan: plan, Identity: ids.Initiator, Root: ids.Root, EveryChain: everyChain,
	}, initiators...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the initiator: %w", err), p.Responder.Stop())
	}
	return p, nil
}

// Stop ends both machines.
func (p *Pair) Stop() error {
	var wait sync.WaitGroup
	var first, second error
	wait.Go(func() { first = p.Initiator.Stop() })
	wait.Go(func() { second = p.Responder.Stop() })
	wait.Wait()
	return errors.Join(first, second)
}
