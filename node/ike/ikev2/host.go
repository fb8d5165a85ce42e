package ikev2

import (
	"net/netip"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Host is what an SA needs of the engine that holds it.
type Host interface {
	// Random returns n octets of the engine's seeded source.
	Random(n int) []byte
	// ChildSPI returns an inbound SPI that no Child SA of this machine uses, in a lane of 0 to 63 or in any.
	ChildSPI(lane sa.Lane) sa.SPI
	// Do starts a job; its result comes back by SA.JobDone of the SA with this own SPI.
	Do(own wire.SPI, work ike.Work) ike.JobID
	// Emit appends an action to those that the current Step returns.
	Emit(a ike.Action)
	// FirstContact reports whether no other IKE SA with the peer at remote exists or is being made (RFC 7296 2.4).
	FirstContact(own wire.SPI, remote netip.Addr) bool
	// Addresses are this machine's own addresses, as far as they are known.
	Addresses() []netip.Addr
	// Room reports whether n octets more may be kept of messages of peers that are not authenticated.
	Room(n int) bool
}

// Note is what an SA tells its engine, in order. The set is closed.
type Note interface{ note() }

// Answered says that the peer gave a valid answer, whatever it said: it is not silent.
type Answered struct{}

// Established says that both sides are authenticated. InitialContact tells that the peer asserts this to be its only SA.
type Established struct{ InitialContact bool }

// ChildUp says that a new Child SA, not a rekeyed one, is installed.
type ChildUp struct{ Child sa.Child }

// FlowFailed says that the negotiation for a flow failed. PeerRefused tells that a peer whom the flow reached refused.
type FlowFailed struct {
	Flow   ike.Flow
	Reason ike.Reason
	Fault  ike.Fault
	Detail string
	// AuthRefused says that authentication failed, so that the next entry of the rule's list may be tried.
	AuthRefused bool
}

// Successor brings a new SA that a rekey of this one made.
type Successor struct{ SA *SA }

// Closed says that the SA is over. It may stay in its table until Deadline passes, to repeat its last response.
type Closed struct {
	Reason ike.Reason
	Fault  ike.Fault
	Detail string
	// Flows are those that still waited for this SA.
	Flows []ike.Flow
}

func (Answered) note()    {}
func (Established) note() {}
func (ChildUp) note()     {}
func (FlowFailed) note()  {}
func (Successor) note()   {}
func (Closed) note()      {}
