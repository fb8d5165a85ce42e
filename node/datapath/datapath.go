// Package datapath is the contract between the node's policy and whatever moves its packets: the userspace backend
// here, the kernel's XFRM where there is one.
//
// Its invariant: a packet that the policy in force wants protected never leaves, and is never accepted, in clear: not
// while a policy is replaced, not when a backend dies. The contract is tested by datapathtest against every backend. It
// leaves the semantics to policies/spd and keys to node/ike.
package datapath

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// FlowOf names the negotiation that an outbound packet needs under the rule it matched. Of a tunnel rule without an own
// endpoint, Local is left out: the backend knows its routes.
func FlowOf(m spd.Match, p spd.Packet) (ike.Flow, error) {
	local, remote := m.Selectors(p)
	if len(local) != 1 || len(remote) != 1 {
		return ike.Flow{}, fmt.Errorf("name the flow of %s to %s: the policy does not negotiate it", p.Source, p.Destination)
	}
	f := ike.Flow{
		Rule: m.Rule.ID, Local: p.Source, Remote: p.Destination,
		LocalTS: local[0], RemoteTS: remote[0], Packet: p,
	}
	if m.Filter.Tunnel {
		f.Local, f.Remote = m.Rule.TunnelLocal, m.Rule.Tunnel
	}
	return f, nil
}

// PolicySetter puts a policy into force.
type PolicySetter interface {
	// SetPolicy replaces the policy atomically; the same set twice changes nothing. After an error the previous policy
	// is still in force.
	SetPolicy(ctx context.Context, set spd.Set) error
}

// SADB holds the Child SAs. Calls come from one goroutine, in the order of the engine's actions.
type SADB interface {
	// InstallIn makes the inbound half usable before it returns.
	InstallIn(child sa.Child) error
	// InstallOut makes the outbound half known without using it before SwitchOut, or before the peer has used the SA: an
	// authentic inbound packet shows that its inbound half is installed (RFC 7296 2.8). Traffic of an SA of the default
	// response no longer leaves in clear from now on: it waits for the switch.
	InstallOut(child sa.Child) error
	// SwitchOut sends the traffic of the child's selectors through it from now on, packets that waited first.
	SwitchOut(child sa.Child) error
	// Remove deletes the Child SA with this inbound SPI; unknown SPIs are no error. Packets of it that are still on their
	// way are dropped, so after a rekey the old one is better kept for some seconds.
	Remove(in sa.SPI) error
	// Move gives the Child SA with this inbound SPI other outer addresses, in UDP with encap. Packets that are on their
	// way from the former ones are still accepted. Sequence numbers and limits go on where they were.
	Move(in sa.SPI, local, remote netip.AddrPort, encap bool) error
}

// FlowGate decides about flows that have no association.
type FlowGate interface {
	// Fallback lets the flow's packets pass in clear, in both directions, for ttl; packets that waited go first. It is an
	// error where the rule of the policy in force does not allow it, and for a flow of a rule with spd.FallbackDiscover
	// that was protected before.
	Fallback(flow ike.Flow, ttl time.Duration) error
	// Refuse drops the packets that wait for the flow.
	Refuse(flow ike.Flow) error
}

// Backend is one way to enforce a policy.
type Backend interface {
	PolicySetter
	SADB
	FlowGate
	// Events delivers what the packets bring up: ike.Acquire, ike.ChildExpiring, ike.PeerMoved and ike.Heard. An Acquire is sent
	// once per flow until an SA, Fallback or Refuse answers it; after Refuse the next one comes half a second later at the
	// earliest. With spd.FallbackDiscover the backend lets the flow pass in clear as it sends the Acquire. A peer behind
	// a NAT that moved is followed at once, PeerMoved tells of it; a mobile one is not followed, PeerMoved tells
	// of it now and then. The channel is closed by Close.
	Events() <-chan ike.Event
	Status() Status
	// Close ends the backend. What the policy wants protected stays blocked in the kernel unless release is true. Where the
	// process is killed instead, SAs die with it if it seals and opens by itself. A kernel that does goes on with those that
	// are not in UDP, up to their limits or until the next process opens a backend: that leaks nothing either, and nobody is
	// left to take them away. What has no SA is dropped in either case.
	Close(release bool) error
}

// Status is what a backend reports of itself.
type Status struct {
	Backend  string   // "userspace" or "xfrm"
	Notes    []string // what is missing or was chosen, one sentence each
	Children []ChildStatus
	Soft     []SoftStatus
	Counters map[string]uint64 // stable names, see the backend's documentation
}

// ChildStatus is the life of one Child SA.
type ChildStatus struct {
	In, Out                     sa.SPI
	Rule                        string
	DefaultResponse             bool
	Peer                        string
	Mode                        sa.Mode
	Suite                       string
	Local, Remote               netip.AddrPort
	LocalTS, RemoteTS           []sa.Selector
	Installed                   time.Time
	InPackets, OutPackets       uint64
	InOctets, OutOctets         uint64
	ReplayDropped, AuthFailed   uint64
	SelectorMismatch, Discarded uint64 // a kernel counts them for all SAs together: packets_wrong_sa, packets_malformed
	Current                     bool   // carries outbound traffic now
	// PathMTU is how long an outer packet may be on the way to the peer, in octets, IP header included; 0 where the source is
	// PathUnknown.
	PathMTU       int
	PathMTUSource PathSource
}

// SoftStatus is one soft association: clear traffic granted to a silent peer.
type SoftStatus struct {
	Rule          string
	Local, Remote netip.Addr
	Expires       time.Time
}
