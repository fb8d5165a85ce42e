package wire

import "encoding/binary"

// SA is a security association payload (RFC 7296 3.3): proposals in the order of the sender's preference.
type SA struct{ Proposals []Proposal }

// Proposal is one proposal of an SA payload. Of several transforms of one type the receiver chooses one.
type Proposal struct {
	Number     uint8 // from 1, strictly increasing within an SA payload
	Protocol   Protocol
	SPI        []byte // 0 octets in IKE_SA_INIT, 8 when an IKE SA is rekeyed, 4 for ESP
	Transforms []Transform
}

// Transform is one algorithm of a proposal.
type Transform struct {
	Type TransformType
	ID   uint16
	// KeyBits is the Key Length attribute in bits; 0 when the attribute is absent.
	KeyBits uint16
	// Other holds attributes that this program does not know; with one of them the transform cannot be chosen
	// (RFC 7296 3.3.6).
	Other []Attribute
}

// Attribute is a transform attribute (RFC 7296 3.3.5).
type Attribute struct {
	Type  uint16 // without the format bit
	Fixed bool   // the value is two octets, in the short (TV) format
	Value []byte
}

// PayloadType is TypeSA.
func (SA) PayloadType() PayloadType { return TypeSA }

const (
	attributeFormatTV  = 0x8000
	attributeKeyLength = 14
	moreProposals      = 2
	moreTransforms     = 3
)

// AppendBody writes the proposals.
func (p SA) AppendBody(dst []byte) []byte {
	for i, prop := range p.Proposals {
		start := len(dst)
		more := byte(0)
		if i < len(p.Proposals)-1 {
			more = moreProposals
		}
		dst = append(dst, more, 0, 0, 0, prop.Number, byte(prop.Protocol), byte(len(prop.SPI)), byte(len(prop.Transforms)))
		dst = append(dst, prop.SPI...)
		for j, t := range prop.Transforms {
			dst = t.append(dst, j < len(prop.Transforms)-1)
		}
		binary.BigEndian.PutUint16(dst[start+2:], uint16(len(dst)-start))
	}
	return dst
}

func (t Transform) append(dst []byte, more bool) []byte {
	start := len(dst)
	last := byte(0)
	if more {
		last = moreTransforms
	}
	dst = append(dst, last, 0, 0, 0, byte(t.Type), 0)
	dst = binary.BigEndian.AppendUint16(dst, t.ID)
	if t.KeyBits != 0 {
		dst = binary.BigEndian.AppendUint16(dst, attributeFormatTV|attributeKeyLength)
		dst = binary.BigEndian.AppendUint16(dst, t.KeyBits)
	}
	for _, a := range t.Other {
		if a.Fixed {
			dst = binary.BigEndian.AppendUint16(dst, attributeFormatTV|a.Type)
		} else {
			dst = binary.BigEndian.AppendUint16(dst, a.Type)
			dst = binary.BigEndian.AppendUint16(dst, uint16(len(a.Value)))
		}
		dst = append(dst, a.Value...)
	}
	binary.BigEndian.PutUint16(dst[start+2:], uint16(len(dst)-start))
	return dst
}
