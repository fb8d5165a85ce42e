package analyze

import (
	"fmt"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Result is what becomes of packets.
type Result uint8

// The results, the worst first: an exchange is as good as the worst of its directions.
const (
	Blocked  Result = iota + 1
	Fallback        // in clear, because a peer is silent or while a negotiation runs
	Clear           // in clear, as the policies say
	IPsec
)

var resultNames = map[Result]string{Blocked: "blocked", Clear: "clear", Fallback: "fallback", IPsec: "ipsec"}

// String names the result, for programs.
func (r Result) String() string {
	if name, ok := resultNames[r]; ok {
		return name
	}
	return fmt.Sprintf("result(%d)", uint8(r))
}

// Code says why a packet, or a negotiation, ends as it does, for programs.
type Code string

// The codes of packets.
const (
	CodeProtected    Code = "protected"             // through an association
	CodePermitted    Code = "permitted"             // by rules that permit
	CodeNoFilter     Code = "no-filter"             // no filter of the policy describes the packet, so it passes
	CodeExempt       Code = "exempt"                // an exemption that no rule overrides
	CodeInpass       Code = "accepted-in-clear"     // the receiver wants security and accepts this in clear
	CodeSoft         Code = "fallback-silent"       // the peer answers no IKE, and the sender falls back to clear
	CodeDiscover     Code = "fallback-discover"     // in clear while security is being asked for
	CodeRule         Code = "blocked-by-rule"       // a rule that blocks
	CodeSilent       Code = "peer-silent"           // the peer answers no IKE, and nothing grants clear traffic
	CodeClearRefused Code = "clear-not-accepted"    // the receiver wants security, and the packet comes in clear
	CodeWrongSA      Code = "wrong-association"     // the receiver wants another association than the one the packet uses
	CodeMulticast    Code = "multicast"             // nobody can negotiate with a group
	CodeUnknown      Code = "unknown-address"       // an address that the machine has not reported
	CodeNoRequest    Code = "no-request"            // there is nothing to answer
	CodeNotMade      Code = "cannot-negotiate"      // the two ends answered each other and did not agree
	CodeElsewhere    Code = "tunnel-elsewhere"      // the tunnel ends at a gateway that is not looked at here
	CodeOneWay       Code = "protected-differently" // one direction is protected and the other is not
)

// The codes of mismatches, in the order in which a negotiation comes to them.
const (
	CodeNoCredential Code = "no-credential"  // the initiator has no credential that its rule allows
	CodeIKEOffers    Code = "ike-offers"     // no offer for the IKE SA in common
	CodeTranscript   Code = "transcript"     // one side requires what the other one never does
	CodePPK          Code = "ppk"            // a postquantum preshared key that the other side does not use
	CodeAuth         Code = "authentication" // no way to authenticate that both allow
	CodeMode         Code = "mode"           // transport mode here, tunnel mode there
	CodeSelectors    Code = "selectors"      // the responder has no rule that negotiates the traffic
	CodeGroups       Code = "peer-groups"    // one side is in none of the groups that the other one accepts
	CodeESPOffers    Code = "esp-offers"     // no offer for the Child SA in common
	CodePFS          Code = "pfs-group"      // offers in common, but not with the same key exchange
)

// End is one side of a flow: a machine with its policy and what is known of it. The zero value is a machine that has
// never heard of IPsec.
type End struct {
	Name string
	// Set is the policy with the machine's addresses.
	Set spd.Set
	// Node tells that the machine runs the node daemon, so that it answers IKE. A machine without it is silent.
	Node bool
	// Identity is what the machine claims to be in IKE, in the notation of spd.Auth; empty claims its address.
	Identity string
	// Authorities are the subjects (RFC 4514) of the CAs above the machine's certificate. Nil means that they are not
	// known; then a rule that names a CA is taken to accept the machine.
	Authorities []string
	// Groups are the names of the groups of the directory that the machine is in, of those that rules name.
	Groups []string
	// NoCertificate tells that the machine has not joined, so that it cannot authenticate by certificate.
	NoCertificate bool
	// Missing are the names of secrets that the machine's policy uses and the machine does not have. Secrets of one name
	// are taken to be the same.
	Missing []string
}

// Mismatch is the first thing that two ends do not agree about.
type Mismatch struct {
	Code     Code
	Sentence string
	// Initiator and Responder are what either end has to offer, most preferred first.
	Initiator, Responder []string
}

// Negotiation is what IKE between the two ends comes to. The zero Mismatch means that the association is made.
type Negotiation struct {
	Initiator, Responder string // names of the ends
	InitiatorRule        string
	ResponderRule        string // empty for the default response
	DefaultResponse      bool   // of the responder
	IKE                  proposal.IKE
	InitiatorAuth        spd.Auth
	ResponderAuth        spd.Auth
	ESP                  proposal.ESP
	Tunnel               bool
	// InitiatorSelectors and ResponderSelectors are the traffic of the association on either side.
	InitiatorSelectors, ResponderSelectors []spd.Selector
	// Silent tells that the responder does not answer at all.
	Silent bool
	// Elsewhere is the gateway that the tunnel leads to, if it is neither of the two ends.
	Elsewhere string
	Mismatch  *Mismatch // nil when they agree
	// Later is what keeps the association from being rekeyed; the first one is made without a key exchange of its own.
	Later *Mismatch
}

// Made reports whether there is an association.
func (n *Negotiation) Made() bool { return n != nil && !n.Silent && n.Mismatch == nil }

// Step is what becomes of one packet.
type Step struct {
	Packet   spd.Packet
	Sender   spd.Match // what the sender's policy says of it
	Receiver spd.Match // what the receiver's policy says of it
	Result   Result
	Code     Code
	Sentence string
	// Negotiation is what the packet set off; nil if nothing.
	Negotiation *Negotiation

	via *association // that carried it
}

// Outcome is what becomes of a flow: a first packet, the answer to it, and those that follow.
type Outcome struct {
	From, To string
	Request  Step // the first packet
	Reply    Step // the first answer
	// LaterRequest and LaterReply are the packets after those, when every negotiation is over.
	LaterRequest, LaterReply Step
	// Result is the worst of the later packets: what the flow comes to.
	Result   Result
	Code     Code
	Sentence string
}

// Negotiation returns the negotiation that decided, nil if there was none: the one that made the association, else the
// last one that did not.
func (o *Outcome) Negotiation() *Negotiation {
	var last *Negotiation
	for _, s := range o.Steps() {
		if s.Negotiation == nil {
			continue
		}
		last = s.Negotiation
		if last.Made() {
			return last
		}
	}
	return last
}

// Steps returns the packets in the order of time.
func (o *Outcome) Steps() []*Step {
	return []*Step{&o.Request, &o.Reply, &o.LaterRequest, &o.LaterReply}
}
