package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bench/ikeload"
)

// labPrefix begins the names of all network namespaces.
const labPrefix = "bwbench-"

// overUDP measures a variant between two processes on the sockets of two network namespaces.
func overUDP(o options, v variant) (c cost, err error) {
	plan := v.plan(o.peers)
	street, err := ikeload.NewStreet(labPrefix, plan)
	if err != nil {
		return cost{}, err
	}
	defer func() { err = errors.Join(err, street.Close()) }()
	self, err := os.Executable()
	if err != nil {
		return cost{}, err
	}
	pair, err := street.LaunchPair(self, roleArgument)
	if err != nil {
		return cost{}, err
	}
	defer func() { err = errors.Join(err, pair.Close()) }()
	var ids ikeload.Identities
	if v.method == ikeload.MethodCertificate {
		if ids, err = ikeload.NewIdentities(v.kind); err != nil {
			return cost{}, err
		}
	}
	var samples []sample
	for range o.rounds {
		if err := pair.Start(plan, ids, v.chain); err != nil {
			return cost{}, fmt.Errorf("%s: %w", v.name, err)
		}
		s, err := timed(pair.Initiator.Pid, pair.Responder.Pid, func() error { return pair.Burst(0, o.peers, 0) })
		if err != nil {
			return cost{}, fmt.Errorf("%s: %w", v.name, err)
		}
		s.n = o.peers
		samples = append(samples, s)
		if err := pair.Stop(); err != nil {
			return cost{}, fmt.Errorf("%s: %w", v.name, err)
		}
	}
	return summarize(samples), nil
}

// timed does something and tells what two processes spent on it.
func timed(initiator, responder int, do func() error) (sample, error) {
	var s sample
	read := func() (first, second time.Duration, err error) {
		if first, err = ikeload.CPU(initiator); err != nil {
			return 0, 0, err
		}
		second, err = ikeload.CPU(responder)
		return first, second, err
	}
	firstBefore, secondBefore, err := read()
	if err != nil {
		return s, err
	}
	start := time.Now()
	if err := do(); err != nil {
		return s, err
	}
	s.wall = time.Since(start)
	firstAfter, secondAfter, err := read()
	if err != nil {
		return s, err
	}
	s.initiator, s.responder = firstAfter-firstBefore, secondAfter-secondBefore
	s.both = s.initiator + s.responder
	return s, nil
}
