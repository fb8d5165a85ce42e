package wire

import (
	"fmt"
	"strings"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// What a description shows of an SA payload: a peer may send more than anybody reads.
const (
	describedProposals  = 8
	describedTransforms = 24
)

// String describes the proposals for a trace, such as "1 IKE ENCR AES-GCM/256 PRF SHA384 KE ecp384, x25519": for each
// its number, its protocol and its transforms, with the numbers of the registry where this program knows no name.
func (p SA) String() string {
	var all []string
	for i, prop := range p.Proposals {
		if i == describedProposals {
			all = append(all, fmt.Sprintf("and %d more", len(p.Proposals)-i))
			break
		}
		all = append(all, prop.describe())
	}
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, "; ")
}

func (p Proposal) describe() string {
	text := fmt.Sprintf("%d %s", p.Number, p.Protocol)
	last := TransformType(0)
	for i, t := range p.Transforms {
		if i == describedTransforms {
			return text + fmt.Sprintf(" and %d more transforms", len(p.Transforms)-i)
		}
		if t.Type == last {
			text += ", " + t.describe()
		} else {
			text += " " + t.Type.String() + " " + t.describe()
		}
		last = t.Type
	}
	return text
}

func (t Transform) describe() string {
	var name string
	switch {
	case t.Type == TransformEncryption:
		name = proposal.Encryption(t.ID).String()
	case t.Type == TransformPRF:
		name = proposal.PRF(t.ID).String()
	case t.Type == TransformIntegrity:
		name = proposal.Integrity(t.ID).String()
	case t.Type == TransformGroup || t.Type.additional():
		name = proposal.Group(t.ID).String()
	case t.Type == TransformESN && t.ID == ESNYes:
		name = "yes"
	case t.Type == TransformESN && t.ID == ESNNo:
		name = "no"
	default:
		name = fmt.Sprint(t.ID)
	}
	if t.KeyBits != 0 {
		name += fmt.Sprintf("/%d", t.KeyBits)
	}
	return name
}
