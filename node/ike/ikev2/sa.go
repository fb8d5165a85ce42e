package ikev2

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// State is where an IKE SA is in its life.
//
//	KeyExchange --> [Intermediate] --> Authenticating --> Established --> Rekeyed ---+
//	     |                |                  |                |                      v
//	     |                |                  |                +-------> Deleting --> Closed
//	     +----------------+------------------+----------------------------------------^
//
// Beside the state there is at most one own exchange (SA.current: a job, or a request that waits for its response) and
// at most one exchange of the peer that is being served (window.serving: perhaps with a job).
type State uint8

// The states.
const (
	// StateKeyExchange lasts until both public values are known (IKE_SA_INIT).
	StateKeyExchange State = iota + 1
	// StateIntermediate lasts until the additional key exchanges are done (IKE_INTERMEDIATE); without any there is none.
	StateIntermediate
	// StateAuthenticating lasts until both sides are authenticated (IKE_AUTH).
	StateAuthenticating
	// StateEstablished is the only one in which Child SAs are made.
	StateEstablished
	// StateRekeyed means that a successor holds the Child SAs and that a delete of this SA is under way or expected.
	StateRekeyed
	// StateDeleting means that the own delete waits for its response.
	StateDeleting
	// StateClosed means that nothing is left but the last response, for a peer that repeats its last request.
	StateClosed
)

