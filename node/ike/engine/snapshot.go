package engine

import (
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// Snapshot is the state of an engine at one moment, as values without secrets.
type Snapshot struct {
	SAs      []SA
	Failures []Failure // the latest last, at most LimitFailures
	Waiting  []Waiting
	Counters map[string]uint64
}

// SA is one IKE SA.
type SA struct {
	SPI, PeerSPI  uint64 // SPI, PeerSPI: own one and that of the peer
	Initiator     bool   // this side is the original initiator
	State         string
	Busy          bool   // an exchange of either side is under way
	Peer          string // identity, empty before authentication
	Auth          string // "certificate" or "preshared key", empty before authentication
	Local, Remote netip.AddrPort
	Suite         proposal.IKE
	NATLocal      bool // this side is behind a NAT
	NATRemote     bool
	Encap         bool
	Created       time.Time
	Established   time.Time  // zero before
	Rekey         time.Time  // when this side will rekey it
	Children      []sa.Child // without keys
}

// Failure is one negotiation that failed.
type Failure struct {
	Time   time.Time
	Remote netip.Addr
	Peer   string // identity when known
	Rule   string // rule of the flow that asked; empty for a peer's request
	Child  bool   // a Child SA failed, not the IKE SA
	Reason ike.Reason
	Fault  ike.Fault
	Detail string
}

// Waiting is a flow that waits for an association.
type Waiting struct {
	Flow    ike.Flow
	Since   time.Time
	Cleared bool // clear traffic was granted meanwhile
}
