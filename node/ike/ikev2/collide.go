package ikev2

import (
	"bytes"
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/ike/impair"
)

// What happens when both sides act at the same time (RFC 7296 2.8, 2.25 and 1.4.1). This file is the only one that
// decides it; the exchanges ask here.
//
// When both sides rekey the same SA, two new ones exist for a moment. The lowest of the four nonces marks the exchange
// whose SA is redundant: its creator deletes that one, the creator of the other deletes the old SA. A rekey is
// remembered at the old SA by its responder (child.peerRekey, succession.peerRekey) and compared when the own response
// comes, however late. What each side then does:
//
//	both responses seen             loser deletes its own new SA, winner deletes the old one
//	delete of the old SA first      it is answered; the late response still decides about the new SA
//	delete of the new SA first      its SPI is unknown: answered empty, remembered; the late response makes nothing
//	own request late                TEMPORARY_FAILURE: the peer's new SA stands, the own rekey is over
//	own request later still         CHILD_SA_NOT_FOUND: the same
//	rekey of what is not known yet  TEMPORARY_FAILURE, as long as an own response may make it
//	delete against rekey            TEMPORARY_FAILURE or CHILD_SA_NOT_FOUND, whichever comes, ends the rekey
//	Child SA against IKE SA         both sides answer TEMPORARY_FAILURE and try again with jitter
//	delete of the IKE SA            wins over everything
//
// A rekey with additional key exchanges (RFC 9370) is complete with its last IKE_FOLLOWUP_KE only; until then there is
// nothing to delete, and its responder remembers it as unfinished. The nonces of its CREATE_CHILD_SA decide as soon as
// both responses to CREATE_CHILD_SA were seen:
//
//	both unfinished                 winner goes on with IKE_FOLLOWUP_KE, loser stops; each forgets what the other began
//	own unfinished and lost         it stops; the peer's is there already, or will be when the peer goes on
//	own complete and lost           it is deleted, as usual, and the peer goes on
//	own won                         the peer stops, or deletes what it has completed
//	request after own FOLLOWUP_KE   TEMPORARY_FAILURE: the peer had seen nothing of the collision, its rekey is over
//	unknown link                    STATE_NOT_FOUND: the initiator begins anew

// situation is what this side is doing when a request of the peer comes in.
type situation uint8

// The situations.
const (
	idle           situation = iota
	rekeyingChild            // own rekey of the same Child SA is outstanding
	followingChild           // own rekey of it has come to IKE_FOLLOWUP_KE
	deletingChild            // own delete of it is outstanding or next, or its successor is installed
	creatingChild            // own new Child SA is outstanding
	rekeyingIKE              // own rekey of the IKE SA is outstanding
	followingIKE             // own rekey of the IKE SA has come to IKE_FOLLOWUP_KE
	rekeyedIKE               // a successor of the IKE SA holds the Child SAs
	deletingIKE              // own delete of the IKE SA is outstanding or next
	unknownChild             // there is no such Child SA
	expectedChild            // there is none yet: the response to an own request is under way, and may make it
	situations
)

// String names the situation.
func (s situation) String() string {
	return [...]string{
		"idle", "rekeying child", "following up child", "deleting child", "creating child", "rekeying IKE", "following up IKE",
		"IKE rekeyed", "deleting IKE", "unknown child", "expected child",
	}[s]
}

// incoming is what the peer asks for.
type incoming uint8

// The requests.
const (
	rekeyChildIn incoming = iota
	deleteChildIn
	createChildIn
	rekeyIKEIn
	deleteIKEIn
	incomings
)

// String names the request.
func (i incoming) String() string {
	return [...]string{"rekey child", "delete child", "create child", "rekey IKE", "delete IKE"}[i]
}

// verdict is what to do with a request.
type verdict uint8

// The verdicts.
const (
	impossible verdict = iota // the combination cannot come up
	proceed                   // as usual
	collide                   // as usual, and the nonces decide later
	temporary                 // TEMPORARY_FAILURE
	notFound                  // CHILD_SA_NOT_FOUND
	replyPlain                // answer without a Delete payload
	successorD                // the successor of the IKE SA holds the Child SA: delete it there
	dropAll                   // answer and forget everything that is under way
)

