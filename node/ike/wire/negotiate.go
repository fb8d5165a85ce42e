package wire

import (
	"encoding/binary"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

const (
	ikeSPILen = 8
	espSPILen = 4
	// lowestESPSPI is the first SPI that is not reserved (RFC 4303 2.1).
	lowestESPSPI = 256
)

// SAFromIKE writes the offers for an IKE SA as proposals, most preferred first. Neighbouring offers share a proposal
// when every combination that it then expresses is one of the offers. spi is 0 in IKE_SA_INIT and the new SPI when an
// IKE SA is rekeyed. More than 255 proposals cannot be numbered; those beyond are not offered.
func SAFromIKE(own []proposal.IKE, spi SPI) SA {
	var p SA
	for i, o := range mergeIKE(own) {
		if i == 255 {
			break
		}
		prop := Proposal{Number: uint8(i + 1), Protocol: ProtocolIKE, Transforms: o.transforms(true)}
		if spi != 0 {
			prop.SPI = spi.Append(nil)
		}
		p.Proposals = append(p.Proposals, prop)
	}
	return p
}

// SAFromESP writes the offers for a Child SA as proposals, as SAFromIKE does; both kinds of sequence numbers are
// offered. withGroup is true in CREATE_CHILD_SA; IKE_AUTH carries no key exchange, so there it is false and the groups
// of the offers are left out (RFC 7296 1.2).
func SAFromESP(own []proposal.ESP, spi sa.SPI, withGroup bool) SA {
	var p SA
	for i, o := range mergeESP(own, withGroup) {
		if i == 255 {
			break
		}
		transforms := append(o.transforms(false),
			Transform{Type: TransformESN, ID: ESNYes}, Transform{Type: TransformESN, ID: ESNNo})
		p.Proposals = append(p.Proposals, Proposal{
			Number:     uint8(i + 1),
			Protocol:   ProtocolESP,
			SPI:        binary.BigEndian.AppendUint32(nil, uint32(spi)),
			Transforms: transforms,
		})
	}
	return p
}

// ChooseIKE picks, as responder, the first of the own offers that one of the peer's proposals contains.
func ChooseIKE(own []proposal.IKE, offered SA) (chosen proposal.IKE, number uint8, ok bool) {
	chosen, ok = proposal.First(own, func(o proposal.IKE) bool {
		i := slices.IndexFunc(offered.Proposals, func(p Proposal) bool {
			return p.Protocol == ProtocolIKE && (len(p.SPI) == 0 || len(p.SPI) == ikeSPILen) && p.containsIKE(o)
		})
		if i >= 0 {
			number = offered.Proposals[i].Number
		}
		return i >= 0
	})
	return chosen, number, ok
}

// ChooseESP picks, as responder, the first of the own offers that one of the peer's proposals contains. Without
// withGroup (IKE_AUTH) the groups of the own offers are ignored and the chosen one has GroupNone. Where the peer offers
// both kinds of sequence numbers the extended ones are chosen.
func ChooseESP(own []proposal.ESP, offered SA, withGroup bool) (chosen proposal.ESP, number uint8, ok bool) {
	esn := false
	chosen, ok = proposal.First(own, func(o proposal.ESP) bool {
		if !withGroup {
			o.Group, o.Additional = proposal.GroupNone, proposal.Additional{}
		}
		i := slices.IndexFunc(offered.Proposals, func(p Proposal) bool {
			_, valid := p.espSPI()
			return valid && p.containsESP(o)
		})
		if i >= 0 {
			number, esn = offered.Proposals[i].Number, offered.Proposals[i].has(TransformESN, ESNYes, 0)
		}
		return i >= 0
	})
	if !ok {
		return proposal.ESP{}, 0, false
	}
	if !withGroup {
		chosen.Group, chosen.Additional = proposal.GroupNone, proposal.Additional{}
	}
	chosen.ESN = esn
	return chosen, number, true
}

// AnswerIKE is the SA payload with which the responder tells its choice. It names one transform of every type that the
// offered proposal has (RFC 7296 2.7), so that NONE is repeated to those who wrote it. spi is 0 in IKE_SA_INIT.
func AnswerIKE(chosen proposal.IKE, number uint8, offered SA, spi SPI) SA {
	prop := Proposal{Number: number, Protocol: ProtocolIKE, Transforms: []Transform{
		{Type: TransformEncryption, ID: uint16(chosen.Encryption), KeyBits: chosen.KeyBits}}}
	p, _ := offered.proposal(number)
	if chosen.Integrity != proposal.IntegNone || p.hasType(TransformIntegrity) {
		prop.Transforms = append(prop.Transforms, Transform{Type: TransformIntegrity, ID: uint16(chosen.Integrity)})
	}
	prop.Transforms = append(prop.Transforms,
		Transform{Type: TransformPRF, ID: uint16(chosen.PRF)}, Transform{Type: TransformGroup, ID: uint16(chosen.Group)})
	prop.Transforms = append(prop.Transforms, answerAdditional(chosen.Additional, p)...)
	if spi != 0 {
		prop.SPI = spi.Append(nil)
	}
	return SA{Proposals: []Proposal{prop}}
}

// AnswerESP is the SA payload with which the responder tells its choice, as AnswerIKE does.
func AnswerESP(chosen proposal.ESP, number uint8, offered SA, spi sa.SPI) SA {
	prop := Proposal{Number: number, Protocol: ProtocolESP, SPI: binary.BigEndian.AppendUint32(nil, uint32(spi)),
		Transforms: []Transform{{Type: TransformEncryption, ID: uint16(chosen.Encryption), KeyBits: chosen.KeyBits}}}
	p, _ := offered.proposal(number)
	if chosen.Integrity != proposal.IntegNone || p.hasType(TransformIntegrity) {
		prop.Transforms = append(prop.Transforms, Transform{Type: TransformIntegrity, ID: uint16(chosen.Integrity)})
	}
	if chosen.Group != proposal.GroupNone || p.hasType(TransformGroup) {
		prop.Transforms = append(prop.Transforms, Transform{Type: TransformGroup, ID: uint16(chosen.Group)})
	}
	prop.Transforms = append(prop.Transforms, answerAdditional(chosen.Additional, p)...)
	esn := ESNNo
	if chosen.ESN {
		esn = ESNYes
	}
	prop.Transforms = append(prop.Transforms, Transform{Type: TransformESN, ID: esn})
	return SA{Proposals: []Proposal{prop}}
}

// AcceptIKE checks, as initiator, that the answer is one of the own offers, exactly as SAFromIKE wrote them, and
// returns it. peer is the responder's SPI in a rekey and 0 in IKE_SA_INIT; rekey tells which of the two is expected.
func AcceptIKE(own []proposal.IKE, answer SA, rekey bool) (chosen proposal.IKE, peer SPI, err error) {
	p, err := answer.single(ProtocolIKE)
	if err != nil {
		return proposal.IKE{}, 0, err
	}
	if rekey {
		spi, ok := p.ikeSPI()
		if !ok {
			return proposal.IKE{}, 0, refusef("answer to the rekey of an IKE SA with an SPI of %d octets", len(p.SPI))
		}
		peer = spi
	} else if len(p.SPI) != 0 { // RFC 7296 3.3.1: zero size in the initial exchange
		return proposal.IKE{}, 0, refusef("answer to IKE_SA_INIT with an SPI of %d octets", len(p.SPI))
	}
	offers := mergeIKE(own)
	if int(p.Number) > len(offers) {
		return proposal.IKE{}, 0, refusef("answer with proposal number %d of %d", p.Number, len(offers))
	}
	for o := range offers[p.Number-1].each {
		if p.containsIKE(o.ike()) {
			return o.ike(), peer, nil
		}
	}
	return proposal.IKE{}, 0, refusef("answer with a combination that proposal %d did not offer", p.Number)
}

// AcceptESP checks, as initiator, that the answer is one of the own offers, exactly as SAFromESP wrote them, and
// returns it with the responder's inbound SPI.
func AcceptESP(own []proposal.ESP, answer SA, withGroup bool) (chosen proposal.ESP, peer sa.SPI, err error) {
	p, err := answer.single(ProtocolESP)
	if err != nil {
		return proposal.ESP{}, 0, err
	}
	peer, ok := p.espSPI()
	if !ok {
		return proposal.ESP{}, 0, refusef("answer for ESP with SPI %x", p.SPI)
	}
	offers := mergeESP(own, withGroup)
	if int(p.Number) > len(offers) {
		return proposal.ESP{}, 0, refusef("answer with proposal number %d of %d", p.Number, len(offers))
	}
	for o := range offers[p.Number-1].each {
		if c := o.esp(); p.containsESP(c) {
			c.ESN = p.has(TransformESN, ESNYes, 0)
			return c, peer, nil
		}
	}
	return proposal.ESP{}, 0, refusef("answer with a combination that proposal %d did not offer", p.Number)
}

// OfferedSPI returns the SPI of the proposal with this number: the initiator's inbound SPI of a Child SA.
func (p SA) OfferedSPI(number uint8) (sa.SPI, bool) {
	prop, ok := p.proposal(number)
	if !ok {
		return 0, false
	}
	return prop.espSPI()
}

// OfferedIKESPI returns the SPI of the proposal with this number: the initiator's SPI of a rekeyed IKE SA.
func (p SA) OfferedIKESPI(number uint8) (SPI, bool) {
	prop, ok := p.proposal(number)
	if !ok {
		return 0, false
	}
	return prop.ikeSPI()
}

func (p SA) proposal(number uint8) (Proposal, bool) {
	for _, prop := range p.Proposals {
		if prop.Number == number {
			return prop, true
		}
	}
	return Proposal{}, false
}

// single returns the only proposal of an answer, after checking that it names one transform of each type at most
// (RFC 7296 3.3.6).
func (p SA) single(protocol Protocol) (Proposal, error) {
	if len(p.Proposals) != 1 {
		return Proposal{}, refusef("answer with %d proposals", len(p.Proposals))
	}
	prop := p.Proposals[0]
	if prop.Protocol != protocol {
		return Proposal{}, refusef("answer for %s, asked for %s", prop.Protocol, protocol)
	}
	if prop.Number == 0 {
		return Proposal{}, refusef("answer with proposal number 0")
	}
	for i, t := range prop.Transforms {
		if slices.ContainsFunc(prop.Transforms[:i], func(o Transform) bool { return o.Type == t.Type }) {
			return Proposal{}, refusef("answer with more than one %s transform", t.Type)
		}
	}
	return prop, nil
}

func (p Proposal) espSPI() (sa.SPI, bool) {
	if p.Protocol != ProtocolESP || len(p.SPI) != espSPILen {
		return 0, false
	}
	spi := binary.BigEndian.Uint32(p.SPI)
	return sa.SPI(spi), spi >= lowestESPSPI
}

func (p Proposal) ikeSPI() (SPI, bool) {
	if p.Protocol != ProtocolIKE || len(p.SPI) != ikeSPILen {
		return 0, false
	}
	spi := SPI(binary.BigEndian.Uint64(p.SPI))
	return spi, spi != 0
}

// has reports whether the transform is listed without attributes that this program does not know.
func (p Proposal) has(t TransformType, id, bits uint16) bool {
	return slices.ContainsFunc(p.Transforms, func(o Transform) bool {
		return o.Type == t && o.ID == id && o.KeyBits == bits && len(o.Other) == 0
	})
}

func (p Proposal) hasType(t TransformType) bool {
	return slices.ContainsFunc(p.Transforms, func(o Transform) bool { return o.Type == t })
}

// hasOrNone reports whether a type of which nothing is wanted is absent, or offered as NONE.
func (p Proposal) hasOrNone(t TransformType, id uint16) bool {
	if id == 0 && !p.hasType(t) {
		return true
	}
	return p.has(t, id, 0)
}

// only reports whether the proposal has no transform of another type than these and ADDKE1 to ADDKE7. RFC 7296 3.3.6: a proposal with a type that is
// not understood, or that has no place in the protocol, is not acceptable as a whole.
func (p Proposal) only(types ...TransformType) bool {
	return !slices.ContainsFunc(p.Transforms, func(t Transform) bool {
		return !slices.Contains(types, t.Type) && !t.Type.additional()
	})
}

func (p Proposal) containsIKE(o proposal.IKE) bool {
	return p.only(TransformEncryption, TransformPRF, TransformIntegrity, TransformGroup) && p.hasAdditional(o.Additional) &&
		p.has(TransformEncryption, uint16(o.Encryption), o.KeyBits) &&
		p.hasOrNone(TransformIntegrity, uint16(o.Integrity)) &&
		p.has(TransformPRF, uint16(o.PRF), 0) &&
		p.has(TransformGroup, uint16(o.Group), 0)
}

func (p Proposal) containsESP(o proposal.ESP) bool {
	return p.only(TransformEncryption, TransformIntegrity, TransformGroup, TransformESN) && p.hasAdditional(o.Additional) &&
		p.has(TransformEncryption, uint16(o.Encryption), o.KeyBits) &&
		p.hasOrNone(TransformIntegrity, uint16(o.Integrity)) &&
		p.hasOrNone(TransformGroup, uint16(o.Group)) &&
		(p.has(TransformESN, ESNYes, 0) || p.has(TransformESN, ESNNo, 0)) // RFC 7296 3.3.3: mandatory for ESP
}
