package ike

import (
	"slices"
	"sync"
)

// Class tells what a Reason is the reason of.
type Class uint8

// The classes.
const (
	// ClassFailure is a negotiation that brought nothing, or an association that was lost.
	ClassFailure Class = iota + 1
	// ClassDrop is a message that was dropped without an answer; the association goes on.
	ClassDrop
	// ClassEnd is an association that ended in order.
	ClassEnd
)

// String names the class.
func (c Class) String() string {
	switch c {
	case ClassFailure:
		return "failure"
	case ClassDrop:
		return "drop"
	case ClassEnd:
		return "end"
	}
	return "unknown"
}

// Explanation is what an administrator wants to know of a Reason.
type Explanation struct {
	Reason  Reason
	Class   Class
	Fault   Fault  // the side that is usually at fault; a failure tells the side in its own case
	Meaning string // one sentence
	Remedy  string // what to do, one sentence
}

// ReasonTable explains every Reason but ReasonNone. The table is made anew for each call.
func ReasonTable() []Explanation {
	table := []Explanation{
		{ReasonTimeout, ClassFailure, FaultNetwork, "The peer did not answer at all, or not to the end.",
			"See whether the peer runs IKE, and whether UDP 500 and 4500 pass between the two, in both directions."},
		{ReasonLiveness, ClassFailure, FaultNetwork, "An established peer stopped answering.",
			"See whether the peer is up and the path to it works; the association is made anew when there is traffic."},
		{ReasonHalfOpen, ClassFailure, FaultNetwork, "A peer began and did not finish: its IKE_AUTH never came.",
			"Look at the peer's log; when it is large certificates, see whether fragments of UDP 4500 are lost on the path."},

		{ReasonNoProposal, ClassFailure, FaultPeer, "The two policies have no algorithms in common.",
			"Compare the offers of both policies; the trace shows what was offered."},
		{ReasonNotOffered, ClassFailure, FaultPeer, "The peer chose algorithms or selectors that this side had not offered.",
			"The peer violates the protocol: report it to its vendor; nothing here is wrong."},
		{ReasonTSUnacceptable, ClassFailure, FaultPeer, "No rule of the answering side covers the traffic.",
			"Compare the filters of both policies: what one side protects the other must protect, mirrored."},
		{ReasonModeDeclined, ClassFailure, FaultPeer, "The peer does not want the mode, transport or tunnel, that the rule wants.",
			"Give both policies the same mode."},
		{ReasonInvalidKE, ClassFailure, FaultPeer, "The peer's key exchange value is not valid, or of a method that was not agreed.",
			"Compare the groups of both policies; an invalid value with the right group is an error of the peer."},
		{ReasonNoPolicy, ClassFailure, FaultLocal, "The rule that asked for an association is not in the policy in force.",
			"Nothing, when the policy has just changed; else report it."},
		{ReasonNoOffers, ClassFailure, FaultLocal, "The policy offers no algorithms for IKE SAs.",
			"Give the policy a keyExchange section with at least one proposal."},
		{ReasonAuthNotAllowed, ClassFailure, FaultPeer, "The rule that covers the traffic does not allow the way in which the peer is authenticated.",
			"Give the rules for this peer the same authentication, or let the peer use the one that the rule wants."},
		{ReasonPeerRefused, ClassFailure, FaultPeer, "The peer refused with an error that has no reason of its own here.",
			"The detail names the notify; look at the peer's log."},

		{ReasonAuthFailed, ClassFailure, FaultPeer, "The peer could not prove who it is: its signature or preshared key is wrong.",
			"With preshared keys compare the files on both sides; with certificates see whether the peer's key belongs to its certificate."},
		{ReasonAuthRefused, ClassFailure, FaultLocal, "The peer did not accept the proof of this side.",
			"Look at the peer's log: only the peer knows why. Then compare the trust of the peer with the certificate or key of this side."},
		{ReasonUnknownIssuer, ClassFailure, FaultPeer, "The peer's certificate does not lead to a CA that this machine trusts.",
			"See whether the peer has joined the same fleet, and whether this machine has the current trust bundle."},
		{ReasonIssuerNotAllowed, ClassFailure, FaultPeer, "The peer's certificate is good, but not of the CA that the rule names.",
			"Change the CA in the rule, or give the peer a certificate of that CA."},
		{ReasonPeerNotInGroup, ClassFailure, FaultPeer, "The directory has the peer in none of the groups whose members the rule accepts.",
			"Nothing, when that was meant; else add the machine to a group of the rule, or change peerGroups there."},
		{ReasonCertExpired, ClassFailure, FaultPeer, "A certificate of the peer's chain has expired.",
			"Let the peer renew: see the status there; and compare the clocks of both machines."},
		{ReasonCertNotYetValid, ClassFailure, FaultPeer, "A certificate of the peer's chain is not valid yet.",
			"Compare the clocks of both machines."},
		{ReasonCertRevoked, ClassFailure, FaultPeer, "The peer's certificate is revoked.",
			"Nothing, when that was meant; else let the peer join again."},
		{ReasonCertInvalid, ClassFailure, FaultPeer, "The peer's certificate cannot be used: malformed, too weak a key, or not meant for IPsec.",
			"The detail says which; issue another certificate to the peer."},
		{ReasonIDMismatch, ClassFailure, FaultPeer, "The identity that the peer claims is not in its certificate, or not the one that the rule wants.",
			"Let the peer send an identity that is a subject alternative name of its certificate; compare it with the rule."},
		{ReasonNoCredential, ClassFailure, FaultLocal, "This machine has no certificate or preshared key that the rule allows.",
			"Join the machine, or set the preshared key that the rule names (bailiwick secret set), or put it into the secrets directory under that name."},
		{ReasonSignFailed, ClassFailure, FaultLocal, "This machine could not sign with its key.",
			"The detail says why; see whether the key file is there and belongs to the certificate."},

		{ReasonPeerDenied, ClassFailure, FaultPeer, "The directory does not admit the peer: its account is disabled or gone.",
			"Nothing, when that was meant; else enable the account in the directory, or let the peer join again."},
		{ReasonStandingUnknown, ClassFailure, FaultLocal, "The policy wants to know whether the peer is revoked, and the controller has not told lately.",
			"See why this machine has no session with its controller; or let the policy be content with what is known."},
		{ReasonNoPPK, ClassFailure, FaultPeer, "The rule wants a postquantum preshared key that one of the two sides does not have.",
			"Set the key that the rule names (bailiwick secret set --kind ppk), put it into the secrets directory of both machines under that name, or make it optional."},
		{ReasonReauthenticate, ClassEnd, FaultNone, "The time for which an authentication counts was over, and no new one was made.",
			"Nothing, when there was no traffic; else see why the new authentication failed."},

		{ReasonSyntax, ClassFailure, FaultPeer, "A message of the peer is malformed inside the protected part, or lacks what it must have.",
			"The peer violates the protocol: report it to its vendor, with the trace."},
		{ReasonPeerSyntax, ClassFailure, FaultLocal, "The peer says that a message of this side is malformed.",
			"Report it, with the trace of both sides."},
		{ReasonMalformed, ClassDrop, FaultPeer, "A datagram is no IKE message.",
			"Nothing, when there are few: anybody can send such datagrams."},
		{ReasonVersion, ClassDrop, FaultPeer, "A message is of another major version of IKE than 2.",
			"Configure the peer for IKEv2."},
		{ReasonUnknownSPI, ClassDrop, FaultPeer, "A message belongs to an IKE SA that this machine does not have (any more).",
			"Nothing: after a restart the peer notices by itself. Many of them from one peer: see whether that hangs on to an old SA."},
		{ReasonReflected, ClassDrop, FaultNetwork, "A message of this side came back to it.",
			"Look for a loop on the path; a few may be an attack, which has no effect."},
		{ReasonUnprotected, ClassDrop, FaultPeer, "A message that must be protected is not.",
			"Nothing: such messages are forged, or come from a peer that has lost its state and will begin anew."},
		{ReasonIntegrity, ClassDrop, FaultPeer, "The integrity check of a message failed.",
			"Nothing, when there are few: forged or damaged. All messages of a peer: it computed other keys, report it."},
		{ReasonMessageID, ClassDrop, FaultPeer, "The message ID is not the one that is expected: an old message, or one that runs ahead.",
			"Nothing: the network repeats and reorders, and peers retransmit."},
		{ReasonUnexpected, ClassDrop, FaultPeer, "A message of this kind has no place in the state of the IKE SA.",
			"Nothing, when there are few; else the peer violates the protocol: report it to its vendor, with the trace."},
		{ReasonBusy, ClassDrop, FaultNone, "A message came while the one before it was still being worked on.",
			"Nothing: the peer retransmits. Often: this machine has too little CPU for its peers."},

		{ReasonHalfOpenLimit, ClassFailure, FaultPeer, "Too many negotiations from one place, or in all, are not finished.",
			"Look where they come from: it may be an attack. Peers behind one NAT get in one after the other."},
		{ReasonFlowLimit, ClassFailure, FaultLocal, "Too many flows wait for an association at the same time.",
			"See whether many peers are down or unreachable while traffic to them goes on."},
		{ReasonRateLimit, ClassFailure, FaultPeer, "The peer asks for Child SAs or rekeys faster than this side serves them.",
			"Nothing: the peer is put off and tries again. Often with one peer: see why it rekeys all the time."},
		{ReasonBufferLimit, ClassDrop, FaultPeer, "Parts of messages of peers that are not authenticated take too much memory.",
			"Nothing: peers retransmit. When it goes on, look where the messages come from: it may be an attack."},
		{ReasonChildLimit, ClassFailure, FaultPeer, "The peer asks for more Child SAs than one IKE SA may have here.",
			"Let the rules cover more with one association: tunnel mode, or wider selectors."},
		{ReasonPeerLimit, ClassFailure, FaultPeer, "The peer does not want more Child SAs in this IKE SA.",
			"Look at the limits of the peer."},
		{ReasonMessageIDsUsed, ClassFailure, FaultLocal, "The IKE SA has used every message ID and was not rekeyed in time.",
			"Nothing: it is made anew when there is traffic. See why its rekey failed."},
		{ReasonTemporaryFailure, ClassFailure, FaultPeer, "The peer put this side off for minutes, and nothing else.",
			"Nothing: the IKE SA is made anew. Often with one peer: look at its log."},

		{ReasonDeletedByPeer, ClassEnd, FaultPeer, "The peer deleted the association.",
			"Nothing; the peer's log tells why."},
		{ReasonDeleted, ClassEnd, FaultNone, "This side deleted the association, by command.",
			"Nothing."},
		{ReasonRekeyed, ClassEnd, FaultNone, "A new association has taken its place.",
			"Nothing."},
		{ReasonExpired, ClassEnd, FaultLocal, "The hard limit was reached without a rekey.",
			"See why the rekeys before failed."},
		{ReasonIdle, ClassEnd, FaultNone, "Nothing was carried for long.",
			"Nothing."},
		{ReasonPolicyChanged, ClassEnd, FaultLocal, "The policy in force does not allow the association any more.",
			"Nothing."},
		{ReasonRedundant, ClassEnd, FaultNone, "Both sides made the same at the same time; one of the two was enough.",
			"Nothing."},
		{ReasonAddressChanged, ClassEnd, FaultNone, "An address of either side is gone, and what was bound to it could not follow.",
			"Nothing: the association is made anew when there is traffic. Allow mobility in the policy to keep tunnels alive."},
		{ReasonPeerRestarted, ClassEnd, FaultPeer, "The peer has proved that it lost the association in a restart.",
			"Nothing: it is made anew when there is traffic."},
		{ReasonInitialContact, ClassEnd, FaultPeer, "The peer has started anew and knows nothing of what was before.",
			"Nothing, when it was restarted on purpose."},
		{ReasonShutdown, ClassEnd, FaultNone, "The side that says so stops.",
			"Nothing."},

		{ReasonInstallFailed, ClassFailure, FaultLocal, "The datapath refused the association.",
			"The log of the datapath says why."},
		{ReasonJobTimeout, ClassFailure, FaultLocal, "A computation of this side did not end in time.",
			"See whether the machine is overloaded, or its key store hangs."},
		{ReasonInternal, ClassFailure, FaultLocal, "An error in this program; only this association is concerned.",
			"Report it, with the log."},
	}
	return slices.Clip(table)
}

// Explain returns the row of a reason; ok is false for one that has none.
func Explain(r Reason) (e Explanation, ok bool) {
	if e, ok = explanations()[r]; !ok {
		e.Reason = r
	}
	return e, ok
}

// explanations are the rows by their reasons. They are constants, put in order when first needed.
var explanations = sync.OnceValue(func() map[Reason]Explanation {
	rows := make(map[Reason]Explanation)
	for _, e := range ReasonTable() {
		rows[e.Reason] = e
	}
	return rows
})

// Fault is the side that is usually at fault.
func (r Reason) Fault() Fault {
	e, _ := Explain(r)
	return e.Fault
}

// Class tells what it is the reason of.
func (r Reason) Class() Class {
	e, _ := Explain(r)
	return e.Class
}