// String names the verdict.
func (v verdict) String() string {
	return [...]string{
		"-", "as usual", "as usual, nonces decide", "TEMPORARY_FAILURE", "CHILD_SA_NOT_FOUND", "reply without D",
		"delete at the successor", "reply, drop all",
	}[v]
}

// collisions is the table.
var collisions = [situations][incomings]verdict{
	//              rekey child  delete child  create child  rekey IKE  delete IKE
	idle:           {proceed, proceed, proceed, proceed, dropAll},
	rekeyingChild:  {collide, proceed, proceed, temporary, dropAll},
	followingChild: {temporary, proceed, proceed, temporary, dropAll},
	deletingChild:  {temporary, replyPlain, proceed, temporary, dropAll},
	creatingChild:  {proceed, proceed, proceed, temporary, dropAll},
	rekeyingIKE:    {temporary, proceed, temporary, collide, dropAll},
	followingIKE:   {temporary, proceed, temporary, temporary, dropAll},
	rekeyedIKE:     {temporary, successorD, temporary, temporary, dropAll},
	deletingIKE:    {temporary, proceed, temporary, temporary, dropAll},
	unknownChild:   {notFound, replyPlain, impossible, impossible, impossible},
	expectedChild:  {temporary, replyPlain, impossible, impossible, impossible},
}

// judge looks up what to do with a request; c is the Child SA that it names, nil when there is none or it names none.
func (s *SA) judge(in incoming, c *child) verdict {
	v := collisions[s.situation(in, c)][in]
	if v == impossible {
		panic(fmt.Sprintf("ikev2: %s while %s has no verdict", in, s.situation(in, c)))
	}
	if v == temporary && impair.On(impair.RefuseNothing) {
		return proceed
	}
	return v
}

func (s *SA) situation(in incoming, c *child) situation {
	switch {
	case s.state == StateRekeyed:
		return rekeyedIKE
	case s.closing():
		return deletingIKE
	}
	current, rekeying := s.current.(*rekeyIKE)
	named := in == rekeyChildIn || in == deleteChildIn
	switch {
	case named && (c == nil || c.gone):
		if rekeying && current.sent && in == rekeyChildIn {
			return rekeyingIKE // answers the same as following up
		}
		if s.expectsChild() {
			return expectedChild
		}
		return unknownChild
	case rekeying && s.following != nil:
		return followingIKE
	case rekeying && (current.sent || in != rekeyIKEIn):
		return rekeyingIKE
	case named && (c.deleting || c.replaced), in == rekeyChildIn && s.deleteWaits(c):
		return deletingChild
	}
	switch t := s.current.(type) {
	case *rekeyChild:
		switch {
		case named && t.old != c:
		case s.following != nil:
			return followingChild
		default:
			return rekeyingChild
		}
	case *deleteChild:
		if !named {
			return deletingChild
		}
	case *newChild:
		return creatingChild
	}
	return idle
}

// expectsChild reports whether the response to an own request may make a Child SA that the peer knows already.
func (s *SA) expectsChild() bool {
	switch s.current.(type) {
	case *rekeyChild, *newChild:
		return true
	default:
		return false
	}
}

// losesTo reports whether the own rekey ex of c, or of the IKE SA, is redundant beside an unfinished one of the peer. When
// it is not, the peer stops, and what it began is forgotten.
func (s *SA) losesTo(ex Exchange, in incoming, c *child) bool {
	u := s.unfinishedRekey(in, c)
	if u == nil {
		return false
	}
	if ex.lowest(u.ex) {
		return true
	}
	s.abandon(u)
	return false
}

// lowest reports whether the lowest of all nonces is one of a: then what a made is redundant. Nonces are compared octet
// by octet; of two with a common beginning the shorter is lower (RFC 7296 2.8.1).
func (a Exchange) lowest(b Exchange) bool {
	return bytes.Compare(minNonce(a), minNonce(b)) < 0 != impair.On(impair.WrongTieBreak)
}

// Loses reports whether what exchange a made is redundant beside what b made.
func (a Exchange) Loses(b Exchange) bool { return a.lowest(b) }

func minNonce(e Exchange) []byte {
	if bytes.Compare(e.Nr, e.Ni) < 0 {
		return e.Nr
	}
	return e.Ni
}