// String names the state.
func (s State) String() string {
	switch s {
	case StateKeyExchange:
		return "key-exchange"
	case StateIntermediate:
		return "intermediate"
	case StateAuthenticating:
		return "authenticating"
	case StateEstablished:
		return "established"
	case StateRekeyed:
		return "rekeyed"
	case StateDeleting:
		return "deleting"
	case StateClosed:
		return "closed"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

func (s State) established() bool { return s >= StateEstablished && s < StateClosed }

// Exchange is the pair of nonces of a key exchange; the lowest one decides between two that collide (RFC 7296 2.8.1).
type Exchange struct{ Ni, Nr []byte }

// Origin is what an SA and all its successors have in common: the IKE_SA_INIT at their beginning.
type Origin struct {
	Initiator            bool // this side began
	Exchange             Exchange
	Created, Established time.Time
}

// SA is one IKE SA. It is owned by its engine and not safe for concurrent use. now is the time of the call that is
// being handled.
type SA struct {
	host Host
	cfg  *ike.Config
	now  time.Time

	initiator     bool
	own, peer     wire.SPI
	local, remote netip.AddrPort
	state         State
	created       time.Time
	established   time.Time

	suite         proposal.IKE
	keys          suite.Keys
	in, out       *suite.Protection
	win           window
	requests      *collector // fragments of the peer's request; nil until there are some
	responses     *collector // fragments of the peer's response; nil until there are some
	fragmentation bool
	smallPath     bool // only small fragments got through
	creates       budget
	wornOut       bool // rekeyed for its message IDs

	natLocal, natRemote, encap bool
	natTraversal               bool // the peer knows of NATs
	mobility
	crash

	hs       *handshake // nil once established
	auth     spd.Auth   // the entry by which both sides are authenticated
	peerID   wire.ID
	peerName string
	up       bool     // announced by an Up
	initial  Exchange // of IKE_SA_INIT, or of the rekey that made this SA
	origin   Origin

	children   []*child
	deleted    []sa.SPI // outbound SPIs that the peer deleted before their response came
	queue      []queued
	current    task
	retrying   bool          // current met a temporary failure before
	following  *followup     // of current
	unfinished []*unfinished // begun by the peer
	succession
	jobs  []job // under way
	notes []Note
	// touched are other SAs that a rekey has changed, for the engine to look at.
	touched []*SA
	life
	standing
}

// life holds the SA's points in time; zero means none.
type life struct {
	lastHeard time.Time // authenticated message of the peer
	lastSent  time.Time
	giveUp    time.Time // of what has not become established, or waits to be deleted by the peer
	soft      time.Time // rekey
	hard      time.Time // close
	childless time.Time // close, when no Child SA comes
	derived   int       // Child SAs that were installed with keys of this SA, those included that are gone
	troubled  time.Time // since when the peer answers TEMPORARY_FAILURE only
	linger    time.Time // of a closed SA
}

func (s *SA) spii() wire.SPI {
	if s.initiator {
		return s.own
	}
	return s.peer
}

func (s *SA) spir() wire.SPI {
	if s.initiator {
		return s.peer
	}
	return s.own
}

// The accessors of the engine.

// SPI is the own SPI, unique in the engine.
func (s *SA) SPI() wire.SPI { return s.own }

// PeerSPI is the SPI of the peer, 0 as long as it is unknown.
func (s *SA) PeerSPI() wire.SPI { return s.peer }

// State tells the state.
func (s *SA) State() State { return s.state }

// Initiator reports whether this side is the original initiator.
func (s *SA) Initiator() bool { return s.initiator }

// Addresses are the current outer addresses.
func (s *SA) Addresses() (local, remote netip.AddrPort) { return s.local, s.remote }

// Peer is the authenticated identity, printable, or "".
func (s *SA) Peer() string { return s.peerName }

// Auth is the entry of the authentication list that was used.
func (s *SA) Auth() spd.Auth { return s.auth }

// Suite is what protects the IKE SA.
func (s *SA) Suite() proposal.IKE { return s.suite }

// Created is when the SA was made, here.
func (s *SA) Created() time.Time { return s.created }

// EstablishedAt is when both sides were authenticated; zero before.
func (s *SA) EstablishedAt() time.Time { return s.established }

// RekeyAt is when this side will rekey the SA; zero for never.
func (s *SA) RekeyAt() time.Time { return s.soft }

// NAT tells which sides are behind a NAT, and whether ESP is encapsulated in UDP.
func (s *SA) NAT() (local, remote, encap bool) { return s.natLocal, s.natRemote, s.encap }

// Origin tells where the SA, or what it was rekeyed from, came from.
func (s *SA) Origin() Origin { return s.origin }

// Usable reports whether new Child SAs can be made through the SA. One that the peer's rekey has made is not, as long as a
// rekey of this side may take its place.
func (s *SA) Usable() bool {
	return s.state == StateEstablished && s.predecessor == nil && !s.closing() && !s.redundant
}

// Children are the live Child SAs in the order of their making, without keys.
func (s *SA) Children() []sa.Child {
	var list []sa.Child
	for _, c := range s.children {
		if c.gone {
			continue
		}
		v := c.Child
		v.In, v.Out = sa.Keys{SPI: v.In.SPI}, sa.Keys{SPI: v.Out.SPI}
		list = append(list, v)
	}
	return list
}

// Busy reports whether an own exchange or job is under way or waits.
func (s *SA) Busy() bool {
	return s.current != nil || len(s.queue) > 0 || s.win.serving != nil || s.win.pending != nil || len(s.unfinished) > 0
}

// TakeNotes returns the notes since the last call.
func (s *SA) TakeNotes() []Note {
	n := s.notes
	s.notes = nil
	return n
}

func (s *SA) note(n Note) { s.notes = append(s.notes, n) }

// job is work that is under way, and what its result is for.
type job struct {
	id   ike.JobID
	then func(ike.Result)
}

// do starts a job whose result goes to then, unless the SA is closed before.
func (s *SA) do(work ike.Work, then func(ike.Result)) {
	s.jobs = append(s.jobs, job{s.host.Do(s.own, work), then})
}

// JobDone brings the result of a job of this SA.
func (s *SA) JobDone(now time.Time, id ike.JobID, r ike.Result) {
	s.now = now
	i := slices.IndexFunc(s.jobs, func(j job) bool { return j.id == id })
	if i < 0 {
		return
	}
	then := s.jobs[i].then
	s.jobs = slices.Delete(s.jobs, i, i+1)
	if s.state != StateClosed {
		then(r)
		s.advance()
	}
}

// fraction is a random number in [0, 1).
func (s *SA) fraction() float64 {
	b := s.host.Random(2)
	return float64(uint16(b[0])<<8|uint16(b[1])) / 65536
}

func newSA(host Host, now time.Time, cfg *ike.Config, initiator bool, local, remote netip.AddrPort) *SA {
	s := &SA{
		host: host, cfg: cfg, now: now, initiator: initiator,
		local: local, remote: remote,
		state: StateKeyExchange, created: now,
	}
	for s.own == 0 { // RFC 7296 3.1: an SPI MUST NOT be zero
		for _, b := range host.Random(8) {
			s.own = s.own<<8 | wire.SPI(b)
		}
	}
	s.lastHeard = now
	return s
}

// end closes the SA without telling the peer. Everything that waits for it fails with the same reason.
func (s *SA) end(reason ike.Reason, fault ike.Fault, detail string) {
	if s.state == StateClosed {
		return
	}
	failed := s.hs != nil
	var flows []ike.Flow
	if s.hs != nil && s.hs.flow != nil {
		flows = append(flows, *s.hs.flow)
	}
	for _, t := range s.tasks() {
		if n, ok := t.(*newChild); ok {
			flows = append(flows, n.flow)
		}
	}
	s.state = StateClosed
	s.current, s.queue, s.following = nil, nil, nil
	s.abandonAll()
	s.jobs = nil
	s.win.pending, s.win.serving = nil, nil
	for _, c := range s.children {
		s.uninstall(c, reason)
	}
	s.dropSuccessors(reason)
	s.keys.Wipe()
	s.hs = nil
	s.requests, s.responses = nil, nil
	s.linger = s.now
	if s.win.last.valid {
		s.linger = s.now.Add(RetransmitTotal)
	}
	s.trace("closed: %s", describe(reason, detail))
	s.note(Closed{Reason: reason, Fault: fault, Detail: detail, Flows: flows})
	if s.up || failed {
		s.host.Emit(ike.Down{
			IKE: ike.IKESPI(s.own), Peer: s.name(), Remote: s.remote, Reason: reason, Fault: fault, Detail: detail,
		})
	}
}

// name is the identity of the peer, or its address.
func (s *SA) name() string {
	if s.peerName != "" {
		return s.peerName
	}
	return s.remote.Addr().String()
}

func describe(reason ike.Reason, detail string) string {
	if detail == "" {
		return string(reason)
	}
	return string(reason) + ": " + detail
}

// Successor is the SA that a rekey has put in the place of this one, or nil.
func (s *SA) Successor() *SA { return s.successor }

// TakeTouched returns the SAs that calls into this one have changed since the last time.
func (s *SA) TakeTouched() []*SA {
	t := s.touched
	s.touched = nil
	return t
}

func (s *SA) touch(o *SA) { s.touched = append(s.touched, o) }

// Settled reports whether every Child SA that this side agreed to is in use.
func (s *SA) Settled() bool {
	for _, c := range s.children {
		if !c.gone && !c.confirm.IsZero() {
			return false
		}
	}
	return !s.Busy()
}
