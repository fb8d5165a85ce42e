// Package ike is the vocabulary of the IKE engine: what can happen to it (Event), what it asks for (Action), the slow or
// secret work that leaves it (Work, Result), its configuration and the reasons that it gives.
//
// Its invariant: everything here is a plain value; nothing blocks, reads a clock or draws a random number. It leaves the
// state machine to node/ike/ikev2 and node/ike/engine, and goroutines, sockets and keys to node/ike/driver.
package ike

import (
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Event is something that happened outside the engine. The set is closed.
type Event interface{ event() }

// Action is something that the engine wants done. The driver executes actions in order; an Action that fails comes back
// as an event. The set is closed.
type Action interface{ action() }

// Flow names the traffic that needs an association: the rule that matched, the pair of selectors to negotiate and the
// packet that asked. Two packets of one Flow share Rule, Local, Remote, LocalTS and RemoteTS.
type Flow struct {
	Rule          string
	Local, Remote netip.Addr // outer addresses: own one and that of the IKE peer
	LocalTS       sa.Selector
	RemoteTS      sa.Selector
	Packet        spd.Packet
	// DefaultResponse is that the default response protects the traffic, and no rule: Rule is empty then. Traffic asks for
	// nothing of the kind; it is made anew from what a peer once asked for.
	DefaultResponse bool
}

// Datagram is an IKE message from the network, without the non-ESP marker.
type Datagram struct {
	Local, Remote netip.AddrPort
	Bytes         []byte // valid during Step only
}

// Timeout says that the engine's Deadline has been reached.
type Timeout struct{}

// JobDone brings the result of a Job.
type JobDone struct {
	ID     JobID
	Result Result
}

// Acquire says that a packet needs protection and there is no association for it.
type Acquire struct{ Flow Flow }

// ChildExpiring says that a Child SA, named by its inbound SPI, reached its soft or hard limit or has been idle too long.
type ChildExpiring struct {
	SPI   sa.SPI
	Limit Limit
}

// Limit tells which bound a Child SA reached.
type Limit uint8

// The limits of ChildExpiring.
const (
	LimitSoft Limit = iota + 1
	LimitHard
	LimitIdle
)

// PeerMoved says that authenticated ESP of a Child SA came from a new address (RFC 7296 2.23).
type PeerMoved struct {
	SPI    sa.SPI
	Remote netip.AddrPort
}

// Heard says that authentic ESP of a Child SA, named by its inbound SPI, has come since the last time: its peer is alive
// (RFC 7296 2.4).
type Heard struct{ SPI sa.SPI }

// Reconfigure replaces the configuration. Associations whose rule vanished or changed are closed, the rest goes on.
type Reconfigure struct{ Config Config }

// Rekey asks for a rekey now: of the Child SA with inbound SPI Child, or of the IKE SA when Child is 0.
type Rekey struct {
	IKE   IKESPI
	Child sa.SPI
}

// Close asks for an orderly delete: of one Child SA, or of the IKE SA with all its children when Child is 0.
type Close struct {
	IKE    IKESPI
	Child  sa.SPI
	Reason Reason
}

// InstallFailed says that the datapath refused an inbound or outbound SA, named by the inbound SPI of its Child.
type InstallFailed struct {
	SPI      sa.SPI
	Outbound bool // the inbound half is installed
	Detail   string
}

// Shutdown closes every IKE SA with a Delete and starts nothing new. The engine is done when Idle tells so.
type Shutdown struct{ Reason Reason }

func (Shutdown) event()      {}
func (Datagram) event()      {}
func (Timeout) event()       {}
func (JobDone) event()       {}
func (Acquire) event()       {}
func (ChildExpiring) event() {}
func (PeerMoved) event()     {}
func (Heard) event()         {}
func (Reconfigure) event()   {}
func (Rekey) event()         {}
func (Close) event()         {}
func (InstallFailed) event() {}

// IKESPI is the SPI that this side chose for an IKE SA; it is unique among the SAs of an engine.
type IKESPI uint64

// Send puts an IKE message on the wire. The driver adds the non-ESP marker on port 4500.
type Send struct {
	Local, Remote netip.AddrPort
	Bytes         []byte // owned by the driver
}

// Keepalive sends one NAT keepalive octet, without non-ESP marker (RFC 3948 4).
type Keepalive struct{ Local, Remote netip.AddrPort }

// Move tells that the peer of a Child SA, named by its inbound SPI, is now reached at Remote, from Local, in UDP with
// Encap: a NAT changed its mapping (RFC 7296 2.23), or one side has a new address (RFC 4555 3.5).
type Move struct {
	SPI           sa.SPI
	Local, Remote netip.AddrPort
	Encap         bool
}

// Job is work that leaves the engine because it is slow, secret or random; its result returns as JobDone.
type Job struct {
	ID   JobID
	Work Work
}

// JobID names an outstanding Job.
type JobID uint64

// InstallIn installs the inbound half of a Child SA. It completes before any later Send.
type InstallIn struct{ Child sa.Child }

// InstallOut installs the outbound half without using it yet.
type InstallOut struct{ Child sa.Child }

// SwitchOut makes an installed outbound half the one that carries the traffic of its selectors.
type SwitchOut struct{ Child sa.Child }

// Remove deletes both halves of a Child SA.
type Remove struct {
	Child  sa.Child
	Reason Reason
}

// Fallback grants clear traffic for a flow whose peer stayed silent, as the rule's fallback allows.
type Fallback struct {
	Flow Flow
	TTL  time.Duration
}

// Refuse says that the negotiation for a flow failed and that nothing grants clear traffic: what waits is dropped.
type Refuse struct {
	Flow   Flow
	Reason Reason
	Detail string
}

// Up announces an authenticated IKE SA.
type Up struct {
	IKE           IKESPI
	Peer          string
	Local, Remote netip.AddrPort
	Suite         proposal.IKE
	Auth          spd.AuthMethod // by which both sides are authenticated
	Replaces      IKESPI         // the IKE SA whose rekey this is; 0 for a new one
}

// Down announces the end of an IKE SA, established or not.
type Down struct {
	IKE    IKESPI
	Peer   string // identity when known, else the address
	Remote netip.AddrPort
	Reason Reason
	Fault  Fault
	Detail string
}

// KeyLog carries key material for the debug-only key log. The engine emits it only when Config.KeyLog is set.
type KeyLog struct{ Line sa.Secret }

func (Send) action()       {}
func (Keepalive) action()  {}
func (Move) action()       {}
func (Job) action()        {}
func (InstallIn) action()  {}
func (InstallOut) action() {}
func (SwitchOut) action()  {}
func (Remove) action()     {}
func (Fallback) action()   {}
func (Refuse) action()     {}
func (Up) action()         {}
func (Down) action()       {}
func (KeyLog) action()     {}

// Work is what a Job does. The set is closed.
type Work interface{ work() }

// Result is what a Job brought. The set is closed.
type Result interface{ result() }

// Generate makes a key pair of the group: for a KEM that of the initiator, whose public value is the encapsulation key.
type Generate struct{ Group proposal.Group }

// Generated is the result of Generate. Private is opaque to the engine and goes back in Agree.
type Generated struct {
	Public  []byte
	Private any
	Err     error
}

// Agree computes the shared secret of a key exchange. For a KEM it is the initiator's: Peer is the ciphertext.
type Agree struct {
	Group   proposal.Group
	Private any
	Peer    []byte
}

// Agreed is the result of Agree. Err says that the peer's public value was invalid.
type Agreed struct {
	Shared sa.Secret
	Err    error
}

// Encapsulate is the whole key exchange of a responder with a KEM: it takes the initiator's public value and gives the
// one to send back together with the shared secret.
type Encapsulate struct {
	Group proposal.Group
	Peer  []byte
}

// Encapsulated is the result of Encapsulate. Err says that the peer's public value was invalid.
type Encapsulated struct {
	Public []byte
	Shared sa.Secret
	Err    error
}

// Sign authenticates this side with the machine's private key (RFC 7296 2.15, RFC 7427).
type Sign struct {
	Octets []byte
	Hashes []uint16 // SIGNATURE_HASH_ALGORITHMS of the peer; empty when it sent none
	// Accepted are the AlgorithmIdentifiers that the peer announced (RFC 9593), as DER; empty when it announced none.
	Accepted [][]byte
}

// Signed is the result of Sign.
type Signed struct {
	Method byte // AUTH method on the wire
	Data   []byte
	Err    error
}

// Verify decides whether the peer is who it claims to be: chain, validity, revocation, binding of the ID to the
// certificate, signature.
type Verify struct {
	IDType byte
	ID     []byte
	Chain  [][]byte // DER, leaf first as received
	Method byte
	Data   []byte
	Octets []byte
	Hashes []uint16 // what this side announced
	Auth   spd.Auth // the entry of the rule that is being tried
	// Revocation tells how much must be known of the peer's standing.
	Revocation spd.Revocation
	// Groups are the groups of the directory that rules want peers to be in.
	Groups []string
}

// Verified is the result of Verify.
type Verified struct {
	Peer   string // printable identity
	Reason Reason // ReasonNone when the peer is accepted
	Detail string
	// NotAfter is when the first certificate of the path expires: the peer must not be believed beyond it. Zero is never.
	NotAfter time.Time
	// Groups are those of the asked groups that the peer is a member of.
	Groups []string
}

func (Generate) work()       {}
func (Agree) work()          {}
func (Encapsulate) work()    {}
func (Sign) work()           {}
func (Verify) work()         {}
func (Generated) result()    {}
func (Agreed) result()       {}
func (Encapsulated) result() {}
func (Signed) result()       {}
func (Verified) result()     {}

// Identity is an IKE identification payload body (RFC 7296 3.5).
type Identity struct {
	Type byte
	Data []byte
}

// Pair is one pair of traffic selectors that a rule covers, seen from this machine.
type Pair = spd.Pair

// Rule is what the engine needs of a negotiate rule: expanded, in the order of weight.
type Rule struct {
	ID   string
	Mode sa.Mode
	// Pairs are the filters of the rule. In transport mode an association covers one local and one remote address
	// inside a pair; in tunnel mode it covers the whole pair.
	Pairs    []Pair
	Tunnel   netip.Addr // remote endpoint in tunnel mode
	Offers   []proposal.ESP
	Auth     []spd.Auth
	PFS      bool
	Lifetime spd.Lifetime
	Fallback spd.Fallback
	Idle     time.Duration // 0 means no idle limit
	// Associations is how many Child SAs with the same selectors are wanted (RFC 9611); 0 means one.
	Associations uint8
	// PeerGroups, if it is not empty, are the groups of the directory of which the peer must be a member of one.
	PeerGroups []string
}

// Config is everything that the engine decides by. It is replaced whole, never changed.
type Config struct {
	Rules           []Rule // most specific first: the first that covers a request decides
	DefaultResponse *Rule  // nil when inactive; its Pairs are ignored
	Offers          []proposal.IKE
	IKELifetime     time.Duration // soft limit of IKE SAs; 0 means 8 h
	Local           Identity      // this machine's identity
	Chain           [][]byte      // DER, leaf first, without the root
	Authorities     [][]byte      // SHA-1 of the SubjectPublicKeyInfo of accepted CAs, for CERTREQ (RFC 7296 3.7)
	Secrets         map[string]sa.Secret
	NotAfter        time.Time      // when Chain expires; zero means never
	Childless       spd.Childless  // when IKE SAs are made without a Child SA (RFC 6023)
	ChildLimit      int            // Child SAs that take their keys from one key exchange of an IKE SA; 0 means any number
	Transcript      spd.Transcript // whether AUTH covers both messages of IKE_SA_INIT
	Revocation      spd.Revocation // how much must be known of the standing of a peer
	// AnnounceAuthentication tells peers which ways to authenticate this side accepts (RFC 9593).
	AnnounceAuthentication bool
	// Reauthentication is how long an authentication counts; 0 means as long as the certificates (RFC 4478).
	Reauthentication time.Duration
	// ForceEncap asks for UDP encapsulation even without a NAT, which foreign peers understand as a NAT in between.
	ForceEncap bool
	Mobility   Mobility
	// CrashSecret makes the tokens by which peers notice a restart of this machine at once (RFC 6290); it outlives the
	// restart. Empty makes none.
	CrashSecret sa.Secret
	// Port and NATPort are the UDP ports of both sides; 0 means 500 and 4500.
	Port, NATPort uint16
	Liveness      time.Duration // silence before a liveness check; 0 means 30 s
	KeyLog        bool
	Untraced      bool // nobody reads Trace actions: the engine makes none
}
