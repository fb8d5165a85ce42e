package ikeload

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// Street is two hosts on a wire, each with all the addresses of one side of a plan.
type Street struct {
	Lab                  *lab.Lab
	Initiator, Responder *lab.Host
	// Device is the name of the wire on both.
	Device string
}

// The addresses by which the hosts reach each other's prefixes.
var (
	initiatorHop = netip.MustParseAddr("10.7.0.1")
	responderHop = netip.MustParseAddr("10.7.0.2")
)

// NewStreet makes the hosts in a lab of this prefix. It needs root.
func NewStreet(prefix string, plan Plan) (*Street, error) {
	l, err := lab.New(prefix)
	if err != nil {
		return nil, err
	}
	s := &Street{Lab: l, Device: "eth0"}
	if err := s.build(plan); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return s, nil
}

func (s *Street) build(plan Plan) error {
	var err error
	if s.Initiator, err = s.Lab.Host("i"); err != nil {
		return err
	}
	if s.Responder, err = s.Lab.Host("r"); err != nil {
		return err
	}
	err = s.Lab.Link(
		lab.End{Host: s.Initiator, Device: s.Device, Addresses: []netip.Prefix{netip.PrefixFrom(initiatorHop, 24)}},
		lab.End{Host: s.Responder, Device: s.Device, Addresses: []netip.Prefix{netip.PrefixFrom(responderHop, 24)}},
	)
	if err != nil {
		return err
	}
	for _, e := range []struct {
		host        *lab.Host
		own, others netip.Prefix
		hop         netip.Addr
	}{{s.Initiator, plan.Initiators, plan.Responders, responderHop}, {s.Responder, plan.Responders, plan.Initiators, initiatorHop}} {
		// Every address of the prefix is local, without thousands of them on an interface.
		if _, err := e.host.Run("ip", "route", "add", "local", e.own.String(), "dev", "lo"); err != nil {
			return err
		}
		if _, err := e.host.Run("ip", "route", "add", e.others.String(), "via", e.hop.String()); err != nil {
			return err
		}
	}
	return nil
}

// Invite lets the responder take packets with sources of a prefix that nobody has, and answer them: the answers are lost
// at the other host.
func (s *Street) Invite(sources netip.Prefix) error {
	for _, device := range []string{"all", s.Device} {
		if err := s.Responder.Sysctl("net.ipv4.conf."+device+".rp_filter", "0"); err != nil {
			return err
		}
	}
	if _, err := s.Initiator.Run("ip", "route", "add", "blackhole", sources.String()); err != nil {
		return err
	}
	_, err := s.Responder.Run("ip", "route", "add", sources.String(), "via", initiatorHop.String())
	return err
}

// Close removes the hosts.
func (s *Street) Close() error { return s.Lab.Close() }

// RemotePair is a machine on each host of a street.
type RemotePair struct{ Initiator, Responder *Remote }

// LaunchPair starts both processes with this command.
func (s *Street) LaunchPair(command ...string) (*RemotePair, error) {
	responder, err := Launch(s.Responder, command...)
	if err != nil {
		return nil, err
	}
	initiator, err := Launch(s.Initiator, command...)
	if err != nil {
		return nil, errors.Join(err, responder.Close())
	}
	return &RemotePair{initiator, responder}, nil
}

// Start starts both machines.
func (p *RemotePair) Start(plan Plan, ids Identities, everyChain bool) error {
	o := Order{Do: "start", Plan: &plan, EveryChain: everyChain, Root: ids.Root}
	for _, e := range []struct {
		remote    *Remote
		identity  *Identity
		responder bool
	}{{p.Responder, ids.Responder, true}, {p.Initiator, ids.Initiator, false}} {
		o.Responder = e.responder
		if e.identity != nil {
			key, err := x509.MarshalPKCS8PrivateKey(e.identity.Key)
			if err != nil {
				return fmt.Errorf("write the key of %s: %w", e.identity.Name, err)
			}
			o.Name, o.Certificate, o.Key = e.identity.Name, e.identity.DER, key
		}
		if _, err := e.remote.Order(o); err != nil {
			return err
		}
	}
	return nil
}

// Burst initiates the pairs from to until and waits until both machines use all of them: have is how many they had.
func (p *RemotePair) Burst(from, until, have int) error {
	if _, err := p.Initiator.Order(Order{Do: "initiate", From: from, Until: until}); err != nil {
		return err
	}
	n := int64(have + until - from)
	if _, err := p.Initiator.Order(Order{Do: "await", Out: n}); err != nil {
		return err
	}
	_, err := p.Responder.Order(Order{Do: "await", In: n})
	return err
}

// Stop stops both machines at once, so that neither waits for the other in vain.
func (p *RemotePair) Stop() error {
	o := Order{Do: "stop"}
	if err := errors.Join(p.Initiator.Begin(o), p.Responder.Begin(o)); err != nil {
		return err
	}
	_, first := p.Initiator.Finish(o)
	_, second := p.Responder.Finish(o)
	return errors.Join(first, second)
}

// Close ends both processes.
func (p *RemotePair) Close() error { return errors.Join(p.Initiator.Close(), p.Responder.Close()) }
