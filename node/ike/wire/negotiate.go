package wire

import (
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// SAFromIKE writes the offers for an IKE SA as proposals, most preferred first. spi is 0 in IKE_SA_INIT and the new
// SPI when an IKE SA is rekeyed.
func SAFromIKE(own []proposal.IKE, spi SPI) SA { return SA{} }

// SAFromESP writes the offers for a Child SA as proposals. withGroup is true in CREATE_CHILD_SA; IKE_AUTH carries no
// key exchange, so there it is false and the groups of the offers are left out (RFC 7296 1.2).
func SAFromESP(own []proposal.ESP, spi sa.SPI, withGroup bool) SA { return SA{} }

// ChooseIKE picks, as responder, the first of the own offers that one of the peer's proposals contains.
func ChooseIKE(own []proposal.IKE, offered SA) (chosen proposal.IKE, number uint8, ok bool) {
	return proposal.IKE{}, 0, false
}

// ChooseESP picks, as responder, the first of the own offers that one of the peer's proposals contains. Without
// withGroup (IKE_AUTH) the groups of the own offers are ignored and the chosen one has GroupNone. Where the peer offers
// both kinds of sequence numbers the extended ones are chosen.
func ChooseESP(own []proposal.ESP, offered SA, withGroup bool) (chosen proposal.ESP, number uint8, ok bool) {
	return proposal.ESP{}, 0, false
}

// AnswerIKE is the SA payload with which the responder tells its choice. spi is 0 in IKE_SA_INIT.
func AnswerIKE(chosen proposal.IKE, number uint8, offered SA, spi SPI) SA { return SA{} }

// AnswerESP is the SA payload with which the responder tells its choice.
func AnswerESP(chosen proposal.ESP, number uint8, offered SA, spi sa.SPI) SA { return SA{} }

// AcceptIKE checks, as initiator, that the answer is one of the own offers, exactly as SAFromIKE wrote them, and
// returns it. peer is the responder's SPI in a rekey and 0 in IKE_SA_INIT; rekey tells which of the two is expected.
func AcceptIKE(own []proposal.IKE, answer SA, rekey bool) (chosen proposal.IKE, peer SPI, err error) {
	return proposal.IKE{}, 0, &Error{Notify: NotifyNoProposalChosen}
}

// AcceptESP checks, as initiator, that the answer is one of the own offers, exactly as SAFromESP wrote them, and
// returns it with the responder's inbound SPI.
func AcceptESP(own []proposal.ESP, answer SA, withGroup bool) (chosen proposal.ESP, peer sa.SPI, err error) {
	return proposal.ESP{}, 0, &Error{Notify: NotifyNoProposalChosen}
}

// OfferedSPI returns the SPI of the proposal with this number: the initiator's inbound SPI of a Child SA.
func (p SA) OfferedSPI(number uint8) (sa.SPI, bool) { return 0, false }

// OfferedIKESPI returns the SPI of the proposal with this number: the initiator's SPI of a rekeyed IKE SA.
func (p SA) OfferedIKESPI(number uint8) (SPI, bool) { return 0, false }
